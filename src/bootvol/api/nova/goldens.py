"""The call for cached images (golden volumes), for operators; an addition to the specification."""

from __future__ import annotations

from bootvol.api.nova import views
from bootvol.api.nova.calls import Ask, call
from bootvol.policy import Right


@call("GET", "golden-volumes", right=Right.GOLDEN_VOLUMES)
async def list_goldens(ask: Ask) -> views.Goldens:
    """List the cached images (golden volumes), with the cache's hits and misses by backend."""
    found = await ask.core.goldens.listed()
    return {
        "goldenVolumes": [views.golden(each) for each in found],
        "use": views.cache_use(ask.core.goldens.use),
    }
