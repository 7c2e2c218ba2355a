"""The formats that compressed images come in: how each begins, goes on and ends.

A compressed image is one member after another (gzip), or streams (xz, bzip2), or frames (zstd):
all are called members here.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, Protocol

import attrs
from backports import zstd

from bootvol.imaging.archive import Tar
from bootvol.imaging.magics import BZIP2, GZIP, is_tar

#: The most memory that a member may demand of its reader, in bytes: the tools' highest levels need
#: half of it, hostile images ask for gigabytes.
_MEMORY: Final = 128 * 1024 * 1024

#: What decoders raise.
FAILURES: Final = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError)


class Decoder(Protocol):
    """What the decompressors of the standard library have in common, but for zlib's.

    Each is for one member.
    """

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


@attrs.frozen
class Compression:
    """A format.

    :ivar name: what people call the format.
    :ivar make: returns a decoder of one member.
    :ivar magics: how a member may begin.
    :ivar first: how the first member of an image begins; the short magics of some formats begin
        raw disks too, by chance.
    :ivar padding: zeros may follow a member in multiples of so many bytes.
    :ivar is_whole: tells of a decoder whether the image may end after what it was given.
    :ivar passes_over: whether the format's own tool takes a file with foreign bytes behind its last
        member, with a warning.
    """

    name: str
    make: Callable[[], Decoder]
    magics: tuple[bytes, ...]
    first: re.Pattern[bytes] | None = None
    padding: int = 1
    is_whole: Callable[[Any], bool] = attrgetter("eof")
    passes_over: bool = False

    @property
    def called(self) -> str:
        """What messages call an image in the format."""
        return "tar archive" if self.make is Tar else "compressed image"

    @property
    def longest(self) -> int:
        """How many bytes tell whether a member begins."""
        return max(map(len, self.magics), default=1)


FORMATS: Final = (
    # RFC 1952, section 2.3.1.  gzip(1): "trailing garbage ignored"; zeros pad tapes.
    Compression(
        "gzip",
        _Gzip,
        (b"\x1f\x8b",),
        first=GZIP,
        passes_over=True,
    ),
    # bzip2(1): "trailing garbage after EOF ignored".
    Compression(
        "bzip2",
        bz2.BZ2Decompressor,
        (b"BZh",),
        first=BZIP2,
        passes_over=True,
    ),
    # The .xz File Format, 2.1.1.1 "Header Magic Bytes", 2.2 "Stream Padding".
    Compression(
        "xz",
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY),
        (b"\xfd7zXZ\0",),
        padding=4,
    ),
    # RFC 8878, 3.1.1 "Zstandard Frames" and 3.1.2 "Skippable Frames".  pzstd writes one of the
    # second kind before each of the first; a seekable file has its table in one.  The decoder
    # takes one as a frame that holds nothing.
    Compression(
        "zstd",
        lambda: zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: _MEMORY.bit_length() - 1}
        ),
        (
            b"\x28\xb5\x2f\xfd",
            *(number.to_bytes(4, "little") for number in range(0x184D2A50, 0x184D2A60)),
        ),
    ),
)

#: Not a compression, but decoded as one: to the one disk in it.  Zeros fill its last record.
TAR: Final = Compression("tar", Tar, (), is_whole=attrgetter("whole"))

#: How many first bytes of an image tell its compression, or an archive.
HEAD: Final = 512


def compression_of(head: bytes) -> Compression | None:
    """Return the format that an image is compressed in, by its first bytes; None if in none."""
    for each in FORMATS:
        if head.startswith(each.magics) and (each.first is None or each.first.match(head)):
            return each
    return TAR if is_tar(head) else None
