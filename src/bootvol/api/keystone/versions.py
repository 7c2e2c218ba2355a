"""The versions of the identity API."""

from __future__ import annotations

from typing_extensions import TypedDict

from bootvol.api.paging import Link

VersionShown = TypedDict(
    "VersionShown",
    {
        "id": str,
        "status": str,
        "updated": str,
        "links": "list[Link]",
        "media-types": "list[Media]",
    },
)


class Media(TypedDict):
    """A media type of the API."""

    base: str
    type: str


class OneVersion(TypedDict):
    version: VersionShown


class VersionValues(TypedDict):
    values: list[VersionShown]


class Versions(TypedDict):
    versions: VersionValues


def version_3(url: str) -> VersionShown:
    """Return the entry of version 3 in the version documents."""
    return _version(url, "v3", "v3.14", "stable", "2020-04-07")


def version_2(url: str) -> VersionShown:
    """Return the entry of version 2.0 in the version documents."""
    return _version(url, "v2.0", "v2.0", "deprecated", "2014-04-17")


def _version(url: str, path: str, name: str, status: str, updated: str) -> VersionShown:
    media = f"application/vnd.openstack.identity-{path}+json"
    return {
        "id": name,
        "status": status,
        "updated": f"{updated}T00:00:00Z",
        "links": [{"rel": "self", "href": f"{url}/identity/{path}/"}],
        "media-types": [{"base": "application/json", "type": media}],
    }
