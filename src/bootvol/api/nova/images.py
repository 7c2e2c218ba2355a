"""Calls of images that clients of this API use (specification, section 5.12), in Nova's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bootvol.api.lists import composed
from bootvol.api.nova import views
from bootvol.api.nova.calls import Ask, call
from bootvol.api.nova.filters import Filter, filtered, number, paged
from bootvol.api.nova.links import Link
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


@call("GET", "images", query=_QUERY, refusals=(503,))
async def list_images(ask: Ask) -> views.Images:
    """List the images that a volume can be created from: ids and names."""
    listed, links = await _listed(ask)
    shown: views.Images = {"images": [views.brief_image(each, ask.place) for each in listed]}
    if links:
        shown["images_links"] = links
    return shown


@call("GET", "images/detail", query=_QUERY, refusals=(503,))
async def list_images_in_detail(ask: Ask) -> views.ImagesInDetail:
    """List the images that a volume can be created from, with details."""
    listed, links = await _listed(ask)
    shown: views.ImagesInDetail = {"images": [views.image(each, ask.place) for each in listed]}
    if links:
        shown["images_links"] = links
    return shown


async def _listed(ask: Ask) -> tuple[Sequence[Image], list[Link]]:
    found = await ask.core.images.listed(ask.caller)
    return paged(ask.request, filtered(ask.request, found, _FITS, _REFUSED), lambda each: each.id)


@call("GET", "images/<image_id>", named=True, refusals=(503,))
async def show_image(ask: Ask, image_id: str) -> views.OneImage:
    """Show an image."""
    return {"image": views.image(await ask.core.images.find(ask.caller, image_id), ask.place)}
