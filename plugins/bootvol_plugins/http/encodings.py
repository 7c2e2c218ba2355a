"""Decoding of Content-Encoding, unless the header only describes the file's own compression.

Requests ask for unencoded answers, but servers send the header nevertheless.  Some servers describe
the compression of the file itself (``disk.img.gz`` with ``gzip``).  A few servers do compress the
answer.  The first bytes of the body tell the two cases apart.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Final

from backports import zstd
from twisted.web.iweb import IResponse
from zope.interface import implementer

from bootvol.decoders import Decoder, Gzip
from bootvol.errors import ImageBomb, ImageCorrupt, ImageTruncated, SourceRefused
from bootvol.interfaces import IImageStream, IOpenEndedStream
from bootvol.threads import Threads
from bootvol_plugins.http.client import ENCODING

#: The largest window of a frame: 8 MiB (RFC 9659, section 3).  Each encoding of an answer has one.
_WINDOW: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}

#: For each supported encoding (RFC 9110, section 8.4.1; RFC 8878): the first bytes of a member, the
#: endings of files with this compression, and the decoder of a member.  zstd's members are frames
#: and skippable frames.
_DECODED: Final[dict[str, tuple[tuple[bytes, ...], tuple[str, ...], Callable[[], Decoder]]]] = {
    "gzip": ((b"\x1f\x8b",), (".gz", ".tgz", ".gzip"), Gzip),
    "zstd": (
        (b"\x28\xb5\x2f\xfd", *(bytes([each]) + b"\x2a\x4d\x18" for each in range(0x50, 0x60))),
        (".zst", ".zstd", ".tzst"),
        lambda: zstd.ZstdDecompressor(options=_WINDOW),
    ),
}
_ALIASES: Final = {"x-gzip": "gzip"}
#: Encodings that hide the image, and are not supported.
_REFUSED: Final = frozenset({"br", "compress", "x-compress", "deflate", "dcb", "dcz"})
#: Bytes to recognize an encoding: enough for a decoder to produce output.
_HEAD: Final = 1024
_INPUT: Final = 256 * 1024
#: Bytes to recognize the next member.
_MAGIC: Final = 4
#: Bytes for the first call of a member's decoder: bytes behind a tiny member are copied again.
_FIRST_PIECE: Final = 1024
#: The most bytes that an encoding takes without giving half as many, and the cost of a member in
#: bytes.  Headers and empty members give none, and another encoding packs gigabytes of them.
_IN_VAIN: Final = 4 * 1024 * 1024
_MEMBER: Final = 256
#: The most encodings of one answer, the same as curl's limit.
_MOST: Final = 5


def encodings_of(response: IResponse) -> Sequence[str]:
    """Return the possible encodings of an answer, in the order in which the server applied them.

    As in curl, words that are not encodings (``binary``, ``utf-8``, ``aws-chunked``) are ignored.
    Words for compressions that are decompressed anyway (``x-xz``) are ignored, too.

    :raises bootvol.errors.SourceRefused: if an encoding is not supported.
    """
    values = response.headers.getRawHeaders(ENCODING) or []
    words = b",".join(values).decode("latin-1").lower().split(",")
    found = [_ALIASES.get(each.strip(), each.strip()) for each in words]
    refused = [each for each in found if each in _REFUSED]
    known = [each for each in found if each in _DECODED]
    if refused or len(known) > _MOST:
        raise SourceRefused(
            f"The server sends the image encoded ({', '.join(refused or known)}), though"
            " bootvol asked for the plain image, and bootvol does not decode this encoding."
        )
    return known


async def decoded(
    stream: IImageStream, encodings: Sequence[str], name: str, threads: Threads
) -> IImageStream:
    """Return a stream of the image, decoded as often as the body really is encoded.

    :param stream: the server's body, at its start.  Closing the result closes this stream.
    :param encodings: the result of :func:`encodings_of`.
    :param name: the file's name in the URL.
    :raises bootvol.errors.SourceFailed: if the source breaks off.
    """
    for encoding in reversed(encodings):
        stream = await _decoded_once(stream, encoding, name, threads)
    return stream


async def _decoded_once(
    stream: IImageStream, encoding: str, name: str, threads: Threads
) -> IImageStream:
    head = memoryview(bytearray(_HEAD))
    first = bytes(head[: await stream.read_into(head)])
    begins, endings, make = _DECODED[encoding]
    really = first.startswith(begins)
    if really and name.lower().endswith(endings):
        # The file itself is compressed. Check for a second compression by the server.
        really = _begin(make(), first).startswith(begins)
    return Decoded(stream, first, encoding, threads) if really else _Peeked(stream, first)


def _begin(decoder: Decoder, first: bytes) -> bytes:
    """Return some of the first decoded bytes; empty if decoding fails."""
    try:
        return bytes(decoder.decompress(first, 64))
    except (zlib.error, zstd.ZstdError):
        return b""


@implementer(IOpenEndedStream)
class _Peeked:
    """A stream with some first bytes read already."""

    def __init__(self, stream: IImageStream, head: bytes) -> None:
        self.size = stream.size
        self.offset = stream.offset
        self.validator = stream.validator
        self._stream = stream
        self._head = head

    @property
    def proven(self) -> bool:
        """See :class:`bootvol.interfaces.IOpenEndedStream`."""
        return bool(getattr(self._stream, "proven", True))

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        head, self._head = self._head[: len(target)], self._head[len(target) :]
        target[: len(head)] = head
        return len(head) + await self._stream.read_into(target[len(head) :])

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        await self._stream.close()


@implementer(IImageStream)
class Decoded:
    """The decoded stream of an encoded body, in bounded memory, readable only from its start.

    :param head: first bytes of the encoded body, read already.
    """

    def __init__(self, stream: IImageStream, head: bytes, encoding: str, threads: Threads) -> None:
        self.size: int | None = None
        self.offset = 0
        # The server's validator is for the encoded bytes.
        self.validator: str | None = None
        self._stream = stream
        self._begins, _, self._make = _DECODED[encoding]
        self._decoder = self._make()
        self._threads = threads
        self._input = memoryview(bytearray(_INPUT))
        self._given, self._at = head, 0
        self._piece = _FIRST_PIECE
        self._more = True
        self._credit = _IN_VAIN

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        filled = 0
        while filled < len(target):
            count = await self._threads.run(self._decode, target[filled:])
            filled += count
            if not count:
                if self._decoder.eof and not self._more and self._at == len(self._given):
                    break
                await self._fetch()
        return filled

    async def _fetch(self) -> None:
        if not self._more:
            raise ImageTruncated("The encoded image is incomplete.")
        length = await self._stream.read_into(self._input)
        self._given, self._at = self._given[self._at :] + bytes(self._input[:length]), 0
        self._more = length == len(self._input)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        await self._stream.close()

    def _decode(self, target: memoryview) -> int:
        """Decode the available input into ``target``.  Blocks."""
        while not self._decoder.eof or self._next_member():
            piece = self._given[self._at : self._at + self._piece]
            self._at += len(piece)
            self._piece = min(2 * self._piece, _INPUT)
            try:
                out = self._decoder.decompress(piece, len(target))
            except (zlib.error, zstd.ZstdError) as error:
                raise ImageCorrupt(f"The server's answer cannot be decoded: {error}.") from error
            self._credit += 2 * len(out) - len(piece)
            if self._decoder.eof:
                self._at -= len(self._decoder.unused_data)
                self._credit += len(self._decoder.unused_data) - _MEMBER
            self._check_credit()
            target[: len(out)] = out
            if out or not piece:
                return len(out)
        return 0

    def _next_member(self) -> bool:
        """Begin the next member, if one follows.  Zeros are padding."""
        while piece := self._given[self._at : self._at + _FIRST_PIECE]:
            zeros = len(piece) - len(piece.lstrip(b"\0"))
            self._at += zeros
            self._credit -= zeros
            if zeros < len(piece):
                break
        self._check_credit()
        head = self._given[self._at : self._at + _MAGIC]
        if not head or (len(head) < _MAGIC and self._more):
            return False
        if not head.startswith(self._begins):
            raise ImageCorrupt("Foreign bytes follow the encoded image in the server's answer.")
        self._decoder, self._piece = self._make(), _FIRST_PIECE
        return True

    def _check_credit(self) -> None:
        """Refuse an answer that takes time, and gives nothing.

        :raises bootvol.errors.ImageBomb: if the decoder has taken too much in vain.
        """
        if self._credit < 0:
            raise ImageBomb("The server's answer has too many headers or empty parts.")
