"""Unpacks an image that comes compressed, in bounded memory, on the way to the volume.

What a source states of such an image (its digest, say) is of what it sends: that is checked here.
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

#: Bytes that are taken from the source at a time, and that a decoder is given of them, and may give
#: back.  Of more, the system makes and takes back the memory each time: that costs as much again as
#: zstd does.
_INPUT: Final = 1024 * 1024
_PIECE_IN, _PIECE_OUT = 128 * 1024, 256 * 1024
#: What each member of a stream costs besides its bytes, as the bytes that it might unpack to in
#: that time; and how many a stream may have that unpack to nothing.
_MEMBER: Final = 1024
_FREE_MEMBERS: Final = 1000
#: Bytes that the first decoding of a member is given: what follows a tiny one is copied again.
_FIRST_PIECE: Final = 1024
#: Bytes before the input, where the last bytes of the input before can be put.
_ROOM: Final = 16


async def unpacked(
    stream: IImageStream, stated: Digest | None, most: int, threads: Threads
) -> tuple[IImageStream, Digest | None]:
    """Return a stream of the disk, whether it comes compressed or as it is.

    :param stream: at its start; it is not closed with the result, which is to be closed first.
    :param stated: the digest of what it sends.
    :param most: bytes that are taken of it if it is compressed.
    :returns: a stream, and the digest that is still to be checked.
    :raises bootvol.errors.ImportFailed: the source broke off.
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
    return Unpacked(_Decoded(whole, compression, digester, most, threads)), None


@implementer(IImageStream)
class _Peeked(Wrapping):
    """A stream whose first bytes have been read already."""

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
class Unpacked:
    """The disk in a compressed stream, in an archive, or in an archive that is compressed.

    It can only be read from its start.  When the source breaks off, nothing is lost of what has
    come: with another stream that begins there, :meth:`go_on` lets this one be read on.

    :param packed: reads the source's stream, at its start.
    """

    def __init__(self, packed: _Decoded) -> None:
        self.size: int | None = None
        self.offset = 0
        self.validator: str | None = None
        self._packed = packed
        # The one that gives the disk; None until the first bytes tell whether an archive comes.
        self._disk: _Decoded | None = packed if packed.compression is TAR else None

    @property
    def taken(self) -> int:
        """How many bytes have come of what the source sends."""
        return self._packed.taken

    @property
    def packed_validator(self) -> str | None:
        """The validator of the image that they are of."""
        return self._packed.packed.validator

    @property
    def foreign(self) -> bool:
        """Whether something that is not compressed follows the image's end."""
        return self._packed.foreign

    @property
    def ended_by_itself(self) -> bool:
        """Whether its format shows that it has ended, be it the source's end or not."""
        return self._packed.ended_by_itself

    def go_on(self, packed: IImageStream) -> None:
        """Read on, from a stream of the source's that begins after what has been taken."""
        self._packed.go_on(packed)

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        if self._disk is None:
            self._disk = await self._packed.archived() or self._packed
        return await self._disk.read_into(target)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        # The archive's reader first: it reads ahead from the other.
        if self._disk is not None:
            await self._disk.close()
        await self._packed.close()


@implementer(IImageStream)
class _Decoded:
    """What one decoder makes of a stream.

    :param packed: it is read ahead until this is closed, and not closed with it.
    :param compression: its format.
    :param digester: of its bytes.
    :param most: how many of them are taken.
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
        # What more members may cost, in bytes.
        self._credit = _FREE_MEMBERS * _MEMBER
        # Whether the decoder has given all that it can of what it was given.
        self._hungry = True
        # Where in the input the bytes begin that are new to the digest.
        self._fresh: int | None = None
        self._ended = False
        # How many zeros have come since the last member.
        self._zeros = 0
        # What was unpacked for a read that then broke off.
        self._kept = b""
        self.packed = packed
        # One is filled while the other is unpacked; both are made when they are needed.
        self._filling = self._spare = memoryview(b"")
        self._coming: Shared[int] | None = None

    @property
    def ended_by_itself(self) -> bool:
        """Whether the decoder found the end."""
        return self._decoder.eof

    async def archived(self) -> _Decoded | None:
        """Return a reader of the disk in an archive if this, at its start, is one.

        After a failure it can be asked again: what has come is not lost.
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
        """Read on, from a stream that begins after what has been taken."""
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
            # The source sent all that it has: trying again would not help.
            raise ImageCorrupt(f"The {self.compression.called} ends before its end.")
        self._digester.verify()
        return filled

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        if self._coming is not None:
            self._coming.cancel()
            with suppress(CancelledError, ImportFailed):
                await outlast(self._coming.wait())
            self._coming = None
        # Others may need the memory while nothing comes.
        self._input, self._given = memoryview(bytes(self._input[self._given :])), 0
        self._filling = self._spare = self._input[:0]

    async def _fetch(self) -> None:
        """Take what has come meanwhile, and let more come while that is unpacked."""
        if self._coming is None:
            self._coming = self._ask()
        broken: ImportFailed | None = None
        try:
            length = await self._coming.wait()
        except ImportFailed as error:
            # What had come by then is unpacked; whoever reads this stream is not given any of it.
            broken, length, error.came = error, error.came, 0
        self.taken += length
        if self.taken > self._most:
            raise ImageTooLarge(
                f"The {self.compression.called} has more than {self._most} bytes;"
                " the volume takes no more."
            )
        self._ended = broken is None and length < len(self._filling) - _ROOM
        # What may be the beginning of a member goes before what follows it.
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
        """Return what the decoder is to be given: nothing while it has enough; None at the end."""
        if not self._hungry:
            return self._input[:0]
        piece = self._input[self._given : self._given + self._piece]
        self._given += len(piece)
        self._piece = min(2 * self._piece, _PIECE_IN)
        return piece or None

    def _next_member(self) -> bool:
        """Begin the next member, if one follows; what pads a stream is zeros."""
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
        """Begin a member, if one comes next; foreign bytes are passed over, with all that follows.

        :raises ImageCorrupt: there must not be foreign bytes.
        """
        kind = self.compression
        head = bytes(self._input[self._given : self._given + kind.longest])
        if self.foreign or not head.startswith(kind.magics):
            if not self._ended and any(magic.startswith(head) for magic in kind.magics):
                # The rest of the magic may be in the bytes that come next.
                return False
            if not kind.passes_over:
                raise ImageCorrupt(
                    "The compressed image cannot be unpacked: what follows a part of it is not"
                    f" {kind.name}."
                )
            self.foreign = True
            self._given = len(self._input)
            return False
        self._check_padding()
        self._credit -= _MEMBER
        if self._credit < 0:
            raise ImageBomb("The compressed image is in parts that hold next to nothing.")
        self._decoder = kind.make()
        self._hungry = True
        self._piece = _FIRST_PIECE
        return True

    def _check_padding(self) -> None:
        padding = self.compression.padding
        if self._zeros % padding:
            raise ImageCorrupt(
                f"The compressed image cannot be unpacked: {self._zeros} zeros follow a part of it,"
                f" and no multiple of {padding}."
            )
        self._zeros = 0


def _refusal(error: Exception) -> ImportFailed:
    """Return what to raise for an error of a decoder."""
    if "emory" in str(error):
        return ImageBomb("Unpacking the image takes more memory than it may.")
    if "ictionary" in str(error):
        # RFC 8878, 3.1.1.1.3 "Dictionary_ID".
        return UnsupportedFormat("The image was compressed with a dictionary, which is not in it.")
    return ImageCorrupt(f"The compressed image cannot be unpacked: {error}.")
