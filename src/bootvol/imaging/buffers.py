"""Memory for the pipeline: fixed sets of large buffers, whose scarcity is the backpressure."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from twisted.internet.defer import DeferredQueue

#: How much larger the buffers of one copy at a time are, that has more of the machine to itself.
_LARGER: Final = 2


class Memory:
    """What all copies together have to hold bytes in: for each some buffers, and none of another's.

    What a chunk costs besides its bytes makes large ones faster; yet many copies at once are not
    to take much memory.  So the first one has larger buffers than those that begin beside it.

    :param count: how many buffers a copy has.
    :param size: of each of them, in bytes; a multiple of 64 KiB, so that any block size fits.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size
        self._large_is_free = True

    @contextmanager
    def lend(self, more: int = 0) -> Iterator[BufferPool]:
        """Give buffers to a copy for the time of the context.

        :param more: how many besides the number that each has.
        """
        large, self._large_is_free = self._large_is_free, False
        try:
            yield BufferPool(self._count + more, self._size * _LARGER if large else self._size)
        finally:
            self._large_is_free |= large


class BufferPool:
    """Page-aligned buffers (direct I/O wants that) that are made once and go round.

    :param count: how many.
    :param size: of each, in bytes.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._free: DeferredQueue[memoryview] = DeferredQueue()
        for _ in range(count):
            self._free.put(memoryview(mmap.mmap(-1, size)))

    async def take(self) -> memoryview:
        """Return a free buffer, waiting until there is one."""
        return await self._free.get()

    def give(self, buffer: memoryview) -> None:
        """Put a buffer back when nothing reads or writes it any more."""
        self._free.put(buffer)
