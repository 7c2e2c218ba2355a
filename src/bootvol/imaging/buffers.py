"""Memory for the pipeline: a fixed set of large buffers, whose scarcity is the backpressure."""

from __future__ import annotations

import mmap

from twisted.internet.defer import DeferredQueue


class BufferPool:
    """Page-aligned buffers (direct I/O wants that) that are made once and go round.

    :param count: how many.
    :param size: of each, in bytes; a multiple of 64 KiB, so that any block size fits.
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
