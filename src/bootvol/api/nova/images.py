"""What clients ask of images around this API (reference, section 5.12), in Nova's form."""

from __future__ import annotations

from bootvol.api.lists import after, composed, text
from bootvol.api.nova import views
from bootvol.api.nova.calls import Ask, call
from bootvol.model import Image


@call("GET", "images", "images/detail", query=("name", "limit", "marker"), refusals=(503,))
async def list_images(ask: Ask) -> views.Images:
    """List the images that a volume can be created from."""
    name = text(ask.request, b"name")
    found = await ask.core.images.listed(ask.caller)
    named = [each for each in found if name is None or composed(name) == composed(each.name)]
    return {"images": [views.image(each) for each in after(ask.request, named, _id)]}


@call("GET", "images/<image_id>", named=True, refusals=(503,))
async def show_image(ask: Ask, image_id: str) -> views.OneImage:
    """Show an image."""
    return {"image": views.image(await ask.core.images.find(ask.caller, image_id))}


def _id(image: Image) -> str:
    return image.id
