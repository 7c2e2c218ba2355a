"""Copies the disk in a container to a volume while the container arrives, without a spool.

A guide knows where the bytes of the file belong (:mod:`bootvol.imaging.pieces.guide`): from tables
that were read before, or from the arriving bytes themselves.  Three stages run at once::

    read ──▶ hash, and compare tables
         └─▶ decompress, find zeros ──▶ write      (several portions at a time)

The file is read once and in order, since its digest needs the order.  Each piece is written to its
place on the disk.  Parts of the disk without data are not written.
"""

from __future__ import annotations

import attrs
from twisted.internet.defer import DeferredQueue
from twisted.internet.interfaces import IReactorTime

from bootvol.errors import ImageTruncated, ImportFailed
from bootvol.imaging.blocks import up_to_block, write_runs
from bootvol.imaging.buffers import BufferPool, Memory
from bootvol.imaging.digest import Digester
from bootvol.imaging.extents import STEP, Ahead
from bootvol.imaging.gathering import gather_cancelling
from bootvol.imaging.inspect import check_container_size
from bootvol.imaging.pieces.decoder import Decoder, Portion
from bootvol.imaging.pieces.guide import Guide, TablesChanged
from bootvol.imaging.pieces.limits import ALIGNED
from bootvol.interfaces import Capabilities, IImageStream, ISparseStream, IVolumeWriter
from bootvol.model import Caution, Checkpoint, Image
from bootvol.threads import Shared, Threads


@attrs.frozen
class _Received:
    """A portion of the file on its way.

    :ivar begin: offset of the first byte that no portion before had.
    :ivar end: offset behind the last byte.
    :ivar hashed: ends when the new bytes are in the digest.
    """

    portion: Portion
    begin: int
    end: int
    hashed: Shared[None]


