"""The paths that rate limits are matched with, for all dialects with volumes.

A limit in the words of one dialect counts the same calls in the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Final
from uuid import UUID

_SEGMENT: Final = re.compile("<([a-z_]+)>")
#: Pairs of equivalent operations, with all paths below. A rate limit for one applies to the other.
_SAME: Final = (
    ("volumes", "os-volumes"),
    ("snapshots", "os-snapshots"),
    ("types", "os-volume-types"),
)
#: Equivalent operations without the paths below.
_ALONE: Final = {"os-volumes_boot": "servers", "servers": "os-volumes_boot"}

#: Names of path segments that may be a number or a uuid, and examples of both forms for rate
#: limits.
_OF_TWO_FORMS: Final = frozenset({"volume_id", "snapshot_id", "server_id", "type_id", "number"})
_EITHER: Final = ("0", str(UUID(int=0)))


def counted(path: str, segments: Mapping[str, str]) -> list[str]:
    """Return the paths of an operation that rate limits are matched with.

    The paths come from the declaration, not from the request, so no other spelling avoids a limit.
    An object with a number and a uuid also counts as any number and as any uuid.

    :param path: the declared path.
    :param segments: the values of the path's names in the request.
    """
    same = [
        new + path[len(old) :]
        for pair in _SAME
        for old, new in (pair, pair[::-1])
        if f"{path}/".startswith(f"{old}/")
    ]
    same += [_ALONE[path]] if path in _ALONE else []
    forms = [
        (text, *_EITHER) if name in _OF_TWO_FORMS else (text,) for name, text in segments.items()
    ]
    spelt = [dict(zip(segments, each, strict=True)) for each in product(*forms)]
    return [
        "/" + _SEGMENT.sub(lambda found, texts=texts: texts[found[1]], each)  # type: ignore[misc]
        for each in (path, *same)
        for texts in spelt
    ]
