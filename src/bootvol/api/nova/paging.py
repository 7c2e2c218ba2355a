"""``limit`` and ``offset`` of lists (reference, section 2.4)."""

from __future__ import annotations

from typing import Final, TypedDict

from twisted.web.iweb import IRequest

from bootvol.errors import InvalidRequest
from bootvol.model import LARGEST_ID

#: The most that one answer lists; also what a missing or zero limit means.
MOST: Final = 1000


class Page(TypedDict):
    """A part of a list."""

    limit: int
    offset: int


def page(request: IRequest) -> Page:
    """Return the part of a list that is asked for.

    :raises InvalidRequest: one is not a number, or negative.
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
