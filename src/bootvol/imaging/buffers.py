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
    :param size: smallest size of a buffer in bytes; a multiple of 64 KiB, so that any block size
        fits.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self.size = size
        self._large_is_free = self._large_ahead_is_free = True

    def claim(self) -> bool:
        """Claim the memory of the larger buffers for another use, until :meth:`release`.

        :returns: false if the memory is in use.
        """
        free, self._large_is_free = self._large_is_free, False
        return free

    def release(self) -> None:
        """Give up a claim."""
        self._large_is_free = True

    @contextmanager
    def lend(self, more: int = 0) -> Iterator[BufferPool]:
        """Lend buffers to a copy until the context ends.

        :param more: number of buffers beyond the usual number.
        """
        large, self._large_is_free = self._large_is_free, False
        try:
            yield BufferPool(self._count + more, self.size * _LARGER if large else self.size)
        finally:
            self._large_is_free |= large

    @contextmanager
    def ahead(self) -> Iterator[memoryview]:
        """Lend memory for bytes that a source sends ahead, as much as a copy has in its buffers.

        The system provides this memory only when bytes arrive in it.
        """
        large, self._large_ahead_is_free = self._large_ahead_is_free, False
        try:
            size = self._count * self.size
            yield memoryview(mmap.mmap(-1, size * _LARGER if large else size))
        finally:
            self._large_ahead_is_free |= large


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
