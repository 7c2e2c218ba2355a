"""Copies an image stream onto a volume: verified, in bounded memory, without blocking.

Three stages run at once on chunks in pooled buffers::

    read ──▶ scan (inspect, digest, find zeros) ──▶ write

Chunks stay in order up to the scan, since a digest needs the order.  Writes may overtake one
another.  A chunk's buffer returns to the pool when its bytes are on the volume.  So the slowest
stage sets the pace, and the source is not read faster.

If the stream knows that zeros come next, the zeros are not read.  A chunk with an unfilled buffer
stands for them.

From time to time the written bytes are flushed, beside the other stages.  Each flush makes a
checkpoint, from which a later copy may resume.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredQueue, succeed
from twisted.internet.interfaces import IReactorTime

from bootvol.errors import (
    ImageTruncated,
    ImportFailed,
)
from bootvol.imaging.blocks import END, PIECE, Chunk, up_to_block, write_runs
from bootvol.imaging.buffers import BufferPool, Memory
from bootvol.imaging.decompress import DecompressingStream, unpacked
from bootvol.imaging.extents import STEP, Ahead
from bootvol.imaging.gathering import gather_cancelling
from bootvol.imaging.inspect import (
    check_container_size,
    check_stated,
    is_misnamed,
    largest_container,
)
from bootvol.imaging.readback import ReadBack
from bootvol.imaging.scan import Scan
from bootvol.interfaces import (
    Capabilities,
    IImageStream,
    ISparseStream,
    IVolumeReader,
    IVolumeWriter,
)
from bootvol.model import (
    ENCRYPTED,
    FOREIGN_BYTES,
    SHORT_IMAGE,
    UNEXPECTED_FORMAT,
    UNIDENTIFIED,
    Caution,
    Checkpoint,
    Digest,
    Image,
)
from bootvol.threads import Threads


class PrefixChanged(Exception):
    """The volume does not contain the bytes that were written before: start over."""


class CopyPipeline:
    """The copy of one image onto one volume, or to a place where a container can be read.

    :param image: the source's description of the image.
    :param volume_size: size of the volume in bytes.
    :param capabilities: capabilities of the volume's backend.
    :param container: known format of the container, if the container itself is copied.
    :param strict: whether to refuse an image without any signature of a disk.
    :param inspected: false if the stream is no image; then any bytes are copied.
    :param hash_anyway: whether to compute a digest even if the source and checkpoints need none.
    :param memory: provider of the buffers.
    :param threads: threads for hashing and the search for zeros.
    :param clock: the reactor.
    :param every: bytes between two flushes.
    :ivar offset: bytes of the image on the volume, without a gap.
    :ivar skipped: bytes of ``offset`` that were skipped at no cost.
    :ivar checkpoint: the durable part.  None if nothing is durable yet, or if the source cannot
        tell one image from another.
    """

    def __init__(
        self,
        image: Image,
        volume_size: int,
        capabilities: Capabilities,
        memory: Memory,
        threads: Threads,
        clock: IReactorTime,
        every: int,
        container: str | None = None,
        hash_anyway: bool = False,
        strict: bool = False,
        inspected: bool = True,
    ) -> None:
        self._image = image
        self._hash_anyway = hash_anyway
        self._container = container
        self._scan = Scan(
            image,
            volume_size,
            capabilities.block_size,
            container,
            strict=strict,
            inspected=inspected,
        )
        self._volume_size = volume_size
        self._capabilities = capabilities
        self._memory = memory
        self._read_back = ReadBack(capabilities.block_size, memory, threads)
        self._threads = threads
        self._clock = clock
        self._every = every
        self._writing: DeferredQueue[Deferred[Chunk]] = DeferredQueue()
        self._flushing: DeferredQueue[bool] = DeferredQueue()
        self._total = 0
        self._digest = ""
        self._landed: dict[int, Chunk] = {}
        self._validator: str | None = None
        self._broken_off: ImportFailed | None = None
        self._unpacking: DecompressingStream | None = None
        # Whether the format is not the one in the name.  Some formats show at the image's end only.
        self._is_unexpected = False
        self.offset = self.skipped = 0
        self.checkpoint: Checkpoint | None = None

    async def restore(self, reader: IVolumeReader, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint of an earlier copy: read the written bytes, and hash them again.

        :raises PrefixChanged: if the bytes have changed.
        :raises bootvol.errors.BackendFailed: if the volume cannot be read.
        """
        await self._read_back.run(reader, checkpoint.offset, self._scan.data, self._scan.zeros)
        if self._scan.digester.so_far() != checkpoint.digest:
            raise PrefixChanged
        self.offset = self._total = checkpoint.offset
        self._digest = checkpoint.digest
        self.checkpoint = checkpoint

    async def verify(self, reader: IVolumeReader, digest: Digest, length: int) -> None:
        """Read the volume, and compare its content with a digest.

        :param length: number of bytes that the digest covers, from the volume's start.
        :raises bootvol.errors.BackendFailed: if the content differs, or cannot be read.
        """
        await self._read_back.verify(reader, digest, length)

    async def run(
        self, stream: IImageStream, writer: IVolumeWriter, *, plain: bool = False
    ) -> Digest | None:
        """Copy the rest of the image.

        After a return, the bytes survive a loss of power.  After an error or a cancellation, no
        part of the copy still runs.  If the source broke off, the chunks received until then are on
        the volume.  After a :meth:`flush`, the copy may run again if :attr:`can_go_on` is true.

        :param stream: a stream that begins at :attr:`offset`, or at :attr:`reached` if the copy
            runs again.
        :param plain: whether to copy compressed images without decompression.
        :returns: the digest of the whole image, if one was computed.
        :raises bootvol.errors.ImportFailed: if the image is not as stated, or does not fit.
        :raises bootvol.errors.BackendFailed: if the volume cannot be written.
        :raises ContainerDetected: if the image is an unexpected container.  Nothing was written,
            except for a fixed-size vhd, which only its last bytes identify.
        """
        check_stated(self._image.format)
        most = largest_container(self._volume_size)
        if stream.size is not None:
            check_container_size(stream.size, self._volume_size)
        if self._unpacking is not None:
            self._unpacking.go_on(stream)
            disk: IImageStream = self._unpacking
        elif plain or self.offset:
            return await self._run(stream, writer)
        else:
            disk, self._scan.digester.stated = await unpacked(
                stream, self._image.digest, most, self._threads, self._memory
            )
            self._unpacking = disk if isinstance(disk, DecompressingStream) else None
        try:
            return await self._run(disk, writer)
        finally:
            await disk.close()

    async def _run(self, stream: IImageStream, writer: IVolumeWriter) -> Digest | None:
        self._broken_off = None
        self._scanning = self._threads.in_order()
        self._validator, self._scan.size = stream.validator, stream.size
        self._scan.digester.idle = not (
            self._scan.digester.stated or self._validator or self._hash_anyway
        )
        # Whether any number of zeros that the stream knows costs nothing.
        self._free_zeros = self._capabilities.reads_zero_when_new and not (
            self._scan.digester.slow_at_zeros or self._container
        )
        # A buffer that is being written cannot receive a read, so lend more buffers.
        with self._memory.lend(more=self._capabilities.parallel_writes - 1) as pool:
            try:
                await gather_cancelling(
                    self._clock,
                    self._read(stream, pool),
                    self._write_all(writer, pool),
                    self._flush_often(writer),
                )
            finally:
                await self._scanning.stop()
        if self._broken_off is not None:
            raise self._broken_off
        digest = self._scan.digester.verify()
        await self._threads.run(self._scan.finish, self._total)
        self._is_unexpected = is_misnamed(self._image, self._container)
        if not self._capabilities.reads_zero_when_new:
            await self._zero_tail(writer)
        await writer.flush()
        return digest

    @property
    def size(self) -> int | None:
        """Size of the decompressed image in bytes, if known."""
        return self._scan.size

    @property
    def read_back(self) -> int:
        """Number of bytes that were read back from the volume."""
        return self._read_back.done

    @property
    def ends_by_itself(self) -> bool:
        """True if the copied bytes prove to be whole: by their digest, or by the format's end."""
        unpacked = self._unpacking is not None and self._unpacking.ended_by_itself
        return bool(self._image.digest or self._container or unpacked)

    @property
    def unpacks(self) -> bool:
        """True if the image is compressed as a whole."""
        return self._unpacking is not None

    @property
    def warnings(self) -> tuple[Caution, ...]:
        """The cautions about the image that are known so far."""
        foreign = self._unpacking is not None and self._unpacking.foreign
        found = {
            UNIDENTIFIED: self._scan.tells_nothing,
            ENCRYPTED: self._scan.is_encrypted,
            FOREIGN_BYTES: foreign,
            UNEXPECTED_FORMAT: self._is_unexpected,
            SHORT_IMAGE: self._scan.is_short,
        }
        return tuple(warning for warning, applies in found.items() if applies)

    @property
    def can_go_on(self) -> bool:
        """True if the copy may run again, with a stream that begins at :attr:`reached`.

        Nothing has to be read back then: the copy still has its digest and its decompressor.
        """
        if self._broken_off is None or self.reached is None or self.offset != self._total:
            return False
        return self._unpacking is not None or self.reached[0] == self.offset

    @property
    def reached(self) -> tuple[int, str] | None:
        """Number of bytes that the source need not send again, and the source's validator.

        The bytes are all decompressed bytes, or all durable bytes.  None if no bytes count yet.
        """
        if self._unpacking is not None:
            taken, validator = self._unpacking.taken, self._unpacking.packed_validator
            return (taken, validator) if taken and validator is not None else None
        at = self.checkpoint
        return (at.offset, at.validator) if at is not None else None

    async def flush(self, writer: IVolumeWriter) -> None:
        """Make the bytes on the volume durable, and set a checkpoint.

        :raises bootvol.errors.BackendFailed: if the bytes are not durable.
        """
        offset, digest = self.offset, self._digest
        await writer.flush()
        # Bytes behind the volume's end were not written, so no copy can resume from there.
        if self._validator is not None and 0 < offset <= self._volume_size:
            blank = self._capabilities.reads_zero_when_new
            self.checkpoint = Checkpoint(offset, digest, self._validator, blank)

    # --- the stages ------------------------------------------------------------------------------

    async def _read(self, stream: IImageStream, pool: BufferPool) -> None:
        try:
            await self._read_chunks(stream, pool)
        except ImportFailed as error:
            if not error.retryable:
                raise
            # Let scans and writes end, so that their bytes need not be fetched again.
            self._broken_off = error
        for _ in range(self._capabilities.parallel_writes):
            self._writing.put(succeed(END))

    async def _read_chunks(self, stream: IImageStream, pool: BufferPool) -> None:
        ahead = Ahead(stream, stream.size, None if self._free_zeros else STEP)
        while True:
            buffer = await pool.take()
            extent = await ahead.at(self._total, len(buffer))
            if extent.zero:
                length = extent.length
                ISparseStream(stream).skip(length)
            else:
                try:
                    length = await stream.read_into(buffer[: extent.length])
                except ImportFailed as error:
                    # Pass on whole pieces only: a partial piece must be the image's end.
                    if whole := error.came // PIECE * PIECE:
                        self._pass_on(Chunk(buffer, self._total, whole))
                    raise
            if not length:
                break
            end = self._total + length
            if length < extent.length and stream.size not in (None, end):
                # Raise before the write, for the same reason.
                raise ImageTruncated(f"The image ended after {end} of {stream.size} bytes.")
            self._pass_on(Chunk(buffer, self._total, length, hole=extent.zero))
            if length < extent.length:
                break
        if not self._total:
            self._scan.empty()
        if stream.size not in (None, self._total):
            raise ImageTruncated(f"The image ended after {self._total} of {stream.size} bytes.")

    def _pass_on(self, chunk: Chunk) -> None:
        """Queue a received chunk for scan and write."""
        self._scan.check_may_fit(chunk.offset + chunk.length)
        self._writing.put(self._scanning.begin(self._scan.chunk, chunk))
        self._total += chunk.length

    async def _write_all(self, writer: IVolumeWriter, pool: BufferPool) -> None:
        at_once = self._capabilities.parallel_writes
        await gather_cancelling(self._clock, *(self._write(writer, pool) for _ in range(at_once)))
        self._flushing.put(False)

    async def _write(self, writer: IVolumeWriter, pool: BufferPool) -> None:
        while (chunk := await (await self._writing.get())) is not END:
            zeros = not self._capabilities.reads_zero_when_new
            await write_runs(writer, chunk.offset, chunk.buffer, chunk.runs, zeros=zeros)
            self._land(chunk)
            pool.give(chunk.buffer)

    def _land(self, chunk: Chunk) -> None:
        """Record a written chunk.  A chunk that overtook another one does not count yet."""
        self._landed[chunk.offset] = chunk
        before = self.offset // self._every
        while (landed := self._landed.pop(self.offset, None)) is not None:
            self.offset += landed.length
            if landed.hole and self._free_zeros:
                self.skipped += landed.length
            self._digest = landed.digest
        if self.offset // self._every > before and not self._flushing.pending:
            self._flushing.put(True)

    async def _flush_often(self, writer: IVolumeWriter) -> None:
        while await self._flushing.get():
            await self.flush(writer)

    async def _zero_tail(self, writer: IVolumeWriter) -> None:
        end = up_to_block(self._total, self._capabilities.block_size)
        if end < self._volume_size:
            await writer.zero(end, self._volume_size - end)
