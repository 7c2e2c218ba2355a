"""What clients ask of images and the like around this API (reference, section 5.12)."""

from __future__ import annotations

from bootvol.api.nova import views
from bootvol.api.nova.calls import Ask, call


@call("GET", "images", "images/detail", refusals=(503,))
async def list_images(ask: Ask) -> views.Images:
    """List the images that a volume can be created from."""
    return {"images": [views.image(each) for each in await ask.core.images.listed(ask.caller)]}
