"""Filters of lists: each of Nova's filters either narrows the list or is refused.

Names that no version of Nova knows are ignored, as in Nova v1.1 and v2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from twisted.web.iweb import IRequest

from bootvol.api.lists import text
from bootvol.api.nova.links import Link, following
from bootvol.api.paging import page
from bootvol.errors import InvalidRequest

Listed = TypeVar("Listed")

#: Tells whether an item of a list matches a value of the query.
Filter = Callable[[Listed, str], bool]

#: Values of a refused name that ask for nothing beyond the plain list.
_NO = frozenset({"", "0", "f", "false", "n", "no", "off", "none"})


def filtered(
    request: IRequest,
    found: Sequence[Listed],
    filters: Mapping[str, Filter[Listed]],
    refused: Collection[str] = (),
) -> Sequence[Listed]:
    """Return the items that match all filters of a request's query.

    :param refused: names of Nova's filters without support here.  Values that mean "no" are
        accepted, because they change nothing.
    :raises InvalidRequest: if a filter is not supported.
    """
    refuse(request, refused)
    for name, fits in filters.items():
        # Apply each value once: repeated values would only take time.
        for given in dict.fromkeys((request.args or {}).get(name.encode("ascii"), ())):
            value = given.decode("utf-8", "replace")
            found = [each for each in found if fits(each, value)]
    return found


def refuse(request: IRequest, names: Collection[str]) -> None:
    """Refuse a query with one of the names, unless the value means "no".

    :raises InvalidRequest: if the query has such a name.
    """
    for name in names:
        value = text(request, name.encode("ascii"))
        if value is not None and value.strip().lower() not in _NO:
            raise InvalidRequest(f"This list does not support the parameter {name}.")


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


def number(value: str, name: str) -> int:
    """Return the value of a numeric filter.

    :raises InvalidRequest: if the value is not a number.
    """
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise InvalidRequest(f"{name} param must be an integer")
    return int(value)