class PlacingCopy:
    """The copy of the disk in one container to one volume.

    The attributes are those of :class:`bootvol.imaging.pipeline.CopyPipeline`, and count bytes of
    the image's file. No checkpoint outlives the daemon: the digest of the received bytes does not.

    :param image: the source's description of the image.
    :param guide: the guide of the image.
    :param size: size of the image's file in bytes; None if unknown.
    :param validator: validator of the image; None if unknown.
    :param capabilities: capabilities of the volume's backend.
    :param volume_size: size of the volume in bytes.
    :ivar validator: see above.
    :ivar read_back: bytes of the volume that were zeroed at the end.
    :ivar offset: bytes of the file whose data is on the volume, without a gap.
    """

    def __init__(
        self,
        image: Image,
        guide: Guide,
        size: int | None,
        validator: str | None,
        capabilities: Capabilities,
        volume_size: int,
        memory: Memory,
        threads: Threads,
        clock: IReactorTime,
    ) -> None:
        self._guide = guide
        self.validator = validator
        self._capabilities = capabilities
        self._volume_size = volume_size
        self._memory = memory
        self._threads = threads
        self._clock = clock
        self._digester = Digester(image.digest)
        self._digester.idle = image.digest is None
        self._decoder = Decoder(guide, capabilities.block_size)
        # Received bytes that no finished portion holds, and their offset in the file.
        self._kept, self._kept_at = b"", 0
        self._total = 0
        self._ended = False
        self._landed: dict[int, int] = {}
        self._broken_off: ImportFailed | None = None
        self._working: DeferredQueue[_Received | None] = DeferredQueue()
        self.size = size
        self.offset = self.skipped = self.read_back = 0
        self.checkpoint: Checkpoint | None = None
        self.warnings: tuple[Caution, ...] = ()

    @property
    def disk_size(self) -> int:
        """Size of the disk in bytes."""
        return self._guide.disk_size

    @property
    def can_go_on(self) -> bool:
        """True if the copy may run again, with a stream that begins at :attr:`reached`."""
        return self._broken_off is not None and self.offset == self._total and bool(self.reached)

    @property
    def reached(self) -> tuple[int, str] | None:
        """Number of bytes that the source need not send again, and the validator of the image."""
        at = self._total, self.validator
        return (at[0], at[1]) if at[0] and at[1] is not None else None

    def continues(self, stream: IImageStream) -> bool:
        """Return whether a stream has the image of this copy, and begins at :attr:`reached`."""
        return (stream.offset, stream.validator) == (self._total, self.validator)

    async def run(self, stream: IImageStream, writer: IVolumeWriter) -> None:
        """Copy the rest of the image.

        After a return, the disk survives a loss of power. After an error or a cancellation, no part
        of the copy still runs.

        :param stream: a stream that begins at 0, or at :attr:`reached` if the copy runs again.
        :raises TablesChanged: if the image is no longer the image of the guide.
        :raises bootvol.imaging.pieces.pieces.Unusual: if QEMU has to read the image.
        :raises bootvol.errors.ImportFailed: if the source breaks off, or the image is broken.
        :raises bootvol.errors.BackendFailed: if the volume cannot be written.
        """
        self._broken_off = None
        if stream.size not in (None, self.size):
            raise TablesChanged
        # Of two workers, both would often wait for the disk, and a core would be idle.
        workers = max(3, self._capabilities.parallel_writes)
        self._hashing = self._threads.in_order()
        with self._memory.lend(more=workers) as pool:
            # Take the workers' buffers first: the reader could take all.
            rooms = [await pool.take() for _ in range(workers)]
            try:
                await gather_cancelling(
                    self._clock,
                    self._read(stream, writer, pool, workers),
                    *(self._work(writer, pool, room) for room in rooms),
                )
            finally:
                await self._hashing.stop()
        if self._broken_off is not None:
            raise self._broken_off
        self._digester.verify()
        await self._threads.run(self._guide.finish)
        await self._zero_holes(writer)
        await writer.flush()

    # --- the stages ------------------------------------------------------------------------------

    async def _read(
        self, stream: IImageStream, writer: IVolumeWriter, pool: BufferPool, workers: int
    ) -> None:
        try:
            ahead = Ahead(stream, self.size, STEP, unit=1)
            while not self._ended and self._total != self.size:
                # Larger portions would only take memory.
                extent = await ahead.at(self._total, self._memory.size - len(self._kept))
                if not extent.zero or not await self._skip(stream, extent.length, writer):
                    await self._read_portion(stream, await pool.take(), extent.length)
        except ImportFailed as error:
            if not error.retryable:
                raise
            # Let the workers end, so that the received bytes need not be fetched again.
            if self._total != self.size:
                self._broken_off = error
        for _ in range(workers):
            self._working.put(None)

    async def _skip(self, stream: IImageStream, length: int, writer: IVolumeWriter) -> int:
        """Skip zeros in the file, as far as only plain clusters lie there.

        :param length: number of zeros that the source knows to come next.
        :returns: the number of skipped bytes.
        """
        begin = self._total
        pieces, end = self._guide.within_zeros(begin, begin + length)
        for piece in pieces:
            if not self._capabilities.reads_zero_when_new:
                block = self._capabilities.block_size
                await writer.zero(piece.disk, up_to_block(piece.length, block))
        end = end // ALIGNED * ALIGNED
        if end <= begin:
            return 0
        ISparseStream(stream).skip(end - begin)
        await self._hashing.begin(self._digester.skip, end - begin)
        self._kept, self._kept_at, self._total = b"", end, end
        if self._digester.idle:
            self.skipped += end - begin
        self._land(begin, end)
        return end - begin

    async def _read_portion(self, stream: IImageStream, buffer: memoryview, most: int) -> None:
        had = len(self._kept)
        buffer[:had] = self._kept
        most = most if self.size is None else min(most, self.size - self._total)
        target = buffer[had : had + most]
        broken: ImportFailed | None = None
        try:
            length = await stream.read_into(target)
        except ImportFailed as error:
            broken, length = error, error.came
        if length:
            await self._pass_on(buffer, had, length)
        if broken is not None:
            raise broken
        if length < len(target):
            if self.size is not None:
                raise ImageTruncated(f"The image ended after {self._total} of {self.size} bytes.")
            self._ended = True

    async def _pass_on(self, buffer: memoryview, had: int, length: int) -> None:
        """Queue a part of the file.

        :param buffer: a buffer of the pool.
        :param had: number of bytes at its start that were received before.
        :param length: number of bytes behind them that were received now.
        """
        start, begin = self._kept_at, self._total
        end = begin + length
        check_container_size(end, self._volume_size)
        hashed = Shared(self._hashing.begin(self._hash, begin, buffer[had : had + length]))
        pieces = await self._threads.run(self._guide.until, start, buffer[: had + length])
        first = min(end, self._guide.start)
        self._kept_at = max(start, first // ALIGNED * ALIGNED)
        self._kept = bytes(buffer[self._kept_at - start : had + length])
        self._total = end
        self._working.put(_Received(Portion(buffer, start, tuple(pieces)), begin, end, hashed))

    def _hash(self, offset: int, data: memoryview) -> None:
        self._guide.check(offset, data)
        self._digester.update(data)

    async def _work(self, writer: IVolumeWriter, pool: BufferPool, room: memoryview) -> None:
        """Decompress and write portions.

        :param room: a buffer for decompressed clusters.
        """
        zeros = not self._capabilities.reads_zero_when_new
        while (received := await self._working.get()) is not None:
            groups = self._decoder.writes(received.portion, room)
            while (group := await self._threads.run(next, groups, None)) is not None:
                for write in group:
                    await write_runs(writer, write.disk, write.data, write.runs, zeros=zeros)
            await received.hashed.wait()
            pool.give(received.portion.buffer)
            self._land(received.begin, received.end)

    def _land(self, begin: int, end: int) -> None:
        """Record written bytes of the file.  Bytes that overtook others do not count yet."""
        self._landed[begin] = end
        while self.offset in self._landed:
            self.offset = self._landed.pop(self.offset)

    async def _zero_holes(self, writer: IVolumeWriter) -> None:
        """Zero the disk's holes, and the volume behind the disk, on a volume with old bytes."""
        if self._capabilities.reads_zero_when_new:
            return
        block = self._capabilities.block_size
        holes = [(start, up_to_block(length, block)) for start, length in self._guide.holes]
        end = up_to_block(self.disk_size, block)
        for start, length in [*holes, (end, self._volume_size - end)]:
            for offset in range(start, start + length, STEP):
                await writer.zero(offset, min(STEP, start + length - offset))
                # Only this number shows that the work goes on.
                self.read_back += STEP
