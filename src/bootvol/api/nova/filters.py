"""Filters of lists: each narrows the list, or is refused; none that Nova knows is passed over.

What no version of Nova knows is ignored, as Nova v1.1 and v2 do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from twisted.web.iweb import IRequest

from bootvol.api.lists import text
from bootvol.api.nova.links import Link, following
from bootvol.api.nova.paging import page
from bootvol.errors import InvalidRequest

Listed = TypeVar("Listed")

#: Tells whether what is listed fits a value of the query.
Filter = Callable[[Listed, str], bool]

#: What a query says that asks for nothing beyond the plain list.
_NO = frozenset({"", "0", "f", "false", "n", "no", "off", "none"})


def filtered(
    request: IRequest,
    found: Sequence[Listed],
    filters: Mapping[str, Filter[Listed]],
    refused: Collection[str] = (),
) -> Sequence[Listed]:
    """Return what fits all filters of a request's query.

    :param refused: names that Nova knows, and that cannot be heeded here; where their value is
        a no they ask for nothing.
    :raises InvalidRequest: a filter cannot be heeded.
    """
    refuse(request, refused)
    for name, fits in filters.items():
        # Each value once: more would only take time.
        for given in dict.fromkeys((request.args or {}).get(name.encode("ascii"), ())):
            value = given.decode("utf-8", "replace")
            found = [each for each in found if fits(each, value)]
    return found


def refuse(request: IRequest, names: Collection[str]) -> None:
    """Refuse a query that has one of some names, unless the value is a no.

    :raises InvalidRequest: it has.
    """
    for name in names:
        value = text(request, name.encode("ascii"))
        if value is not None and value.strip().lower() not in _NO:
            raise InvalidRequest(f"This list takes no {name}.")


def paged(
    request: IRequest, found: Sequence[Listed], key: Callable[[Listed], object]
) -> tuple[Sequence[Listed], list[Link]]:
    """Return a page of a list, after a marker or at an offset, and the link to the next page.

    :param found: all of the list.
    :param key: returns the id that a marker names.
    :raises InvalidRequest: limit, offset or marker mean nothing.
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


def number(value: str, name: str) -> int:
    """Return a filter's value that is a number.

    :raises InvalidRequest: it is none.
    """
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise InvalidRequest(f"{name} param must be an integer")
    return int(value)
