"""Where a request was made, and so in what form its answer shows ids and links.

Below ``/v1.1`` ids are HP's numbers of 2012, below the later versions uuids (reference, section 8).
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlencode

import attrs
from twisted.web.iweb import IRequest
from typing_extensions import TypedDict

from bootvol.api.http import public_url

#: The version whose ids are numbers.
NUMBERED: Final = "v1.1"


class Link(TypedDict):
    """Where something is."""

    rel: str
    href: str


@attrs.frozen
class Place:
    """The base URI of a request.

    :ivar url: of the API's root, without a slash at its end.
    :ivar version: the path's first segment.
    """

    url: str
    version: str
    tenant: str

    def id(self, number: int, uuid: str) -> int | str:
        """Return an id in the form that it has here."""
        return number if self.version == NUMBERED else uuid

    def links(self, *path: object) -> list[Link]:
        """Return the links of something: to itself in this version, and one that stays for ever."""
        below = "/".join((self.tenant, *(quote(str(part), safe="") for part in path)))
        return [
            {"rel": "self", "href": f"{self.url}/{self.version}/{below}"},
            {"rel": "bookmark", "href": f"{self.url}/{below}"},
        ]


def place(request: IRequest, version: str, tenant: str) -> Place:
    """Return where a request was made."""
    return Place(public_url(request), version, tenant)


def following(request: IRequest, marker: object) -> list[Link]:
    """Return the link to what follows a page of a list.

    :param marker: the id of the last that the page shows.
    """
    given = [(n, value) for n, values in (request.args or {}).items() for value in values]
    query: list[tuple[bytes, bytes]] = [pair for pair in given if pair[0] != b"marker"]
    query.append((b"marker", str(marker).encode("utf-8")))
    path = request.path.decode("utf-8", "replace")
    return [{"rel": "next", "href": f"{public_url(request)}{path}?{urlencode(query)}"}]
