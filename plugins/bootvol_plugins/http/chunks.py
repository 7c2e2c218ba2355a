"""Converter of chunked bodies of real servers to the form that Twisted's decoder accepts.

Beyond RFC 9112, section 7.1, real servers send spaces behind a chunk's size or around extensions,
and lines with LF alone.  curl accepts these.

All chunks in a piece of input become one chunk: Twisted takes 17 microseconds for each chunk, and a
hostile server sends chunks of one byte.
"""

from __future__ import annotations

import re
from typing import Final

#: Maximum length of a line, and of all trailers together, in bytes.
_LONGEST: Final = 16 * 1024
_MOST_TRAILERS: Final = 64 * 1024
#: The usual line before a chunk that is not the last one.
_USUAL: Final = re.compile(rb"0{0,8}([1-9A-Fa-f][0-9A-Fa-f]{0,7})\r?\n")
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
        if self._passes:
            return data
        content: list[bytes] = []
        behind = b""
        at = 0
        while at < len(data) and not self._passes:
            if self._read == self._read_size and not self._left and not self._line:
                at = _take_whole(data, at, content)
                if at == len(data):
                    break
            if self._left:
                piece = data[at : at + self._left]
                content.append(piece)
                self._left -= len(piece)
                at += len(piece)
                continue
            end = data.find(b"\n", at) + 1 or len(data)
            line, at = data[at:end], end
            if self._line or not line.endswith(b"\n"):
                self._line += line
                if not self._line.endswith(b"\n") and len(self._line) <= _LONGEST:
                    break
                line = bytes(self._line)
                self._line.clear()
            behind = self._read(line)
        if self._passes:
            behind += data[at:]
        whole = b"".join(content)
        return (b"%x\r\n%b\r\n" % (len(whole), whole) if whole else b"") + behind

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
        return b""

    def _read_end(self, line: bytes) -> bytes:
        """Read the end of line behind a chunk."""
        self._read = self._read_size
        self._passes = bool(line.strip(b"\r\n"))
        # The decoder has the end of the chunk already, and must not take the line for a size.
        return b"?" + line if self._passes else b""

    def _read_trailer(self, line: bytes) -> bytes:
        """Read a line behind the last chunk: drop trailers until the empty line, the end."""
        self._trailers += len(line)
        if line.strip(b"\r\n") and self._trailers <= _MOST_TRAILERS:
            return b""
        self._passes = True
        return b"0\r\n\r\n" if not line.strip(b"\r\n") else line


def _take_whole(data: bytes, at: int, content: list[bytes]) -> int:
    """Take the chunks of the usual form that begin at an offset and are whole; return their end."""
    while (size := _USUAL.match(data, at)) is not None:
        begin = size.end()
        end = begin + int(size[1], 16)
        behind = data[end : end + 2]
        if behind != b"\r\n" and not behind.startswith(b"\n"):
            break
        content.append(data[begin:end])
        at = end + (2 if behind == b"\r\n" else 1)
    return at
