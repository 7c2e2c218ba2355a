"""The operation of cached images (golden volumes), an addition to the specification."""

from __future__ import annotations

from bootvol.api.nova import views
from bootvol.api.nova.context import NovaContext
from bootvol.api.operations import operation
from bootvol.policy import Right


@operation("goldens_list_goldens", "GET", "golden-volumes", right=Right.GOLDEN_VOLUMES)
async def list_cached_images(context: NovaContext) -> views.Goldens:
    """List the cached images (golden volumes), with the cache's hits and misses by backend."""
    found = await context.services.cached_images.listed()
    return {
        "goldenVolumes": [views.cached_image(each) for each in found],
        "use": views.cache_use(context.services.cached_images.use),
    }


OPERATIONS = (list_cached_images,)
