"""Lists whose pages begin after a ``marker``, the last that a client has seen."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

from twisted.web.iweb import IRequest

from bootvol.errors import InvalidRequest

Listed = TypeVar("Listed")


def text(request: IRequest, name: bytes) -> str | None:
    """Return what a request's query says of ``name``; None if it says nothing."""
    given = (request.args or {}).get(name)
    return None if given is None else given[0].decode("utf-8", "replace")


# One text is compared with many.  Ordering many marks takes time by their square.
@lru_cache(64)
def composed(value: str) -> str:
    """Return a text in the one form in which texts are compared that read the same.

    That is NFC (Unicode Standard, Annex 15): a letter with its mark is one character.
    """
    return unicodedata.normalize("NFC", value)


def after(
    request: IRequest,
    found: Sequence[Listed],
    key: Callable[[Listed], str],
    most: int | None = None,
) -> Sequence[Listed]:
    """Return the page that a request's ``limit`` and ``marker`` ask for.

    :param found: all of the list.
    :param key: returns what a marker is.
    :param most: how long a page may be, and is where no limit is given.
    :raises InvalidRequest: the limit is no number, or nothing has that marker.
    """
    marker, limit = text(request, b"marker"), text(request, b"limit")
    length = most
    if limit is not None:
        if not (limit.isascii() and limit.isdigit()):
            raise InvalidRequest("limit param must be an integer, and positive")
        # Digits beyond these are refused by Python itself.
        length = min(int(limit[:18]), len(found) if most is None else most)
    begin = 0
    if marker is not None:
        begin = 1 + next((n for n, each in enumerate(found) if key(each) == marker), -1)
        if not begin:
            raise InvalidRequest(f"marker [{marker}] not found")
    return found[begin:] if length is None else found[begin : begin + length]
