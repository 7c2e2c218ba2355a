"""Decoding of Content-Encoding, unless the header only describes the file's own compression.

Requests ask for unencoded answers, but servers send the header nevertheless.  Some servers describe
the compression of the file itself (``disk.img.gz`` with ``gzip``).  A few servers do compress the
answer.  The first bytes of the body tell the two cases apart.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from backports import zstd
from twisted.web.iweb import IResponse
from zope.interface import implementer

from bootvol.decoders import Decoder, Gzip
from bootvol.errors import ImageCorrupt, ImageTruncated, SourceRefused
from bootvol.interfaces import IImageStream, IOpenEndedStream
from bootvol.threads import Threads
from bootvol_plugins.http.client import ENCODING

#: For each supported encoding (RFC 9110, section 8.4.1; RFC 8878): the first bytes, the endings of
#: files with this compression, and the decoder.
_DECODED: Final[dict[str, tuple[bytes, tuple[str, ...], Callable[[], Decoder]]]] = {
    "gzip": (b"\x1f\x8b", (".gz", ".tgz", ".gzip"), Gzip),
    "zstd": (b"\x28\xb5\x2f\xfd", (".zst", ".zstd", ".tzst"), zstd.ZstdDecompressor),
}
_ALIASES: Final = {"x-gzip": "gzip"}
#: Encodings that hide the image, and are not supported.
_REFUSED: Final = frozenset({"br", "compress", "x-compress", "deflate", "dcb", "dcz"})
#: Bytes to recognize an encoding: enough for a decoder to produce output.
_HEAD: Final = 1024
_INPUT: Final = 256 * 1024


def encoding_of(response: IResponse) -> str | None:
    """Return the possible encoding of an answer; None if the answer is not encoded.

    As in curl, words that are not encodings (``binary``, ``utf-8``, ``aws-chunked``) are ignored.
    Words for compressions that are decompressed anyway (``x-xz``) are ignored, too.

    :raises bootvol.errors.SourceRefused: if the encoding is not supported.
    """
    values = response.headers.getRawHeaders(ENCODING) or []
    words = b",".join(values).decode("latin-1").lower().split(",")
    found = [_ALIASES.get(each.strip(), each.strip()) for each in words]
    refused = [each for each in found if each in _REFUSED]
    known = [each for each in found if each in _DECODED]
    if refused or len(known) > 1:
        raise SourceRefused(
            f"The server sends the image encoded ({', '.join(refused or known)}), though"
            " bootvol asked for the plain image, and bootvol does not decode this encoding."
        )
    return known[0] if known else None


async def decoded(stream: IImageStream, encoding: str, name: str, threads: Threads) -> IImageStream:
    """Return a stream of the image, decoded if the body really is encoded.

    :param stream: the server's body, at its start.  Closing the result closes this stream.
    :param encoding: the result of :func:`encoding_of`.
    :param name: the file's name in the URL.
    :raises bootvol.errors.SourceFailed: if the source breaks off.
    """
    head = memoryview(bytearray(_HEAD))
    first = bytes(head[: await stream.read_into(head)])
    begins, endings, make = _DECODED[encoding]
    really = first.startswith(begins)
    if really and name.lower().endswith(endings):
        # The file itself is compressed. Check for a second compression by the server.
        really = _begin(make(), first).startswith(begins)
    return Decoded(stream, first, make(), threads) if really else _Peeked(stream, first)


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

    def __init__(
        self, stream: IImageStream, head: bytes, decoder: Decoder, threads: Threads
    ) -> None:
        self.size: int | None = None
        self.offset = 0
        # The server's validator is for the encoded bytes.
        self.validator: str | None = None
        self._stream = stream
        self._decoder = decoder
        self._threads = threads
        self._input = memoryview(bytearray(_INPUT))
        self._given = head
        self._more = True

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        filled = 0
        while filled < len(target) and not self._decoder.eof:
            count = await self._threads.run(self._decode, target[filled:])
            filled += count
            if not count and not self._decoder.eof:
                await self._fetch()
        return filled

    async def _fetch(self) -> None:
        if not self._more:
            raise ImageTruncated("The encoded image is incomplete.")
        length = await self._stream.read_into(self._input)
        self._given, self._more = bytes(self._input[:length]), length == len(self._input)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        await self._stream.close()

    def _decode(self, target: memoryview) -> int:
        """Decode the available input into ``target``.  Blocks."""
        given, self._given = self._given, b""
        try:
            out = self._decoder.decompress(given, len(target))
        except (zlib.error, zstd.ZstdError) as error:
            raise ImageCorrupt(f"The server's answer cannot be decoded: {error}.") from error
        target[: len(out)] = out
        return len(out)
