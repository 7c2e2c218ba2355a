"""Unpacks an image that comes compressed, in bounded memory, on the way to the volume.

What a source states of such an image (its digest, say) is of what it sends: that is checked here.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from backports import zstd
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from bootvol.errors import ImageBomb, ImageCorrupt, ImageTooLarge, ImportFailed
from bootvol.imaging.digest import Digester
from bootvol.imaging.extents import tell_of
from bootvol.imaging.inspect import COMPRESSED
from bootvol.interfaces import IImageStream
from bootvol.model import Digest
from bootvol.threads import Shared, Threads, outlast

#: Bytes that are taken from the source at a time, and that a decoder is given of them, and may give
#: back.  Of more, the system makes and takes back the memory each time: that costs as much again as
#: zstd does.
_INPUT: Final = 1024 * 1024
_PIECE_IN, _PIECE_OUT = 128 * 1024, 256 * 1024
#: How many first bytes tell the compression.
_HEAD: Final = max(map(len, COMPRESSED))
#: The most memory that a stream may demand of its reader, in bytes: the tools' highest levels need
#: half of it, hostile streams ask for gigabytes.
_MEMORY: Final = 128 * 1024 * 1024
#: What each member of a stream costs besides its bytes, as the bytes that it might unpack to in
#: that time; and how many a stream may have that unpack to nothing.
_MEMBER: Final = 1024
_FREE_MEMBERS: Final = 1000
#: Bytes that the first decoding of a member is given: what follows a tiny one is copied again.
_FIRST_PIECE: Final = 1024
_FAILURES: Final = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError)


class _Decoder(Protocol):
    """What the decompressors of the standard library have in common, but for zlib's."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor in the others' form: it keeps what it was not allowed to unpack yet."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        """What follows the member."""
        return self._zlib.unused_data

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        """Return no more than ``max_length`` bytes."""
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


_DECODERS: Final[dict[str, Callable[[], _Decoder]]] = {
    "gzip": _Gzip,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY),
    "zstd": lambda: zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: _MEMORY.bit_length() - 1}
    ),
}


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
    head = memoryview(bytearray(_HEAD))
    length = await stream.read_into(head)
    first = bytes(head[:length])
    whole = _Peeked(stream, first)
    for magic, name in COMPRESSED.items():
        if first.startswith(magic):
            digester = Digester(stated)
            digester.idle = stated is None
            return Unpacked(whole, _DECODERS[name], digester, most, threads), None
    return whole, stated


@implementer(IImageStream)
class _Peeked:
    """A stream whose first bytes have been read already."""

    def __init__(self, stream: IImageStream, head: bytes) -> None:
        self.size = stream.size
        self.offset = stream.offset
        self.validator = stream.validator
        self._stream = stream
        self._head = head
        tell_of(stream, self)

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        if not self._head:
            return await self._stream.read_into(target)
        head, self._head = self._head[: len(target)], self._head[len(target) :]
        target[: len(head)] = head
        return len(head) + await self._stream.read_into(target[len(head) :])

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""


@implementer(IImageStream)
class Unpacked:
    """What a compressed stream unpacks to; it can only be read from its start.

    :param packed: the compressed stream; it is read ahead until this is closed, and not closed
        with it.
    :param make: a new decoder; there is one for each member of a stream of several.
    :param digester: of the compressed bytes.
    :param most: how many of them are taken.
    """

    def __init__(
        self,
        packed: IImageStream,
        make: Callable[[], _Decoder],
        digester: Digester,
        most: int,
        threads: Threads,
    ) -> None:
        self.size: int | None = None
        self.offset = 0
        self.validator: str | None = None
        self._packed = packed
        self._make = make
        self._decoder = make()
        self._digester = digester
        self._most = self._left = most
        self._threads = threads
        # One is filled while the other is unpacked.
        self._filling, self._spare = (memoryview(bytearray(_INPUT)) for _ in range(2))
        self._input = self._spare[:0]
        self._given = 0
        self._piece = _PIECE_IN
        # What more members may cost, in bytes.
        self._credit = _FREE_MEMBERS * _MEMBER
        # Whether the decoder has given all that it can of what it was given.
        self._hungry = True
        self._fresh = False
        self._ended = False
        self._coming: Shared[int] | None = None

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        filled = 0
        while True:
            filled += await self._threads.run(self._unpack, target[filled:])
            if filled == len(target):
                return filled
            if self._ended:
                break
            await self._fetch()
        if not self._decoder.eof:
            # The source sent all that it has: trying again would not help.
            raise ImageCorrupt("The compressed image ends before its end.")
        self._digester.verify()
        return filled

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        if self._coming is not None:
            self._coming.cancel()
            with suppress(CancelledError, ImportFailed):
                await outlast(self._coming.wait())

    async def _fetch(self) -> None:
        """Take what has come meanwhile, and let more come while that is unpacked."""
        if self._coming is None:
            self._coming = self._ask()
        length = await self._coming.wait()
        self._left -= length
        if self._left < 0:
            raise ImageTooLarge(
                f"The compressed image has more than {self._most} bytes; the volume takes no more."
            )
        self._ended = length < len(self._filling)
        self._input, self._given = self._filling[:length], 0
        self._filling, self._spare = self._spare, self._filling
        self._fresh = True
        self._coming = None if self._ended else self._ask()

    def _ask(self) -> Shared[int]:
        return Shared(Deferred.fromCoroutine(self._packed.read_into(self._filling)))

    def _unpack(self, target: memoryview) -> int:
        """Fill ``target`` as far as the input goes.  Blocks."""
        done = 0
        if self._fresh:
            self._fresh = False
            self._digester.update(self._input)
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
        except _FAILURES as error:
            if "emory" in str(error):
                raise ImageBomb("Unpacking the image takes more memory than it may.") from error
            raise ImageCorrupt(f"The compressed image cannot be unpacked: {error}.") from error
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
            member = piece.lstrip(b"\0")
            self._given += len(piece) - len(member)
            if member:
                self._credit -= _MEMBER
                if self._credit < 0:
                    raise ImageBomb("The compressed image is in parts that hold next to nothing.")
                self._decoder = self._make()
                self._hungry = True
                self._piece = _FIRST_PIECE
                return True
        return False
