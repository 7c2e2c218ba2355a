"""Golden volumes, for operators; beyond the reference."""

from __future__ import annotations

from bootvol.api.nova import views
from bootvol.api.nova.calls import Ask, call


@call("GET", "golden-volumes", admins=True)
async def list_goldens(ask: Ask) -> views.Goldens:
    """List the images that need no download, and what that was good for."""
    found = await ask.core.goldens.listed()
    return {
        "goldenVolumes": [views.golden(each) for each in found],
        "use": views.cache_use(ask.core.goldens.use),
    }
