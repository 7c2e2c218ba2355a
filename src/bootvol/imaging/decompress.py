"""Decompresses an image in bounded memory, on the way to the volume.

The statements of a source about a compressed image, such as the digest, concern the compressed
bytes.  So the digest is checked here.
"""

from __future__ import annotations

from zope.interface import implementer

from bootvol.imaging.buffers import Memory
from bootvol.imaging.compression import HEAD, TAR, compression_of
from bootvol.imaging.decoding import Decoded
from bootvol.imaging.digest import Digester
from bootvol.imaging.parallel import parallel
from bootvol.imaging.wrapping import Wrapping, after
from bootvol.interfaces import IImageStream
from bootvol.model import Digest
from bootvol.threads import Threads


async def unpacked(
    stream: IImageStream,
    stated: Digest | None,
    most: int,
    threads: Threads,
    memory: Memory | None = None,
) -> tuple[IImageStream, Digest | None]:
    """Return a stream of the disk in a compressed or plain image.

    :param stream: stream of the source, at its start.  Close the result first, and then ``stream``:
        closing the result does not close ``stream``.
    :param stated: the stated digest of the bytes of ``stream``.
    :param most: the most bytes to take from a compressed ``stream``.
    :param memory: provider of memory to decode several parts at once; None to decode one by one.
    :returns: a stream, and the digest that the caller still has to check.
    :raises bootvol.errors.ImportFailed: if the source breaks off.
    """
    head = memoryview(bytearray(HEAD))
    length = await stream.read_into(head)
    first = bytes(head[:length])
    whole = _Peeked(stream, first)
    compression = compression_of(first)
    if compression is None:
        return whole, stated
    digester = Digester(stated)
    digester.idle = stated is None
    packed = parallel(whole, first, compression, digester, most, threads, memory)
    if packed is None:
        packed = Decoded(whole, compression, digester, most, threads)
    return DecompressingStream(packed), None


@implementer(IImageStream)
class _Peeked(Wrapping):
    """A stream with its first bytes already read."""

    def __init__(self, stream: IImageStream, head: bytes) -> None:
        super().__init__(stream)
        self._head = head

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        if not self._head:
            return await self.stream.read_into(target)
        head, self._head = self._head[: len(target)], self._head[len(target) :]
        target[: len(head)] = head
        with after(len(head)):
            return len(head) + await self.stream.read_into(target[len(head) :])

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""


@implementer(IImageStream)
class DecompressingStream:
    """The disk in a compressed stream, in an archive, or in a compressed archive.

    The disk can only be read from its start.  If the source breaks off, no received bytes are lost:
    call :meth:`go_on` with another stream that begins there, and read on.

    :param packed: the reader of the source's stream, at its start.
    """

    def __init__(self, packed: Decoded) -> None:
        self.size: int | None = None
        self.offset = 0
        self.validator: str | None = None
        self._packed = packed
        # The reader of the disk; None until the first bytes show whether an archive comes.
        self._disk: Decoded | None = packed if packed.compression is TAR else None

    @property
    def taken(self) -> int:
        """Number of bytes received from the source."""
        return self._packed.taken

    @property
    def packed_validator(self) -> str | None:
        """The validator of the source's image."""
        return self._packed.packed.validator

    @property
    def foreign(self) -> bool:
        """True if foreign, uncompressed bytes follow the image's end."""
        return self._packed.foreign

    @property
    def ended_by_itself(self) -> bool:
        """True once the image has ended by its format, even if the source may send more."""
        return self._packed.ended_by_itself

    def go_on(self, packed: IImageStream) -> None:
        """Read on from another stream of the source, which begins after the received bytes."""
        self._packed.go_on(packed)

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        if self._disk is None:
            self._disk = await self._packed.archived() or self._packed
        return await self._disk.read_into(target)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        # Close the archive's reader first: it reads ahead from the other reader.
        if self._disk is not None:
            await self._disk.close()
        await self._packed.close()
