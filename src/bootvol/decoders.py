"""The common interface of decompressors, and gzip's decompressor with this interface."""

from __future__ import annotations

import zlib
from collections.abc import Generator
from typing import Final, Protocol, cast

# The flags of a header (RFC 1952, section 2.3.1.2).
_CHECKED, _EXTRA, _NAME, _COMMENT = 0x02, 0x04, 0x08, 0x10
#: The first bytes of a header, up to and with the operating system.
_FIRST: Final = 10
#: The CRC-32 and the size of the content (RFC 1952, section 2.3.1).
_TRAILER: Final = 8
#: The length of a text in a header, which ends with a zero byte.
_TEXT: Final = -1


class Decoder(Protocol):
    """The interface of the standard library's decompressors, except zlib's, and of zstd's.

    Each decoder decodes one member.
    """

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes: ...


class Gzip:
    """A decompressor of one gzip member, with the common interface.

    isal decodes the content in half of zlib's time.  But isal misreads headers that arrive in
    pieces, and accepts unknown flags.  So zlib checks the header, and this class the trailer.
    """

    def __init__(self) -> None:
        # Import late: the import takes half a MiB, and not all daemons read such images.
        from isal import igzip_lib

        self._header: _Header | None = _Header()
        self._content = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP_NO_HDR)
        self._failure = cast("type[Exception]", igzip_lib.error)
        self._length = 0
        self._trailer = b""
        self.unused_data = b""
        self.eof = False

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        """Return no more than ``max_length`` decoded bytes.  Input beyond this limit is kept.

        :raises zlib.error: if the member is broken.
        """
        if self._header is not None:
            data = self._header.take(bytes(data))
            if not self._header.ended:
                return b""
            self._header = None
        out = b""
        if not self._content.eof:
            try:
                out = self._content.decompress(data, max_length)
            except self._failure as error:
                raise zlib.error(str(error)) from error
            self._length += len(out)
            data = self._content.unused_data
        if self._content.eof:
            self._end(bytes(data))
        return out

    def _end(self, data: bytes) -> None:
        """Take the trailer, and check the content."""
        missing = _TRAILER - len(self._trailer)
        self._trailer += data[:missing]
        if len(self._trailer) < _TRAILER:
            return
        if int.from_bytes(self._trailer[:4], "little") != self._content.crc:
            raise zlib.error("Error -3 while decompressing data: incorrect data check")
        if int.from_bytes(self._trailer[4:], "little") != self._length % 2**32:
            raise zlib.error("Error -3 while decompressing data: incorrect length check")
        self.unused_data = data[missing:]
        self.eof = True


class _Header:
    """The header of a member: finds its end, and has zlib check each byte.

    No text is kept: a text has no maximum length.
    """

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self._fields = _fields()
        self._left = next(self._fields)
        self._field = b""
        self.ended = False

    def take(self, data: bytes) -> bytes:
        """Take the header's bytes from ``data``, and return the bytes behind the header.

        :raises zlib.error: if the header is broken.
        """
        at = 0
        while not self.ended and (at < len(data) or not self._left):
            if self._left == _TEXT:
                end = data.find(b"\0", at) + 1
                piece = data[at : end or len(data)]
                done = bool(end)
            else:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                self._field += piece
                done = not self._left
            at += len(piece)
            self._zlib.decompress(piece)
            if done:
                self._next()
        return data[at:]

    def _next(self) -> None:
        field, self._field = self._field, b""
        try:
            self._left = self._fields.send(field)
        except StopIteration:
            self.ended = True


def _fields() -> Generator[int, bytes, None]:
    """Yield the length of each field of a header in bytes, or :data:`_TEXT`.  Receive the field."""
    first = yield _FIRST
    flags = first[3]
    if flags & _EXTRA:
        length = yield 2
        yield int.from_bytes(length, "little")
    for each in (_NAME, _COMMENT):
        if flags & each:
            yield _TEXT
    if flags & _CHECKED:
        yield 2
