"""Copies an image's stream onto a volume, verified, in bounded memory, without blocking.

Three stages run at once, tied by queues of chunks in pooled buffers::

    read ──▶ scan (inspect, digest, find zeros) ──▶ write

Order is kept up to the scan, since a digest needs it; writes may overtake one another.  A chunk's
buffer goes back to the pool when its bytes are on the volume, so the slowest stage sets the pace
and the source is not read faster than that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
from twisted.internet.defer import DeferredQueue
from twisted.internet.interfaces import IReactorTime

from bootvol.errors import ImageTooLarge, ImageTruncated
from bootvol.imaging.blocks import Run, runs
from bootvol.imaging.buffers import BufferPool
from bootvol.imaging.digest import Digester
from bootvol.imaging.inspect import check_head, check_stated
from bootvol.imaging.tasks import together
from bootvol.interfaces import Capabilities, IImageStream, IVolumeWriter
from bootvol.model import Digest, Image
from bootvol.threads import Threads


@attrs.frozen
class _Chunk:
    """Consecutive bytes of the image, in a buffer of the pool."""

    buffer: memoryview
    offset: int
    length: int
    runs: tuple[Run, ...] = ()


#: Follows the last chunk through the queues.
_END: Final = _Chunk(memoryview(b""), 0, 0)


class Copy:
    """One image on its way onto one volume.

    :param image: what the source said of it.
    :param volume_size: bytes.
    :param capabilities: of the volume's backend.
    :param pool: the buffers of this copy alone.
    :param threads: where hashing and searching for zeros happen.
    :param progress: called in the reactor's thread with the image's bytes done so far.
    :param clock: the reactor.
    """

    def __init__(
        self,
        image: Image,
        volume_size: int,
        capabilities: Capabilities,
        pool: BufferPool,
        threads: Threads,
        progress: Callable[[int], None],
        clock: IReactorTime,
    ) -> None:
        self._image = image
        self._volume_size = volume_size
        self._capabilities = capabilities
        self._pool = pool
        self._threads = threads
        self._progress = progress
        self._clock = clock
        self._digester = Digester(image.digest)
        self._scanning: DeferredQueue[_Chunk] = DeferredQueue()
        self._writing: DeferredQueue[_Chunk] = DeferredQueue()
        self._total = 0
        self._done = 0

    async def run(self, stream: IImageStream, writer: IVolumeWriter) -> Digest:
        """Copy the whole stream; return the digest of what came.

        When it returns, the bytes survive loss of power.  When it raises or is cancelled, calls
        on ``stream`` and ``writer`` may still be under way: close both before anything else.

        :raises bootvol.errors.ImportFailed: the image is not what was stated, or does not fit.
        :raises bootvol.errors.BackendFailed: the volume could not be written.
        """
        check_stated(self._image.format)
        if stream.size is not None:
            self._check_fits(stream.size)
        writers = [self._write(writer) for _ in range(self._capabilities.parallel_writes)]
        await together(self._clock, self._read(stream), self._scan(), *writers)
        if stream.size is not None and self._total != stream.size:
            raise ImageTruncated(f"The image ended after {self._total} of {stream.size} bytes.")
        digest = self._digester.verify()
        if not self._capabilities.reads_zero_when_new:
            await self._zero_tail(writer)
        await writer.flush()
        return digest

    async def _read(self, stream: IImageStream) -> None:
        while True:
            buffer = await self._pool.take()
            length = await stream.read_into(buffer)
            if not length:
                break
            self._check_fits(self._total + length)
            self._scanning.put(_Chunk(buffer, self._total, length))
            self._total += length
            if length < len(buffer):
                break
        self._scanning.put(_END)

    async def _scan(self) -> None:
        while (chunk := await self._scanning.get()) is not _END:
            found = await self._threads.run(self._look_through, chunk)
            self._writing.put(attrs.evolve(chunk, runs=found))
        if not self._total:
            check_head(_END.buffer)
        for _ in range(self._capabilities.parallel_writes):
            self._writing.put(_END)

    def _look_through(self, chunk: _Chunk) -> tuple[Run, ...]:
        data = chunk.buffer[: chunk.length]
        if chunk.offset == 0:
            check_head(data)
        self._digester.update(data)
        return tuple(runs(self._padded(chunk)))

    def _padded(self, chunk: _Chunk) -> memoryview:
        """Return the chunk up to a whole block; only the image's last one can be short of it."""
        end = self._up_to_block(chunk.length)
        chunk.buffer[chunk.length : end] = bytes(end - chunk.length)
        return chunk.buffer[:end]

    async def _write(self, writer: IVolumeWriter) -> None:
        while (chunk := await self._writing.get()) is not _END:
            for run in chunk.runs:
                offset = chunk.offset + run.start
                if not run.zero:
                    await writer.write(offset, chunk.buffer[run.start : run.start + run.length])
                elif not self._capabilities.reads_zero_when_new:
                    await writer.zero(offset, run.length)
            self._pool.give(chunk.buffer)
            self._done += chunk.length
            self._progress(self._done)

    async def _zero_tail(self, writer: IVolumeWriter) -> None:
        end = self._up_to_block(self._total)
        if end < self._volume_size:
            await writer.zero(end, self._volume_size - end)

    def _up_to_block(self, length: int) -> int:
        block = self._capabilities.block_size
        return -(-length // block) * block

    def _check_fits(self, length: int) -> None:
        if length > self._volume_size:
            raise ImageTooLarge(
                f"The image has at least {length} bytes; the volume has {self._volume_size}."
            )
