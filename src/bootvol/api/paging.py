"""Pages of lists: at an offset (specification, section 2.4), or after a marker.

A marker is the id of the last item that a client has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar
from urllib.parse import urlencode

from twisted.web.iweb import IRequest
from typing_extensions import TypedDict

from bootvol.api.filters import text
from bootvol.api.http import public_url
from bootvol.errors import InvalidRequest
from bootvol.model import LARGEST_ID

Listed = TypeVar("Listed")

#: Maximum number of items in one answer, and the default for a missing or zero limit.
MOST: Final = 1000


class Link(TypedDict):
    """A link to a resource."""

    rel: str
    href: str


class Page(TypedDict):
    """A page of a list."""

    limit: int
    offset: int


def page(request: IRequest) -> Page:
    """Return the requested page of a list.

    :raises InvalidRequest: if the limit or the offset is not a number or is negative.
    """
    limit, offset = _number(request, b"limit"), _number(request, b"offset")
    return {"limit": min(limit or MOST, MOST), "offset": offset}


def paged(
    request: IRequest, found: Sequence[Listed], key: Callable[[Listed], object]
) -> tuple[Sequence[Listed], list[Link]]:
    """Return a page of a list, after a marker or at an offset, and the link to the next page.

    :param found: the whole list.
    :param key: returns an item's id, the value of a marker.
    :raises InvalidRequest: if limit or offset is not a valid number, or if the list has no item
        with the marker's id.
    """
    part = page(request)
    if text(request, b"marker") is not None:
        found = _after(request, found, key)
    found = found[part["offset"] :]
    shown: Sequence[Listed] = found[: part["limit"]]
    more = len(found) > len(shown)
    return shown, following(request, key(shown[-1])) if more else []


def _after(
    request: IRequest, found: Sequence[Listed], key: Callable[[Listed], object]
) -> Sequence[Listed]:
    marker = text(request, b"marker")
    for place, each in enumerate(found):
        if str(key(each)) == marker:
            return found[place + 1 :]
    raise InvalidRequest(f"marker [{marker}] not found")


def following(request: IRequest, marker: object) -> list[Link]:
    """Return the link to the next page of a list.

    :param marker: the id of the last item of this page.
    """
    given = [(n, value) for n, values in (request.args or {}).items() for value in values]
    query: list[tuple[bytes, bytes]] = [pair for pair in given if pair[0] != b"marker"]
    query.append((b"marker", str(marker).encode("utf-8")))
    path = request.path.decode("utf-8", "replace")
    return [{"rel": "next", "href": f"{public_url(request)}{path}?{urlencode(query)}"}]


def after(
    request: IRequest,
    found: Sequence[Listed],
    key: Callable[[Listed], str],
    most: int | None = None,
) -> Sequence[Listed]:
    """Return the page that a request's ``limit`` and ``marker`` select.

    :param found: the whole list.
    :param key: returns an item's marker.
    :param most: maximum length of a page, and the length without a ``limit``; None for no maximum.
    :raises InvalidRequest: if the limit is not a number, or if no item has the marker.
    """
    marker, limit = text(request, b"marker"), text(request, b"limit")
    length = most
    if limit is not None:
        if not (limit.isascii() and limit.isdigit()):
            raise InvalidRequest("limit param must be an integer, and positive")
        # Python refuses to convert very long numbers.
        length = min(int(limit[:18]), len(found) if most is None else most)
    begin = 0
    if marker is not None:
        begin = 1 + next((n for n, each in enumerate(found) if key(each) == marker), -1)
        if not begin:
            raise InvalidRequest(f"marker [{marker}] not found")
    return found[begin:] if length is None else found[begin : begin + length]


def _number(request: IRequest, name: bytes) -> int:
    given = (request.args or {}).get(name, [b"0"])[0]
    try:
        number = int(given[:40])
    except ValueError:
        raise InvalidRequest(f"{name.decode()} param must be an integer") from None
    if number < 0:
        raise InvalidRequest(f"{name.decode()} param must be positive")
    return min(number, LARGEST_ID)
