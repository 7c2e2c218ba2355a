"""The base URI of a request, which sets the form of ids and links in the answer.

Below ``/v1.1`` ids are HP's numbers of 2012, below the later versions uuids (specification,
section 8).
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlencode

import attrs
from twisted.web.iweb import IRequest
from typing_extensions import TypedDict

from bootvol.api.http import public_url

#: The version with numbers as ids.
NUMBERED: Final = "v1.1"


class Link(TypedDict):
    """A link to a resource."""

    rel: str
    href: str


@attrs.frozen
class Place:
    """The base URI of a request.

    :ivar url: URL of the API's root, without a slash at the end.
    :ivar version: first segment of the path.
    """

    url: str
    version: str
    tenant: str

    def id(self, number: int, uuid: str) -> int | str:
        """Return an id in the form of this version."""
        return number if self.version == NUMBERED else uuid

    def links(self, *path: object) -> list[Link]:
        """Return a resource's links: ``self`` in this version, and the permanent ``bookmark``."""
        below = "/".join((self.tenant, *(quote(str(part), safe="") for part in path)))
        return [
            {"rel": "self", "href": f"{self.url}/{self.version}/{below}"},
            {"rel": "bookmark", "href": f"{self.url}/{below}"},
        ]


def place(request: IRequest, version: str, tenant: str) -> Place:
    """Return the base URI of a request."""
    return Place(public_url(request), version, tenant)


def following(request: IRequest, marker: object) -> list[Link]:
    """Return the link to the next page of a list.

    :param marker: the id of the last item of this page.
    """
    given = [(n, value) for n, values in (request.args or {}).items() for value in values]
    query: list[tuple[bytes, bytes]] = [pair for pair in given if pair[0] != b"marker"]
    query.append((b"marker", str(marker).encode("utf-8")))
    path = request.path.decode("utf-8", "replace")
    return [{"rel": "next", "href": f"{public_url(request)}{path}?{urlencode(query)}"}]
