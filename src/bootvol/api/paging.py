"""The parameters ``limit`` and ``offset`` of lists (specification, section 2.4)."""

from __future__ import annotations

from typing import Final, TypedDict

from twisted.web.iweb import IRequest

from bootvol.errors import InvalidRequest
from bootvol.model import LARGEST_ID

#: Maximum number of items in one answer, and the default for a missing or zero limit.
MOST: Final = 1000


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


def _number(request: IRequest, name: bytes) -> int:
    given = (request.args or {}).get(name, [b"0"])[0]
    try:
        number = int(given[:40])
    except ValueError:
        raise InvalidRequest(f"{name.decode()} param must be an integer") from None
    if number < 0:
        raise InvalidRequest(f"{name.decode()} param must be positive")
    return min(number, LARGEST_ID)
