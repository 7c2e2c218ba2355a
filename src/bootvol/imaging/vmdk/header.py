"""The header and the descriptor of a vmdk image (VMware, Virtual Disk Format 1.1)."""

from __future__ import annotations

import struct
from typing import Final

import attrs

from bootvol.errors import ImageCorrupt, ImageRefersElsewhere
from bootvol.imaging.pieces.pieces import Unusual

SECTOR: Final = 512
#: Number of entries of a table of grains; size of an entry in bytes.
ENTRIES: Final = 512
ENTRY: Final = 4

#: "Hosted Sparse Extent Header", up to `compressAlgorithm`: magicNumber, version, flags, capacity,
#: grainSize, descriptorOffset, descriptorSize, numGTEsPerGT, rgdOffset, gdOffset, overHead,
#: uncleanShutdown, the four characters that show a damaged transfer, and compressAlgorithm.
_FIELDS: Final = struct.Struct("<4sIIQQQQIQQQB4sH")
MAGIC: Final = b"KDMV"
_VERSIONS: Final = (1, 2, 3)
#: `flags`: a grain may read as zeros; the grains are compressed; markers lead through the file.
_ZERO_GRAIN, _COMPRESSED, _MARKERS = 1 << 2, 1 << 16, 1 << 17
_LINES: Final = b"\n \r\n"
_DEFLATE: Final = 1
#: In `gdOffset`: a copy of the header at the end of the file states the place.
_AT_END: Final = (1 << 64) - 1
#: The smallest grain, and the longest descriptor, in sectors.  Programs write descriptors of 20
#: sectors, and each line takes memory.
_SMALLEST: Final = 8
_LONGEST_DESCRIPTOR: Final = 64

_NO_PARENT: Final = "ffffffff"
_ACCESS: Final = ("rw", "rdonly", "noaccess")
_EXTENT_WORDS: Final = 4


@attrs.frozen
class Header:
    """The values that lead to the grains of the disk; in sectors, if not stated otherwise.

    :ivar fields: the bytes of the header, without the place of the tables.
    :ivar capacity: size of the disk.
    :ivar grain: size of a grain.
    :ivar descriptor: offset and length of the descriptor.
    :ivar directory: offset of the directory of tables; None if only the end of the file tells.
    :ivar overhead: offset of the first grain.
    :ivar zero_grains: whether an entry of 1 stands for a grain of zeros.
    """

    fields: tuple[object, ...]
    capacity: int
    grain: int
    descriptor: tuple[int, int]
    directory: int | None
    overhead: int
    zero_grains: bool

    @property
    def tables(self) -> int:
        """Number of tables of grains."""
        return -(-self.capacity // (self.grain * ENTRIES))


def parse(data: bytes | memoryview) -> Header:
    """Read a header.

    :param data: at least a sector.
    :raises bootvol.errors.ImageCorrupt: if no header of a vmdk image is there.
    :raises Unusual: if the image is of another kind than bootvol decodes.
    """
    fields = _FIELDS.unpack_from(data)
    magic, version, flags, capacity, grain, at, length, entries = fields[:8]
    directory, overhead = fields[9:11]
    if magic != MAGIC:
        raise ImageCorrupt("The vmdk image has no complete header.")
    wanted = _COMPRESSED | _MARKERS
    usual = (
        version in _VERSIONS,
        flags & wanted == wanted,
        fields[11:] == (0, _LINES, _DEFLATE),
        entries == ENTRIES,
        grain >= _SMALLEST and not grain & grain - 1,
        capacity > 0,
        0 < at < at + length <= overhead,
        length <= _LONGEST_DESCRIPTOR,
    )
    if not all(usual):
        raise Unusual
    return Header(
        (*fields[:9], *fields[10:]),
        capacity,
        grain,
        (at, length),
        None if directory == _AT_END else directory,
        overhead,
        bool(flags & _ZERO_GRAIN),
    )


def check_descriptor(text: bytes, capacity: int) -> None:
    """Check the descriptor: only the image itself may hold the disk.

    :param text: the descriptor and the zeros behind.
    :param capacity: size of the disk in sectors, as the header states.
    :raises bootvol.errors.ImageRefersElsewhere: if the image is only the difference to another.
    :raises Unusual: if the descriptor is of another kind than bootvol reads.
    """
    try:
        lines = text.partition(b"\0")[0].decode("ascii").lower().splitlines()
    except UnicodeDecodeError as error:
        raise Unusual from error
    said: dict[str, str] = {}
    extents: list[list[str]] = []
    for line in map(str.strip, lines):
        key, equals, value = line.partition("=")
        if not line or line.startswith("#"):
            continue
        if (words := line.split())[0] in _ACCESS:
            extents.append(words)
        elif equals and key.strip() not in said:
            said[key.strip()] = value.strip().strip('"')
        else:
            raise Unusual
    if said.get("parentcid", _NO_PARENT) != _NO_PARENT or "parentfilenamehint" in said:
        raise ImageRefersElsewhere("The vmdk image is only the difference to another one.")
    kind = said.get("createtype"), "parentcid" in said
    if kind != ("streamoptimized", True) or len(extents) != 1:
        raise Unusual
    words = extents[0]
    stated = words[1:3] == [str(capacity), "sparse"] and len(words) >= _EXTENT_WORDS
    if not stated or "/" in "".join(words[3:]):
        raise Unusual
