"""The version documents (specification, section 5.1), readable without a token."""

from __future__ import annotations

from typing import Final

from twisted.web.http import MULTIPLE_CHOICE
from twisted.web.iweb import IRequest
from typing_extensions import TypedDict

from bootvol.api.http import Reply, public_url
from bootvol.api.operations import document
from bootvol.api.paging import Link

#: The versions with Nova's calls: HP's version, and its name for later clients.
VERSIONS: Final = ("v1.1", "v2")
_UPDATED: Final = "2011-01-21T11:33:21Z"


class Media(TypedDict):
    """A media type of the API."""

    base: str
    type: str


class VersionShown(TypedDict):
    """A version of the API."""

    id: str
    status: str
    updated: str
    links: list[Link]


VersionDetail = TypedDict(
    "VersionDetail",
    {"id": str, "status": str, "updated": str, "links": list[Link], "media-types": list[Media]},
)
Choice = TypedDict(
    "Choice", {"id": str, "status": str, "links": list[Link], "media-types": list[Media]}
)


class Versions(TypedDict):
    versions: list[VersionShown]


class OneVersion(TypedDict):
    version: VersionDetail


class Choices(TypedDict):
    choices: list[Choice]


@document("versions_list_versions", "/")
def list_versions(url: str) -> Versions:
    """List the versions of the API."""
    return {"versions": [_version(url, base) for base in VERSIONS]}


@document("versions_show_v1", "/v1.1/", aliases={"/v1.1": "versions_show_v1_again"})
def show_v1(url: str) -> OneVersion:
    """Show version 1.1 of the API."""
    return {"version": {**_version(url, "v1.1"), "media-types": _MEDIA["v1.1"]}}


@document("versions_show_v2", "/v2/", aliases={"/v2": "versions_show_v2_again"})
def show_v2(url: str) -> OneVersion:
    """Show version 2.0 of the API, another name of version 1.1."""
    return {"version": {**_version(url, "v2"), "media-types": _MEDIA["v2"]}}


@document(
    "versions_show_volume_service", "/v1/", aliases={"/v1": "versions_show_volume_service_again"}
)
def show_volume_service(url: str) -> OneVersion:
    """Show version 1.0 of the volume service, as in Cinder; ``GET /`` lists only Nova's."""
    shown: VersionShown = {
        "id": "v1.0",
        "status": "CURRENT",
        "updated": "2012-01-04T11:33:21Z",
        "links": [_link(url, "v1/")],
    }
    return {"version": {**shown, "media-types": _MEDIA["v1"]}}


def negotiate(request: IRequest) -> Reply | None:
    """Return the choices (300) for a path that names no version; None for other paths."""
    segment = request.postpath[0].decode("utf-8", "replace")
    if segment in (*VERSIONS, "v1"):
        return None
    return Reply(choices(request), MULTIPLE_CHOICE)


def choices(request: IRequest) -> Choices:
    """Return the possible versions of a path that belongs to no version."""
    url = public_url(request)
    path = request.path.decode("utf-8", "replace").lstrip("/")
    return {
        "choices": [
            {
                "id": _IDS[base],
                "status": _STATUSES[base],
                "links": [_link(url, f"{base}/{path}")],
                "media-types": _MEDIA[base],
            }
            for base in VERSIONS
        ]
    }


_IDS: Final = {"v1.1": "v1.1", "v2": "v2.0"}
_STATUSES: Final = {"v1.1": "CURRENT", "v2": "SUPPORTED"}
_MEDIA: Final[dict[str, list[Media]]] = {
    "v1": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=1"}],
    "v1.1": [{"base": "application/json", "type": "application/vnd.openstack.compute-v1.1+json"}],
    "v2": [
        {"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2"}
    ],
}


def _version(url: str, base: str) -> VersionShown:
    return {
        "id": _IDS[base],
        "status": _STATUSES[base],
        "updated": _UPDATED,
        "links": [_link(url, f"{base}/")],
    }


def _link(url: str, path: str) -> Link:
    return {"rel": "self", "href": f"{url}/{path}"}


OPERATIONS = (list_versions, show_v1, show_v2, show_volume_service)
