"""A cache of answers, valid until the rows change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Final

import orjson
from cachetools import LRUCache

#: Bytes of the cache, and bytes that each entry takes in addition to its answer.
_MOST: Final = 16 * 1024 * 1024
_OVERHEAD: Final = 512


class Answers:
    """A cache of answers in JSON, all of one version of the rows.

    The cache drops the least recently used answers first.

    :param version: returns the version of the rows.  Every write that changes shown values makes a
        new version, before the write is answered.  No version ever returns.
    :param most: size of the cache in bytes.
    """

    def __init__(self, version: Callable[[], Awaitable[Hashable]], most: int = _MOST) -> None:
        self._now = version
        self._version: Hashable = None
        self._kept: LRUCache[Hashable, bytes] = LRUCache(most, lambda each: len(each) + _OVERHEAD)

    async def get(self, key: Hashable, answer: Callable[[], Awaitable[object]]) -> bytes:
        """Return the cached answer, or a new one.

        :param key: all inputs of the answer beside the rows: the tenant and the request.
        :raises bootvol.errors.BootvolError: if ``answer`` raises one.  Errors are never cached.
        """
        # Read the version before the rows: a write in the meantime must make the answer outdated.
        version = await self._now()
        if version != self._version:
            self._version = version
            self._kept.clear()
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        new = orjson.dumps(await answer())
        if version == self._version:
            # An answer larger than the cache is not kept.
            with suppress(ValueError):
                self._kept[key] = new
        return new
