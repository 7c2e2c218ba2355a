"""The L1 and L2 tables of a qcow2 image (qcow2 specification, "Cluster mapping")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bootvol.errors import ContainerTruncated, ImageCorrupt
from bootvol.imaging.pieces.limits import Limits
from bootvol.imaging.pieces.maps import Map, Read, Table, sort
from bootvol.imaging.pieces.numbers import numbers
from bootvol.imaging.pieces.pieces import Holes, Pieces, Unusual
from bootvol.imaging.qcow2.clusters import ZstdClusters, inflate
from bootvol.imaging.qcow2.header import HEADER, Header, parse
from bootvol.threads import Threads

#: In an entry of the L1 table, or of the L2 table for a cluster that is not compressed.
_PLACE: Final = 0x00FF_FFFF_FFFF_FE00
#: In an L2 entry: the cluster is compressed; the cluster reads as zeros (version 3).
_COMPRESSED: Final = 1 << 62
_ZERO: Final = 1
#: An extended L2 entry has a second number: 32 bits for allocated subclusters, 32 for zeros.
_SUBCLUSTERS: Final = 32
_ALL: Final = (1 << _SUBCLUSTERS) - 1
_SECTOR: Final = 512
#: Size of an entry of the L1 table in bytes.
_ENTRY: Final = 8

#: The most L2 tables of an image: 128 GiB with 64 KiB clusters.  A source may need a connection for
#: each table.
_MOST_TABLES: Final = 256


async def read_map(head: bytes, size: int, read: Read, limits: Limits, threads: Threads) -> Map:
    """Read the tables of an image.

    Reference counts, snapshots and bitmaps are not read: the disk does not depend on them.

    :param head: the first bytes of the file, at least :data:`HEADER` or all of a shorter file.
    :param size: size of the file in bytes.
    :param read: reads a part of the file.
    :raises bootvol.errors.ImportFailed: as :func:`.parse`.
    :raises bootvol.errors.ImageTooLarge: if the volume is smaller than the disk.
    :raises bootvol.errors.ContainerTruncated: if a table or data lies beyond the file's end.
    :raises bootvol.errors.ImageCorrupt: if an entry breaks the specification.
    :raises Unusual: if the memory or time for one image does not suffice, or if parts of the file
        overlap.
    """
    header = parse(head)
    # A compressed cluster may take twice its size in the file, by its entry.
    limits.check(header.disk_size, header.subcluster, 2 * header.cluster)
    length = header.l1_entries * _ENTRY
    if header.l1_offset + length > size:
        raise ContainerTruncated("The L1 table of the qcow2 image extends beyond the image's end.")
    l1 = await read(header.l1_offset, length)
    reader = _Reader(header, size)
    tables = [Table.of(header.l1_offset, l1)]
    for index, count, place in await threads.run(_entries, l1):
        if place:
            reader.check(place, header.cluster)
            table = await read(place, header.cluster)
            tables.append(Table.of(place, table))
            await threads.run(reader.take, index, table)
        else:
            reader.hole(index, count)
    regions = [(0, header.cluster), header.refcounts, *((at.start, at.length) for at in tables)]
    await threads.run(sort, reader.pieces, regions)
    begin = Table.of(0, head[:HEADER])
    return Map(
        size,
        header.disk_size,
        header.cluster,
        reader.pieces,
        reader.holes,
        (begin, *tables),
        ZstdClusters().decompress if header.zstd else inflate,
    )


def _entries(l1: bytes) -> list[tuple[int, int, int]]:
    """Return index, number and offset of the L1 table's entries.  Blocks.

    Successive entries without an L2 table, whose offset is 0, become one.
    """
    found: list[tuple[int, int, int]] = []
    seen: set[int] = set()
    first = 0
    for index, entry in enumerate(numbers(l1, "Q", "big")):
        if place := entry & _PLACE:
            if place in seen or len(seen) == _MOST_TABLES:
                raise Unusual
            seen.add(place)
            if index > first:
                found.append((first, index - first, 0))
            found.append((index, 1, place))
            first = index + 1
    if first < len(l1) // _ENTRY:
        found.append((first, len(l1) // _ENTRY - first, 0))
    return found


class _Reader:
    """Turns the entries of L2 tables into pieces and holes, in the order of the disk."""

    def __init__(self, header: Header, size: int) -> None:
        self.pieces, self.holes = Pieces(), Holes()
        self._header = header
        self._size = size
        self._covered = header.cluster * (header.cluster // header.entry)
        # Bits of the offset in the entry of a compressed cluster.
        self._bits = 62 - (header.cluster_bits - 8)

    def hole(self, index: int, count: int) -> None:
        """Note that ``count`` entries of the L1 table, from ``index`` on, lead to no data."""
        start = index * self._covered
        self.holes.add(start, min(count * self._covered, self._header.disk_size - start))

    def check(self, place: int, length: int) -> None:
        """Check where a cluster lies in the file."""
        if place % self._header.cluster:
            raise ImageCorrupt("The qcow2 image refers to a place within a cluster.")
        if place + length > self._size:
            raise self._truncated()

    def take(self, index: int, table: bytes) -> None:
        """Read an L2 table.  Blocks.

        :param index: index of its entry in the L1 table.
        """
        header, disk = self._header, index * self._covered
        if not table.strip(b"\0"):
            self.hole(index, 1)
            return
        entries = numbers(table, "Q", "big")
        pairs = zip(entries[::2], entries[1::2], strict=True) if header.extended else None
        for entry, bitmap in pairs or ((each, None) for each in entries):
            length = min(header.cluster, header.disk_size - disk)
            if length <= 0:
                break
            if entry & _COMPRESSED:
                self._compressed(entry, disk)
            elif bitmap is None:
                self._plain(entry, disk, length)
            else:
                self._extended(entry, bitmap, disk, length)
            disk += length

    def _compressed(self, entry: int, disk: int) -> None:
        """Note a compressed cluster: see "Compressed Clusters Descriptor"."""
        start = entry & ((1 << self._bits) - 1)
        sectors = (entry & (_COMPRESSED - 1)) >> self._bits
        if start >= self._size:
            raise self._truncated()
        length = (sectors + 1) * _SECTOR - start % _SECTOR
        # The last sector may be incomplete.
        self.pieces.add(start, min(length, self._size - start), disk, packed=True)

    def _truncated(self) -> ContainerTruncated:
        return ContainerTruncated(
            f"The image has {self._size} bytes, but refers to parts beyond its end."
        )

    def _plain(self, entry: int, disk: int, length: int) -> None:
        place = entry & _PLACE
        if entry & _ZERO and self._header.version < 3:
            raise ImageCorrupt("The qcow2 image of version 2 has a cluster of version 3.")
        if entry & _ZERO or not place:
            self.holes.add(disk, length)
        else:
            self.check(place, length)
            self.pieces.add(place, length, disk, packed=False)

    def _extended(self, entry: int, bitmap: int, disk: int, length: int) -> None:
        """Note the subclusters of a cluster (qcow2 specification, "Extended L2 Entries")."""
        place, data, zeros = entry & _PLACE, bitmap & _ALL, bitmap >> _SUBCLUSTERS
        if data & zeros or (data and not place):
            raise ImageCorrupt("The qcow2 image has a subcluster with contradictory states.")
        for start, end, allocated in _runs(data):
            at, most = start * self._header.subcluster, end * self._header.subcluster
            size = min(most, length) - at
            if size <= 0:
                break
            if allocated:
                self.check(place, at + size)
                self.pieces.add(place + at, size, disk + at, packed=False)
            else:
                self.holes.add(disk + at, size)


def _runs(bits: int) -> Iterator[tuple[int, int, bool]]:
    """Yield begin, end and value of the runs of equal bits among 32 bits, from the lowest."""
    start = 0
    while start < _SUBCLUSTERS:
        value = bits >> start & 1
        rest = bits >> start ^ (-value & _ALL >> start)
        length = (rest & -rest).bit_length() - 1 if rest else _SUBCLUSTERS - start
        yield start, start + length, bool(value)
        start += length
