"""Operations of images, with the version documents.  Clients find images here by name."""

from __future__ import annotations

from typing import Final, NotRequired
from urllib.parse import urlencode

from twisted.web.iweb import IRequest
from typing_extensions import TypedDict

from bootvol.api.context import RequestContext
from bootvol.api.glance import schemas, views
from bootvol.api.glance.described import merged, of_image, of_record
from bootvol.api.glance.rights import rights_of
from bootvol.api.operations import document, operation
from bootvol.api.paging import Link, after
from bootvol.errors import NotFound
from bootvol.jsons import JsonObject

#: Maximum number of images in one answer.
_MOST: Final = 1000
#: The latest minor version of the API.  Later ones have a cache, and locations.
_LATEST: Final = 12


class VersionShown(TypedDict):
    """A version of the API."""

    id: str
    status: str
    links: list[Link]


class Versions(TypedDict):
    versions: list[VersionShown]


class Images(TypedDict):
    """A page of images."""

    images: list[views.ImageShown]
    first: str
    next: NotRequired[str]
    schema: str


# 300, as in Glance: the client chooses a version.
@document("images_choose_version", "/", status=300)
def choose_version(url: str) -> Versions:
    """List the versions of the image API, as choices."""
    return _versions(url)


@document(
    "images_list_versions",
    "/versions",
    aliases={"/v2": "images_list_versions_again", "/v2/": "images_list_versions_again_again"},
)
def list_versions(url: str) -> Versions:
    """List the versions of the image API."""
    return _versions(url)


@operation("images_list_images", "GET", "images", paged=True, query=views.QUERY, refusals=(503,))
async def list_images(context: RequestContext) -> Images:
    """List the images of all sources."""
    services, caller, rights = context.services, context.caller, rights_of(context)
    found = await services.images.listed(caller)
    described = merged(found, await services.stored_images.records(caller, rights), caller.tenant)
    fitting = views.select(context.request, described)
    page = after(context.request, fitting, lambda each: each.id, _MOST)
    shown: Images = {
        "images": [views.image(each) for each in page],
        "first": _link(context.request),
        "schema": "/v2/schemas/images",
    }
    if page and page[-1] is not fitting[-1]:
        shown["next"] = _link(context.request, page[-1].id)
    return shown


@operation("images_show_image", "GET", "images/<image_id>", refusals=(503,))
async def show_image(context: RequestContext, image_id: str) -> views.ImageShown:
    """Show an image."""
    services, caller = context.services, context.caller
    stored = await services.stored_images.record(caller, image_id, rights_of(context))
    if stored is not None:
        return views.image(of_record(stored, caller.tenant))
    return views.image(of_image(await services.images.find(caller, image_id)))


@operation("images_show_schema", "GET", "schemas/<name>")
async def show_schema(context: RequestContext, name: str) -> JsonObject:
    """Show the JSON schema of an image, a member or a task, or of a list of them."""
    if name not in schemas.SCHEMAS:
        raise NotFound
    return schemas.SCHEMAS[name]


def _versions(url: str) -> Versions:
    link: Link = {"rel": "self", "href": f"{url}/image/v2/"}
    return {
        "versions": [
            {
                "id": f"v2.{minor}",
                "status": "CURRENT" if minor == _LATEST else "SUPPORTED",
                "links": [link],
            }
            for minor in range(_LATEST, -1, -1)
        ]
    }


def _link(request: IRequest, marker: str | None = None) -> str:
    """Return the path of a list's first page, or of the page after a marker."""
    pairs = [(n, value) for n, given in (request.args or {}).items() for value in given]
    kept: list[tuple[bytes, bytes]] = [pair for pair in pairs if pair[0] != b"marker"]
    if marker is not None:
        kept.append((b"marker", marker.encode("utf-8")))
    return "/v2/images" + (f"?{urlencode(kept)}" if kept else "")


OPERATIONS = (choose_version, list_versions, list_images, show_image, show_schema)
