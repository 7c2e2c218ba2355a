"""Lists: filters, order, and pages after a marker (docs/block-storage.md)."""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Final, Generic, TypeVar

import attrs
from twisted.web.iweb import IRequest

from bootvol.api.cinder.booleans import truth
from bootvol.api.filters import Filter, filtered, text
from bootvol.api.paging import MOST, Link, following
from bootvol.errors import InvalidRequest, NotFound
from bootvol.model import LARGEST_ID

Listed = TypeVar("Listed")

#: The parameters of every list.
PARAMETERS: Final = ("sort", "sort_key", "sort_dir", "limit", "marker", "offset")


@attrs.frozen
class Listing(Generic[Listed]):
    """The rules of a list.

    :ivar key: returns an item's id, the value of a marker.
    :ivar missing: the error for a marker that names no item.
    :ivar filters: the filters, by the parameters' names.
    :ivar sorted_by: the values to sort by, by their names.  Text compares with text.
    """

    key: Callable[[Listed], str]
    missing: Callable[[str], NotFound]
    filters: Mapping[str, Filter[Listed]]
    sorted_by: Mapping[str, Callable[[Listed], object]]

    @property
    def query(self) -> tuple[str, ...]:
        """The parameters of the list."""
        return (*self.filters, *PARAMETERS)

    def select(
        self, request: IRequest, found: Sequence[Listed]
    ) -> tuple[Sequence[Listed], list[Link]]:
        """Return the page that a request asks for, and the link to the next page.

        The link comes with each full page, also with the last one, as in Cinder.

        :param found: the whole list, in any order.
        :raises InvalidRequest: if a parameter is not valid.
        :raises NotFound: if no item has the id of the marker.
        """
        fitting = self._ordered(request, filtered(request, found, self.filters))
        marker = text(request, b"marker")
        if marker is not None:
            begin = next((n for n, each in enumerate(fitting) if self.key(each) == marker), None)
            if begin is None:
                raise self.missing(marker)
            fitting = fitting[begin + 1 :]
        limit = _number(request, b"limit", "limit param must be positive")
        offset = _number(request, b"offset", "offset must be >= 0") or 0
        length = min(MOST if limit is None else limit, MOST)
        page = fitting[offset : offset + length]
        full = (bool(page) and len(page) == limit) or len(page) == MOST
        return page, following(request, self.key(page[-1])) if full else []

    def _ordered(self, request: IRequest, found: Sequence[Listed]) -> Sequence[Listed]:
        ordered = list(found)
        # A stable sort by the last key first sorts by all keys.
        for name, descending in reversed(self._order(request)):
            if name not in self.sorted_by:
                raise InvalidRequest("Invalid input received: Invalid sort key")
            value = self.sorted_by[name]
            ordered.sort(key=partial(_comparable, value), reverse=descending)
        return ordered

    def _order(self, request: IRequest) -> list[tuple[str, bool]]:
        """Return the names to sort by, each with whether the order is descending."""
        parts = (text(request, b"sort") or "").split(",")
        order = [(key, way) for key, _, way in (each.partition(":") for each in parts) if key]
        if not order:
            order = [(text(request, b"sort_key") or "created_at", text(request, b"sort_dir") or "")]
        for _, way in order:
            if way not in ("", "asc", "desc"):
                raise InvalidRequest(
                    "Invalid input received: Unknown sort direction, must be 'desc' or 'asc'."
                )
        last = [("id", "")] if len(order) == 1 else []
        return [(key, way != "asc") for key, way in order[:8] + last]


def _comparable(value: Callable[[Listed], object], each: Listed) -> tuple[bool, object]:
    """Return a value in a form that sorts: nothing comes first."""
    found = value(each)
    return (False, 0) if found is None else (True, found)


def _number(request: IRequest, name: bytes, negative: str) -> int | None:
    given = text(request, name)
    if given is None:
        return None
    try:
        number = int(given[:20])
    except ValueError:
        what = "limit param" if name == b"limit" else name.decode("ascii")
        raise InvalidRequest(f"{what} must be an integer") from None
    if number < 0:
        raise InvalidRequest(negative)
    return min(number, LARGEST_ID)


def flag(value: str, name: str) -> bool:
    """Return the truth of a parameter.

    :raises InvalidRequest: if the value is not a boolean.
    """
    meant = truth(value)
    if meant is None:
        raise InvalidRequest(f"Value '{value[:40]}' for '{name}' is not a boolean.")
    return meant


def has_items(metadata: Mapping[str, str], value: str) -> bool:
    """Return whether metadata has all items of a filter: an object in JSON, or in Python's form.

    :raises InvalidRequest: if the value is not an object.
    """
    items = _items(value)
    if items is None:
        raise InvalidRequest("Invalid input received: metadata must be an object")
    return all(metadata.get(key) == each for key, each in items.items())


# A list compares one filter with the metadata of thousands of volumes.
@lru_cache(64)
def _items(value: str) -> Mapping[str, str] | None:
    """Return the items of a filter as texts; None if the value is not an object."""
    try:
        try:
            items = json.loads(value)
        except ValueError:
            items = _literal(value)
        if not isinstance(items, dict):
            return None
        return {str(key): str(each) for key, each in items.items()}
    except (ValueError, RecursionError):
        # Python refuses deep nesting, and makes no text of a very long number.
        return None


def _literal(value: str) -> object:
    # Python's parser takes much time and memory for long or nested text.
    if len(value) > 4096 or value.count("{") > 1 or value.count("(") + value.count("[") > 0:
        return None
    try:
        return literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
