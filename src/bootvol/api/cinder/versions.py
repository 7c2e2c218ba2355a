"""The version documents (docs/block-storage.md)."""

from __future__ import annotations

from twisted.web.iweb import IRequest
from typing_extensions import TypedDict

from bootvol.api.cinder.context import ROOT, CinderContext
from bootvol.api.cinder.microversions import HIGHEST, LOWEST
from bootvol.api.http import Reply, public_url
from bootvol.api.operations import document, operation
from bootvol.api.paging import Link


class LinkedText(TypedDict):
    """A link with the media type of its target."""

    rel: str
    type: str
    href: str


class Media(TypedDict):
    """A media type of the API."""

    base: str
    type: str


VersionShown = TypedDict(
    "VersionShown",
    {
        "id": str,
        "status": str,
        "version": str,
        "min_version": str,
        "updated": str,
        "links": list[LinkedText | Link],
        "media-types": list[Media],
    },
)


class Versions(TypedDict):
    versions: list[VersionShown]


# 300, as in Cinder: the client chooses a version.
@document("versions_list_versions", "/", status=300)
def list_versions(url: str) -> Versions:
    """List the versions of the API."""
    return _versions(url)


@operation("versions_show_v3", "GET", "", versions=("v3",))
async def show_v3(context: CinderContext) -> Versions:
    """Show version 3 of the API."""
    return _versions(public_url(context.request))


def negotiate(request: IRequest) -> Reply | None:
    """Return the reply to the path of the version without its slash; None for other paths."""
    if request.postpath != [b"v3"]:
        return None
    location = f"{public_url(request)}/{ROOT}/v3/"
    request.setHeader(b"Location", location.encode("utf-8"))
    return Reply(None, 302)


def _versions(url: str) -> Versions:
    own: Link = {"rel": "self", "href": f"{url}/{ROOT}/v3/"}
    about: LinkedText = {
        "rel": "describedby",
        "type": "text/html",
        "href": "https://docs.openstack.org/",
    }
    return {
        "versions": [
            {
                "id": "v3.0",
                "status": "CURRENT",
                "version": str(HIGHEST),
                "min_version": str(LOWEST),
                "updated": "2023-08-31T00:00:00Z",
                "links": [about, own],
                "media-types": [
                    {
                        "base": "application/json",
                        "type": "application/vnd.openstack.volume+json;version=3",
                    }
                ],
            }
        ]
    }


OPERATIONS = (list_versions, show_v3)
