"""Decompresses an image in bounded memory, on the way to the volume.

The statements of a source about a compressed image, such as the digest, concern the compressed
bytes.  So the digest is checked here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from bootvol.errors import ImageBomb, ImageCorrupt, ImageTooLarge, ImportFailed, UnsupportedFormat
from bootvol.imaging.compression import FAILURES, HEAD, TAR, Compression, compression_of
from bootvol.imaging.digest import Digester
from bootvol.imaging.magics import is_tar
from bootvol.imaging.wrapping import Wrapping, after
from bootvol.interfaces import IImageStream
from bootvol.model import Digest
from bootvol.threads import Shared, Threads, outlast

#: Bytes to read from the source at a time.
_INPUT: Final = 1024 * 1024
#: The most bytes to give to a decoder, and to get back.  For larger pieces, the system allocates
#: and frees the memory each time, which costs as much again as zstd.
_PIECE_IN, _PIECE_OUT = 128 * 1024, 256 * 1024
#: Cost of each member beside its bytes, given as the output bytes that take the same time.
_MEMBER: Final = 1024
#: The most members with empty output in a stream.
_FREE_MEMBERS: Final = 1000
#: Bytes for the first call of a member's decoder: bytes behind a tiny member are copied again.
_FIRST_PIECE: Final = 1024
#: Bytes before the input, with room for the last bytes of the previous input.
_ROOM: Final = 16


async def unpacked(
    stream: IImageStream, stated: Digest | None, most: int, threads: Threads
) -> tuple[IImageStream, Digest | None]:
    """Return a stream of the disk in a compressed or plain image.

    :param stream: stream of the source, at its start.  Close the result first, and then ``stream``:
        closing the result does not close ``stream``.
    :param stated: the stated digest of the bytes of ``stream``.
    :param most: the most bytes to take from a compressed ``stream``.
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
    return DecompressingStream(_Decoded(whole, compression, digester, most, threads)), None


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

    def __init__(self, packed: _Decoded) -> None:
        self.size: int | None = None
        self.offset = 0
        self.validator: str | None = None
        self._packed = packed
        # The reader of the disk; None until the first bytes show whether an archive comes.
        self._disk: _Decoded | None = packed if packed.compression is TAR else None

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


