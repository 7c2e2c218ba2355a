"""Operations of images that clients use (specification, section 5.12), in Nova's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bootvol.api.filters import Filter, composed, filtered, number
from bootvol.api.nova import views
from bootvol.api.nova.context import NovaContext
from bootvol.api.operations import operation
from bootvol.api.paging import Link, paged
from bootvol.model import Image

_QUERY: Final = ("name", "status", "minDisk", "minRam", "limit", "marker", "offset")
_REFUSED: Final = ("server", "type", "changes-since", "sort_key", "sort_dir")
_FITS: Final[Mapping[str, Filter[Image]]] = {
    "name": lambda each, text: composed(each.name) == composed(text),
    # All listed images are usable.
    "status": lambda _, text: text.upper() == "ACTIVE",
    "minDisk": lambda each, text: each.min_disk_gib >= number(text, "minDisk"),
    "minRam": lambda _, text: number(text, "minRam") == 0,
}


@operation("images_list_images", "GET", "images", query=_QUERY, refusals=(503,))
async def list_images(context: NovaContext) -> views.Images:
    """List the images that a volume can be created from: ids and names."""
    listed, links = await _listed(context)
    shown: views.Images = {"images": [views.brief_image(each, context.base) for each in listed]}
    if links:
        shown["images_links"] = links
    return shown


@operation("images_list_images_in_detail", "GET", "images/detail", query=_QUERY, refusals=(503,))
async def list_images_in_detail(context: NovaContext) -> views.ImagesInDetail:
    """List the images that a volume can be created from, with details."""
    listed, links = await _listed(context)
    shown: views.ImagesInDetail = {"images": [views.image(each, context.base) for each in listed]}
    if links:
        shown["images_links"] = links
    return shown


async def _listed(context: NovaContext) -> tuple[Sequence[Image], list[Link]]:
    found = await context.services.images.listed(context.caller)
    return paged(
        context.request, filtered(context.request, found, _FITS, _REFUSED), lambda each: each.id
    )


@operation("images_show_image", "GET", "images/<image_id>", named=True, refusals=(503,))
async def show_image(context: NovaContext, image_id: str) -> views.OneImage:
    """Show an image."""
    return {
        "image": views.image(
            await context.services.images.find(context.caller, image_id), context.base
        )
    }


OPERATIONS = (list_images, list_images_in_detail, show_image)
