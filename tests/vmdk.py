"""Writes vmdk images as VMware and VirtualBox stream them: QEMU reads such images only."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import attrs

SECTOR = 512
#: Number of entries of a table.
ENTRIES = 512
END, TABLE, DIRECTORY, FOOTER = range(4)
_AT_END = (1 << 64) - 1
_DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=62d1207f
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RDONLY {capacity} SPARSE "disk.vmdk"

# The disk Data Base
ddb.adapterType = "lsilogic"
"""


@attrs.frozen
class Streamed:
    """The form of an image.

    :ivar grain: size of a grain in sectors.
    :ivar late: whether all tables come behind all grains, and not behind their own grains.
    :ivar empty: whether tables without grains are written, too.
    :ivar zeros: whether entries of 1 stand for missing grains.
    :ivar short: whether the last grain ends with the disk.
    :ivar version: version of the format.
    """

    grain: int = 128
    late: bool = False
    empty: bool = False
    zeros: bool = False
    short: bool = False
    version: int = 1

    def header(self, capacity: int, directory: int) -> bytes:
        """Return the header.

        :param capacity: size of the disk in sectors.
        :param directory: place of the directory of tables, in sectors.
        """
        flags = 0x30001 | (self.zeros << 2)
        fields = b"KDMV", self.version, flags, capacity, self.grain, 1, 20, ENTRIES, 0, directory
        return struct.pack("<4sIIQQQQIQQQB4sH", *fields, 128, 0, b"\n \r\n", 1).ljust(SECTOR, b"\0")

    def image(self, disk: bytes, first: bytes | None = None) -> bytes:
        """Return an image of a disk.  Grains of zeros are left out.

        :param first: the first grain with its marker, if other than the right one.
        """
        capacity = len(disk) // SECTOR
        out = bytearray(self.header(capacity, _AT_END))
        out += _DESCRIPTOR.format(capacity=capacity).encode().ljust(127 * SECTOR, b"\0")
        size = self.grain * SECTOR
        count = -(-len(disk) // (size * ENTRIES))
        tables = [[int(self.zeros)] * ENTRIES for _ in range(count)]
        directory = [0] * count
        for index in range(count):
            for entry in range(ENTRIES):
                at = (index * ENTRIES + entry) * size
                if any(data := disk[at : at + size]):
                    tables[index][entry] = len(out) // SECTOR
                    data = data if self.short else data.ljust(size, b"\0")
                    out += grain(at // SECTOR, data) if at or first is None else padded(first)
            if not self.late:
                directory[index] = self._table(out, tables[index])
        if self.late:
            directory = [self._table(out, table) for table in tables]
        place = metadata(out, DIRECTORY, struct.pack(f"<{count}I", *directory))
        metadata(out, FOOTER, self.header(capacity, place))
        metadata(out, END, b"")
        return bytes(out)

    def _table(self, out: bytearray, table: Sequence[int]) -> int:
        """Append a table, and return its place in sectors: 0 for none."""
        if not self.empty and not any(each > 1 for each in table):
            return 0
        return metadata(out, TABLE, struct.pack(f"<{ENTRIES}I", *table))


def grain(place: int, data: bytes) -> bytes:
    """Return a grain with its marker.

    :param place: place on the disk, in sectors.
    """
    packed = zlib.compress(data, 1)
    return padded(struct.pack("<QI", place, len(packed)) + packed)


def metadata(out: bytearray, kind: int, data: bytes) -> int:
    """Append a marker and the sectors behind it; return their place in sectors."""
    out += padded(struct.pack("<QII", len(padded(data)) // SECTOR, 0, kind))
    place = len(out) // SECTOR
    out += padded(data)
    return place


def padded(data: bytes) -> bytes:
    """Return ``data`` with zeros up to a whole number of sectors."""
    return data + bytes(-len(data) % SECTOR)
