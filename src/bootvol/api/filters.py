"""Filters of lists: each filter of the original API either narrows the list or is refused.

Names that no version of that API knows are ignored, as in Nova v1.1 and v2.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeVar

from twisted.web.iweb import IRequest

from bootvol.errors import InvalidRequest

Listed = TypeVar("Listed")

#: Tells whether an item of a list matches a value of the query.
Filter = Callable[[Listed, str], bool]

#: The most different values of a filter.  A query may have 100 spellings of one number, and a list
#: thousands of items.
_MOST_VALUES: Final = 5

#: Values of a refused name that ask for nothing beyond the plain list.
_NO = frozenset({"", "0", "f", "false", "n", "no", "off", "none"})


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


def filtered(
    request: IRequest,
    found: Sequence[Listed],
    filters: Mapping[str, Filter[Listed]],
    refused: Collection[str] = (),
) -> Sequence[Listed]:
    """Return the items that match all filters of a request's query.

    :param refused: names of the original API's filters without support here.  Values that mean
        "no" are accepted, because they change nothing.
    :raises InvalidRequest: if a filter is not supported, or has too many values.
    """
    refuse(request, refused)
    for name, fits in filters.items():
        # Apply each value once: repeated values would only take time.
        values = dict.fromkeys((request.args or {}).get(name.encode("utf-8"), ()))
        if len(values) > _MOST_VALUES:
            raise InvalidRequest(f"The parameter {name} has more than {_MOST_VALUES} values.")
        for given in values:
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


def number(value: str, name: str) -> int:
    """Return the value of a numeric filter.

    :raises InvalidRequest: if the value is not a number.
    """
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise InvalidRequest(f"{name} param must be an integer")
    return int(value)
