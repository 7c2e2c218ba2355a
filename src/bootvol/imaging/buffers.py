"""Memory for the pipeline: fixed sets of large buffers.  A lack of free buffers is backpressure."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from twisted.internet.defer import DeferredQueue

#: Factor for the larger buffers of one copy at a time, which has more of the machine to itself.
_LARGER: Final = 2


class Memory:
    """The buffers of all copies.  Each copy has buffers of its own.

    Each chunk has a fixed cost, so large chunks are faster.  But many copies at once must not take
    much memory.  So the first copy gets larger buffers than the copies that begin beside the first.

    :param count: number of buffers of a copy.
    :param size: size of each buffer in bytes; a multiple of 64 KiB, so that any block size fits.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size
        self._large_is_free = True

    @contextmanager
    def lend(self, more: int = 0) -> Iterator[BufferPool]:
        """Lend buffers to a copy until the context ends.

        :param more: number of buffers beyond the usual number.
        """
        large, self._large_is_free = self._large_is_free, False
        try:
            yield BufferPool(self._count + more, self._size * _LARGER if large else self._size)
        finally:
            self._large_is_free |= large


class BufferPool:
    """A pool of page-aligned buffers that are made once and reused.  Direct I/O needs alignment.

    :param count: number of buffers.
    :param size: size of each buffer in bytes.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._free: DeferredQueue[memoryview] = DeferredQueue()
        for _ in range(count):
            self._free.put(memoryview(mmap.mmap(-1, size)))

    async def take(self) -> memoryview:
        """Return a free buffer.  Wait until a buffer is free."""
        return await self._free.get()

    def give(self, buffer: memoryview) -> None:
        """Put a buffer back.  No code may read or write the buffer any more."""
        self._free.put(buffer)
