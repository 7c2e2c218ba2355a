"""The shapes of the service's answers.

The answer may be another service's, or another version's.  A command takes only what has the shape
that the command relies on.  Further keys may have any shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Final, TypeAlias

from bootvol.cli.failures import CommandFailed

#: A type; a function that tells whether a value fits; the shapes of an object's keys; or the one
#: shape of a list's entries.  A missing key counts as null.
Shape: TypeAlias = (
    "type | UnionType | Callable[[object], bool] | Mapping[str, Shape] | Sequence[Shape]"
)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


def _is_count_or_null(value: object) -> bool:
    return value is None or _is_count(value)


def _are_uses(value: object) -> bool:
    use: Shape = {"hits": int, "misses": int}
    return isinstance(value, dict) and all(fits(each, use) for each in value.values())


OBJECT: Final[Shape] = {}
NAMED: Final[Shape] = {"id": int | str}
USES: Final[Shape] = _are_uses
VOLUME: Final[dict[str, Shape]] = {"id": int | str, "status": str}
ATTACHED: Final[Shape] = {**VOLUME, "attachments": [{"serverId": int | str}]}
CONNECTION: Final[Shape] = {"address": str}
WARNINGS: Final[Shape] = [{"code": str, "message": str}]
IMPORT: Final[Shape] = {
    "phase": str,
    "bytesDone": _is_count,
    "bytesTotal": _is_count_or_null,
    "position": _is_count_or_null,
}
ERROR: Final[Shape] = {"code": str, "message": str, "remedy": str}
TYPE: Final[Shape] = {"extra_specs": OBJECT}
LINKS: Final[Shape] = [{"rel": str, "href": str}]


def fits(value: object, shape: Shape) -> bool:
    """Return whether a value has a shape."""
    if isinstance(shape, Mapping):
        return isinstance(value, dict) and all(fits(value.get(key), shape[key]) for key in shape)
    if isinstance(shape, Sequence):
        return isinstance(value, list) and all(fits(each, shape[0]) for each in value)
    if isinstance(shape, type | UnionType):
        return isinstance(value, shape)
    return shape(value)


def taken(answer: object, key: str, shape: Shape) -> Any:
    """Return a value of an answer.

    :raises CommandFailed: if the answer lacks the key, or the value has another shape.
    """
    if isinstance(answer, dict) and fits(value := answer[key], shape):
        return value
    raise other_form(key)


def other_form(key: str) -> CommandFailed:
    """Return the error for an answer of another shape."""
    return CommandFailed(
        f"{key!r} in the answer of the service has another form: the URL leads to another service,"
        " or to"
        " another version"
    )
