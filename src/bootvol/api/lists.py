"""Lists with pages after a ``marker``, the last item that a client has seen."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

from twisted.web.iweb import IRequest

from bootvol.errors import InvalidRequest

Listed = TypeVar("Listed")


def text(request: IRequest, name: bytes) -> str | None:
    """Return the first value of a query's parameter; None if the query has no such parameter."""
    given = (request.args or {}).get(name)
    return None if given is None else given[0].decode("utf-8", "replace")


# The cache helps because one text is compared with many. Ordering a text's marks takes time that
# grows with the square of their number.
@lru_cache(64)
def composed(value: str) -> str:
    """Return a text in NFC, so that texts with the same look compare equal.

    In NFC (Unicode Standard, Annex 15) a letter with its mark is one character.
    """
    return unicodedata.normalize("NFC", value)


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
