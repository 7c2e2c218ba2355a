"""Converter of chunked bodies of real servers to the form that Twisted's decoder accepts.

Beyond RFC 9112, section 7.1, real servers send spaces behind a chunk's size or around extensions,
and lines with LF alone.  curl accepts these.
"""

from __future__ import annotations

import re
from typing import Final

#: Maximum length of a line, and of all trailers together, in bytes.
_LONGEST: Final = 16 * 1024
_MOST_TRAILERS: Final = 64 * 1024
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?![0-9A-Fa-f])")


class Chunks:
    """The converter of one body.

    Invalid bytes and all bytes behind them pass unchanged, so that the decoder reports the fault.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        #: Missing bytes of the current chunk.
        self._left = 0
        self._trailers = 0
        self._read = self._read_size
        self._passes = False

    def plain(self, data: bytes) -> bytes:
        """Convert the next bytes for the decoder."""
        given = bytearray()
        at = 0
        while at < len(data) and not self._passes:
            if self._left:
                piece = data[at : at + self._left]
                given += piece
                self._left -= len(piece)
                at += len(piece)
                continue
            end = data.find(b"\n", at) + 1 or len(data)
            self._line += data[at:end]
            at = end
            if self._line.endswith(b"\n") or len(self._line) > _LONGEST:
                line = bytes(self._line)
                self._line.clear()
                given += self._read(line)
        return bytes(given + data[at:])

    def _read_size(self, line: bytes) -> bytes:
        """Read the line before a chunk, and drop extensions."""
        size = _SIZE.match(line)
        if size is None or not line.endswith(b"\n"):
            self._passes = True
            return line
        self._left = int(size[1], 16)
        if not self._left:
            self._read = self._read_trailer
            return b""
        self._read = self._read_end
        return b"%x\r\n" % self._left

    def _read_end(self, line: bytes) -> bytes:
        """Read the end of line behind a chunk."""
        self._read = self._read_size
        self._passes = bool(line.strip(b"\r\n"))
        return line if self._passes else b"\r\n"

    def _read_trailer(self, line: bytes) -> bytes:
        """Read a line behind the last chunk: drop trailers until the empty line, the end."""
        self._trailers += len(line)
        if line.strip(b"\r\n") and self._trailers <= _MOST_TRAILERS:
            return b""
        self._passes = True
        return b"0\r\n\r\n" if not line.strip(b"\r\n") else line
