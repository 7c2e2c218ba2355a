"""The formats of compressed images: their beginnings, members and ends.

A compressed image consists of members (gzip), of streams (xz, bzip2), or of frames (zstd).  This
module calls all of them members.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable
from operator import attrgetter
from typing import Final

import attrs
from backports import zstd

from bootvol.decoders import Decoder, Gzip
from bootvol.imaging.archive import Tar
from bootvol.imaging.cuts import frames_of, members_of
from bootvol.imaging.inspect import CONTAINERS
from bootvol.imaging.magics import BZIP2, GZIP, is_tar, unread_format
from bootvol.imaging.splitting import Splitter
from bootvol.imaging.xz_blocks import blocks_of

#: The most memory that decoding a member may need, in bytes.  The highest levels of the tools need
#: half of this limit; hostile images ask for gigabytes.
_MEMORY: Final = 128 * 1024 * 1024

#: Exceptions of the decoders.
FAILURES: Final = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError)


def _no_splitter(_head: bytes) -> Splitter | None:
    return None


@attrs.frozen
class Compression:
    """A format.

    :ivar name: the format's name for people.
    :ivar make: factory of a decoder for one member.
    :ivar magics: the possible beginnings of a member.
    :ivar first: the beginning of an image's first member.  The short magics of some formats also
        begin raw disks, by chance.
    :ivar padding: zeros may follow a member, in multiples of this many bytes.
    :ivar is_whole: returns whether the image may end after the bytes that a decoder was given.
    :ivar passes_over: whether the format's own tool accepts foreign bytes behind the last member,
        with a warning.
    :ivar splitter: returns a splitter for an image by its first bytes; None if only one thread can
        decode the image.
    """

    name: str
    make: Callable[[], Decoder]
    magics: tuple[bytes, ...]
    first: re.Pattern[bytes] | None = None
    padding: int = 1
    is_whole: Callable[[Decoder], bool] = attrgetter("eof")
    passes_over: bool = False
    splitter: Callable[[bytes], Splitter | None] = _no_splitter

    @property
    def called(self) -> str:
        """The name of an image of this format in messages."""
        return "tar archive" if self.make is Tar else "compressed image"


FORMATS: Final = (
    # RFC 1952, section 2.3.1.  gzip(1): "trailing garbage ignored"; zeros pad tapes.
    Compression(
        "gzip",
        Gzip,
        (b"\x1f\x8b",),
        first=GZIP,
        passes_over=True,
        splitter=members_of,
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
        splitter=blocks_of,
    ),
    # RFC 8878, 3.1.1 "Zstandard Frames" and 3.1.2 "Skippable Frames".  pzstd writes a skippable
    # frame before each Zstandard frame; a seekable file has its table in a skippable frame.  For
    # the decoder, a skippable frame is an empty frame.
    Compression(
        "zstd",
        lambda: zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: _MEMORY.bit_length() - 1}
        ),
        (
            b"\x28\xb5\x2f\xfd",
            *(number.to_bytes(4, "little") for number in range(0x184D2A50, 0x184D2A60)),
        ),
        splitter=frames_of,
    ),
)

#: An archive, decoded like a compression: to its one disk.  Zeros fill its last record.
TAR: Final = Compression("tar", Tar, (), is_whole=attrgetter("whole"))

#: Number of bytes that show a compression, or an archive.
HEAD: Final = 512


def compression_of(head: bytes) -> Compression | None:
    """Return the compression format of an image by its first bytes; None if not compressed."""
    for each in FORMATS:
        if head.startswith(each.magics) and (each.first is None or each.first.match(head)):
            return each
    return TAR if is_tar(head) else None


def follows(behind: bytes) -> str | None:
    """Return the name of the format that begins behind a member; None for other bytes.

    Such bytes are no metadata: without them, the disk would lack its rest.

    :param behind: the next :data:`HEAD` bytes, or all that follow.
    """
    for name, (offset, magic, _) in CONTAINERS.items():
        if behind.startswith(magic, offset):
            return name
    # The short magics of FORMATS may also begin other bytes.
    packed = compression_of(behind)
    return packed.name if packed is not None else unread_format(behind)
