"""The common interface of decompressors, and zlib's decompressor with this interface."""

from __future__ import annotations

import zlib
from typing import Protocol


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
    """zlib's decompressor with the common interface: input beyond the output limit is kept."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        """True once the member has ended."""
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        """The bytes after the member."""
        return self._zlib.unused_data

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        """Return no more than ``max_length`` decoded bytes."""
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