@implementer(IImageStream)
class _Decoded:
    """The decoded stream of one decoder.

    :param packed: the encoded stream.  This object reads ahead until :meth:`close`, and does not
        close ``packed``.
    :param compression: format of ``packed``.
    :param digester: digest of the bytes of ``packed``.
    :param most: the most bytes to take from ``packed``.
    """

    def __init__(
        self,
        packed: IImageStream,
        compression: Compression,
        digester: Digester,
        most: int,
        threads: Threads,
    ) -> None:
        self.size: int | None = None
        self.offset = 0
        self.validator: str | None = None
        self.taken = 0
        self.foreign = False
        self.compression = compression
        self._decoder = compression.make()
        self._digester = digester
        self._most = most
        self._threads = threads
        self._input = memoryview(b"")
        self._given = 0
        self._piece = _PIECE_IN
        # The remaining credit for the cost of members, in bytes.
        self._credit = _FREE_MEMBERS * _MEMBER
        # Whether the decoder needs more input to give more output.
        self._hungry = True
        # Offset in the input of the first byte that is not in the digest yet.
        self._fresh: int | None = None
        self._ended = False
        # Number of zeros since the last member.
        self._zeros = 0
        # Decoded bytes of a read that then broke off.
        self._kept = b""
        self.packed = packed
        # One buffer is filled while the other is decoded; both are made when needed.
        self._filling = self._spare = memoryview(b"")
        self._coming: Shared[int] | None = None

    @property
    def ended_by_itself(self) -> bool:
        """True once the decoder has found the end."""
        return self._decoder.eof

    async def archived(self) -> _Decoded | None:
        """Return a reader of the disk in an archive; None if the decoded stream is no archive.

        Call this method at the start of the stream.  After a failure, call again: no received bytes
        are lost.
        """
        head = memoryview(bytearray(HEAD))
        first = bytes(head[: await self.read_into(head)])
        self._kept = first + self._kept
        if not is_tar(first):
            return None
        digester = Digester(None)
        digester.idle = True
        return _Decoded(self, TAR, digester, self._most, self._threads)

    def go_on(self, packed: IImageStream) -> None:
        """Read on from another stream, which begins after the received bytes."""
        self.packed = packed

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        filled = min(len(self._kept), len(target))
        target[:filled], self._kept = self._kept[:filled], self._kept[filled:]
        try:
            while True:
                filled += await self._threads.run(self._unpack, target[filled:])
                if filled == len(target):
                    return filled
                if self._ended:
                    break
                await self._fetch()
        except ImportFailed:
            self._kept = bytes(target[:filled])
            raise
        if not self.compression.is_whole(self._decoder):
            # The source has sent all its bytes: a retry would not help.
            raise ImageCorrupt(f"The {self.compression.called} is incomplete.")
        self._digester.verify()
        return filled

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        if self._coming is not None:
            self._coming.cancel()
            with suppress(CancelledError, ImportFailed):
                await outlast(self._coming.wait())
            self._coming = None
        # Release the memory for others while nothing comes.
        self._input, self._given = memoryview(bytes(self._input[self._given :])), 0
        self._filling = self._spare = self._input[:0]

    async def _fetch(self) -> None:
        """Take the received bytes, and begin to receive more during the decoding."""
        if self._coming is None:
            self._coming = self._ask()
        broken: ImportFailed | None = None
        try:
            length = await self._coming.wait()
        except ImportFailed as error:
            # Bytes before the failure are decoded later.  The reader of this stream gets none of
            # them now, so the error must not count them.
            broken, length, error.came = error, error.came, 0
        self.taken += length
        if self.taken > self._most:
            raise ImageTooLarge(
                f"The {self.compression.called} has more than {self._most} bytes;"
                " the volume has no room for them."
            )
        self._ended = broken is None and length < len(self._filling) - _ROOM
        # The rest may be the beginning of a member, so put the rest before the new bytes.
        rest = self._input[self._given :]
        start = _ROOM - len(rest)
        self._filling[start:_ROOM] = rest
        self._input, self._given = self._filling[start : _ROOM + length], 0
        self._filling, self._spare = self._spare, self._filling
        self._fresh = len(rest)
        if broken is not None:
            self._coming = None
            raise broken
        self._coming = None if self._ended else self._ask()

    def _ask(self) -> Shared[int]:
        if not self._filling:
            self._filling, self._spare = (memoryview(bytearray(_ROOM + _INPUT)) for _ in range(2))
        return Shared(Deferred.fromCoroutine(self.packed.read_into(self._filling[_ROOM:])))

    def _unpack(self, target: memoryview) -> int:
        """Fill ``target`` as far as the input goes.  Blocks."""
        done = 0
        if self._fresh is not None:
            self._digester.update(self._input[self._fresh :])
            self._fresh = None
        try:
            while done < len(target):
                if self._decoder.eof and not self._next_member():
                    break
                piece = self._next_piece()
                if piece is None:
                    break
                most = min(len(target) - done, _PIECE_OUT)
                out = self._decoder.decompress(piece, most)
                self._hungry = len(out) < most
                if self._decoder.eof:
                    self._given -= len(self._decoder.unused_data)
                target[done : done + len(out)] = out
                done += len(out)
                self._credit += len(out)
        except FAILURES as error:
            raise _refusal(error) from error
        return done

    def _next_piece(self) -> memoryview | None:
        """Return the decoder's next input: empty if none is needed; None if no input is left."""
        if not self._hungry:
            return self._input[:0]
        piece = self._input[self._given : self._given + self._piece]
        self._given += len(piece)
        self._piece = min(2 * self._piece, _PIECE_IN)
        return piece or None

    def _next_member(self) -> bool:
        """Begin the next member, if one follows.  Zeros are padding."""
        while piece := bytes(self._input[self._given : self._given + _FIRST_PIECE]):
            zeros = len(piece) - len(piece.lstrip(b"\0"))
            self._given += zeros
            self._zeros += zeros
            if zeros < len(piece):
                return self._begins()
        if self._ended:
            self._check_padding()
        return False

    def _begins(self) -> bool:
        """Begin a member, if one comes next.  Skip foreign bytes, and all bytes after them.

        :raises ImageCorrupt: if the format does not allow foreign bytes.
        """
        kind = self.compression
        head = bytes(self._input[self._given : self._given + kind.longest])
        if self.foreign or not head.startswith(kind.magics):
            if not self._ended and any(magic.startswith(head) for magic in kind.magics):
                # The next bytes may complete the magic.
                return False
            if not kind.passes_over:
                raise ImageCorrupt(
                    "The compressed image cannot be unpacked: the bytes after one part are not"
                    f" {kind.name}."
                )
            self.foreign = True
            self._given = len(self._input)
            return False
        self._check_padding()
        self._credit -= _MEMBER
        if self._credit < 0:
            raise ImageBomb("The compressed image consists of too many almost empty parts.")
        self._decoder = kind.make()
        self._hungry = True
        self._piece = _FIRST_PIECE
        return True

    def _check_padding(self) -> None:
        padding = self.compression.padding
        if self._zeros % padding:
            raise ImageCorrupt(
                f"The compressed image cannot be unpacked: {self._zeros} zeros follow one part,"
                f" and no multiple of {padding}."
            )
        self._zeros = 0


def _refusal(error: Exception) -> ImportFailed:
    """Return the error to raise for a decoder's error."""
    if "emory" in str(error):
        return ImageBomb("Unpacking the image takes more memory than the limit.")
    if "ictionary" in str(error):
        # RFC 8878, 3.1.1.1.3 "Dictionary_ID".
        return UnsupportedFormat(
            "The image was compressed with a dictionary that the image does not contain."
        )
    return ImageCorrupt(f"The compressed image cannot be unpacked: {error}.")
