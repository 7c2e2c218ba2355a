"""Answers that were given before, while nothing has changed of what they show."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final

import orjson

#: Bytes that are kept of answers, and what an entry takes beside its answer.
_MOST: Final = 16 * 1024 * 1024
_OVERHEAD: Final = 512


class Answers:
    """Answers as JSON, all of one version of the rows; those not asked for the longest go first.

    :param version: grows, before the answer to a write, with every write that changes what is
        shown; None where that cannot be known.
    :param most: bytes that may be kept.
    """

    def __init__(self, version: Callable[[], int | None], most: int = _MOST) -> None:
        self._now = version
        self._most = most
        self._version: int | None = None
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size = 0

    async def get(self, key: Hashable, answer: Callable[[], Coroutine[Any, Any, object]]) -> bytes:
        """Return the answer that is kept, or else a new one.

        :param key: everything that the answer depends on beside the rows: whose it is, what was
            asked.
        :raises bootvol.errors.BootvolError: what ``answer`` raises; that is never kept.
        """
        # Before the rows are read: what is written meanwhile must make the answer an old one.
        version = self._now()
        if version != self._version:
            self._version, self._size = version, 0
            self._kept.clear()
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept
        new = orjson.dumps(await answer())
        if version is not None and version == self._version:
            self._keep(key, new)
        return new

    def _keep(self, key: Hashable, new: bytes) -> None:
        if key not in self._kept:
            self._kept[key] = new
            self._size += len(new) + _OVERHEAD
        while self._size > self._most:
            _, old = self._kept.popitem(last=False)
            self._size -= len(old) + _OVERHEAD
