"""Lists: filters, order, and pages after a marker (docs/block-storage.md).

Operators may filter by any name, and a name without a filter fits nothing.  Other callers may
filter by the names that :data:`bootvol.api.cinder.filter_names.OPEN` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import attrs
from twisted.web.iweb import IRequest

from bootvol.api.cinder.matching import flag
from bootvol.api.filters import Filter, filtered, text
from bootvol.api.paging import MOST, Link, following
from bootvol.errors import InvalidRequest, NotFound
from bootvol.model import LARGEST_ID

Listed = TypeVar("Listed")

#: The parameters of every list.
PARAMETERS: Final = ("sort", "sort_key", "sort_dir", "limit", "marker", "offset")
#: The minor versions with counts, with filters by a part of a text, and with refused filters.
COUNTS: Final = 45
PARTS: Final = 34
REFUSALS: Final = 31


class Asking(Protocol):
    """The parts of a request's context that lists need."""

    @property
    def request(self) -> IRequest:
        """The request."""

    @property
    def operates(self) -> bool:
        """True if the caller may see the objects of all projects."""

    def has(self, minor: int) -> bool:
        """Return whether the request has a minor version, or a later one."""


@attrs.frozen
class Selected(Generic[Listed]):
    """A page of a list.

    :ivar links: the link to the next page, if any.
    :ivar count: the length of the whole list; None if the request does not ask for the length.
    """

    page: Sequence[Listed]
    links: list[Link]
    count: int | None


@attrs.frozen
class Listing(Generic[Listed]):
    """The rules of a list.

    :ivar key: returns an item's id, the value of a marker.
    :ivar missing: the error for a marker that names no item.
    :ivar filters: the filters, by the parameters' names.
    :ivar sorted_by: the values to sort by, by their names.  Text compares with text.
    :ivar open: the names of the filters that everybody may use.
    :ivar early: minor versions, and the filters of requests before these versions.
    :ivar texts: the texts with filters by a part, ``NAME~``.
    :ivar sorted_since: the minor versions from which requests may sort by a name.
    :ivar refuses: whether requests with other filters are refused.  Otherwise the list ignores
        those filters.
    :ivar counts: whether requests may ask for the length of the whole list.
    """

    key: Callable[[Listed], str]
    missing: Callable[[str], NotFound]
    filters: Mapping[str, Filter[Listed]]
    sorted_by: Mapping[str, Callable[[Listed], object]]
    open: Collection[str] = ()
    early: Mapping[str, tuple[int, Filter[Listed]]] = attrs.Factory(dict)
    texts: Mapping[str, Callable[[Listed], str | None]] = attrs.Factory(dict)
    sorted_since: Mapping[str, int] = attrs.Factory(dict)
    refuses: bool = True
    counts: bool = False

    @property
    def query(self) -> tuple[str, ...]:
        """The parameters of the list."""
        counts = ("with_count",) if self.counts else ()
        return (*self.filters, *(f"{name}~" for name in self.texts), *PARAMETERS, *counts)

    def select(self, asking: Asking, found: Sequence[Listed]) -> Selected[Listed]:
        """Return the page that a request asks for, and the link to the next page.

        The link comes with each full page, also with the last one, as in Cinder.

        :param found: the whole list, in any order.
        :raises InvalidRequest: if a parameter is not valid, or if the caller may not use a filter.
        :raises NotFound: if no item has the id of the marker.
        """
        request, counted = asking.request, False
        if self.counts and asking.has(COUNTS):
            counted = flag(text(request, b"with_count") or "false", "with_count")
        all_fitting = filtered(request, found, self._filters(asking))
        fitting = self._ordered(asking, all_fitting)
        marker = text(request, b"marker")
        if marker is not None:
            begin = next((n for n, each in enumerate(fitting) if self.key(each) == marker), None)
            if begin is None:
                raise self.missing(marker)
            fitting = fitting[begin + 1 :]
        limit = number_of(request, b"limit", "limit param must be positive")
        offset = number_of(request, b"offset", "offset must be >= 0") or 0
        length = min(MOST if limit is None else limit, MOST)
        page = fitting[offset : offset + length]
        full = (bool(page) and len(page) == limit) or len(page) == MOST
        links = following(request, self.key(page[-1])) if full else []
        return Selected(page, links, len(all_fitting) if counted else None)

    def _filters(self, asking: Asking) -> Mapping[str, Filter[Listed]]:
        """Return the filters that a request may use.

        :raises InvalidRequest: if the request names another filter.
        """
        own = {*PARAMETERS, "all_tenants"}
        if self.counts and asking.has(COUNTS):
            own.add("with_count")
        names = {each.decode("utf-8", "replace") for each in asking.request.args or ()} - own
        if not asking.operates:
            closed = sorted(names - set(self.open))
            if closed and self.refuses and asking.has(REFUSALS):
                named = ",".join(closed)[:255]
                raise InvalidRequest(f"Invalid filters {named} are found in query options.")
            names -= set(closed)
        return {name: self._filter(asking, name) for name in names}

    def _filter(self, asking: Asking, name: str) -> Filter[Listed]:
        before, early = self.early.get(name, (0, None))
        if early is not None and not asking.has(before):
            return early
        part = name.removesuffix("~")
        if part != name and part in self.texts and asking.has(PARTS):
            value = self.texts[part]
            return lambda each, given: given in (value(each) or "")
        return self.filters.get(name, _nothing)

    def _ordered(self, asking: Asking, found: Sequence[Listed]) -> Sequence[Listed]:
        ordered = list(found)
        # A stable sort by the last key first sorts by all keys.
        for name, descending in reversed(self._order(asking.request)):
            if name not in self.sorted_by or not asking.has(self.sorted_since.get(name, 0)):
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
        # Equal items follow the direction of the first name.
        more = [(key, order[0][1]) for key in ("created_at", "id")]
        return [(key, way != "asc") for key, way in order[:8] + more]


def _nothing(each: object, value: str) -> bool:
    return False


def _comparable(value: Callable[[Listed], object], each: Listed) -> tuple[bool, object]:
    """Return a value in a form that sorts: nothing comes first."""
    found = value(each)
    return (False, 0) if found is None else (True, found)


def number_of(request: IRequest, name: bytes, negative: str) -> int | None:
    """Return the number in a parameter of a list; None without the parameter.

    :param negative: the message about a negative number.
    :raises InvalidRequest: if the parameter is no number, or a negative one.
    """
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
