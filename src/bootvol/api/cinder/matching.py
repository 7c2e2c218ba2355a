"""Values of filters: truths, texts, items of metadata, and comparisons of times."""

from __future__ import annotations

import json
import operator
from ast import literal_eval
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from bootvol.api.cinder.booleans import truth
from bootvol.errors import InvalidRequest

#: A comparison of a time with a given time.
Comparison = Callable[[datetime, datetime], bool]

#: The most filters whose parsed times are kept: a list compares one with thousands of times.
_KEPT: Final = 64
_COMPARISONS: Final[Mapping[str, Comparison]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
}


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
        items = parsed(value)
        return {str(key): str(each) for key, each in items.items()} if items is not None else None
    except ValueError:
        # Python makes no text of a very long number.
        return None


def parsed(value: str) -> dict[object, object] | None:
    """Return the object that a text means in JSON or in Python's form; None for other texts."""
    try:
        found = json.loads(value)
    except ValueError:
        found = _literal(value)
    except RecursionError:
        return None
    return found if isinstance(found, dict) else None


def _literal(value: str) -> object:
    # Python's parser takes much time and memory for long or nested text.
    if len(value) > 4096 or value.count("{") > 1 or value.count("(") + value.count("[") > 0:
        return None
    try:
        return literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def fits_times(found: datetime | None, value: str) -> bool:
    """Return whether a time fits all comparisons of a filter, such as ``gt:TIME,lte:TIME``.

    :param found: the time; None fits no comparison.
    :raises InvalidRequest: if the filter has an unknown comparison, or no time.
    """
    comparisons = _compared(value)
    return found is not None and all(fits(found, when) for fits, when in comparisons)


def same_time(found: datetime | None, value: str) -> bool:
    """Return whether a time is the time of a filter; False for a filter without a time."""
    return found is not None and _time(value) == found


@lru_cache(_KEPT)
def _compared(value: str) -> Sequence[tuple[Comparison, datetime]]:
    """Return the comparisons of a filter.

    :raises InvalidRequest: if the filter has an unknown comparison, or no time.
    """
    pairs = []
    for each in value[:1000].split(","):
        name, _, written = each.partition(":")
        if name not in _COMPARISONS:
            raise InvalidRequest(f"Invalid {name[:40]} operator")
        when = _time(written)
        if when is None:
            raise InvalidRequest(f"Invalid {written[:40]} value")
        pairs.append((_COMPARISONS[name], when))
    return pairs


@lru_cache(_KEPT)
def _time(text: str) -> datetime | None:
    """Return a time in ISO 8601, in UTC if the text names no zone; None for another text."""
    try:
        when = datetime.fromisoformat(text)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
