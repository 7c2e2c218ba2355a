"""The tables of a stream-optimized vmdk image, which must agree with the markers.

The markers alone lead to the disk, but other programs follow the tables.  If both disagree, the
image is damaged or hostile, and QEMU decides.  Some programs write the tables before the grains
(QEMU), others behind (VMware, VirtualBox): see :class:`Ahead` and :class:`Behind`.
"""

from __future__ import annotations

from array import array
from typing import Final, Protocol

from bootvol.errors import ContainerTruncated
from bootvol.imaging.pieces.numbers import numbers
from bootvol.imaging.pieces.pieces import Holes, Unusual
from bootvol.imaging.vmdk.header import ENTRIES, ENTRY, SECTOR, Header, parse

#: The most bytes before the first grain.  QEMU's tables for 128 GiB, in grains of 64 KiB.
LARGEST_HEAD: Final = 16 * 1024 * 1024
#: The most tables whose grains have come before them: data of 128 GiB.
_MOST_OPEN: Final = 4096
#: The most tables: disks of 2 TiB.
_MOST: Final = 64 * 1024

#: Kinds of markers (section "Stream-Optimized Compressed Sparse Extents").
END, TABLE, DIRECTORY, FOOTER = range(4)


class Tables(Protocol):
    """The tables of one image.  All offsets in sectors.

    :ivar holes: the parts of the disk without a grain.  Complete once :attr:`ended` is true.
    :ivar ended: whether no further grain may come.
    """

    holes: Holes
    ended: bool

    def grain(self, place: int, disk: int) -> None:
        """Note a grain.

        :param place: offset in the file.
        :param disk: offset on the disk, which is smaller than the disk's size.
        :raises Unusual: if the tables tell otherwise.
        """

    def length(self, kind: int, value: int) -> int:
        """Return the length in bytes of what follows a marker of no grain.

        :param value: number of sectors, as the marker states.
        :raises Unusual: if no such marker can be here.
        """

    def metadata(self, place: int, kind: int, data: memoryview) -> None:
        """Read what follows a marker of no grain.

        :param place: offset of ``data`` in the file.
        :raises Unusual: if the grains tell otherwise.
        """

    def finish(self) -> None:
        """Check that no grain and no table is missing.

        :raises bootvol.errors.ContainerTruncated: if the file ended too soon.
        """


class Ahead:
    """Tables before the grains: the tables tell where the grains have to be.

    :param head: the file up to the first grain.
    :raises Unusual: if the tables do not lie in ``head``, or are one.
    """

    def __init__(self, header: Header, head: bytes) -> None:
        self.holes = Holes()
        self._header = header
        self._tables: dict[int, array[int]] = {}
        self._missing = 0
        directory = _part(head, header.directory or 0, header.tables * ENTRY)
        seen: set[int] = set()
        for index, place in enumerate(numbers(directory, "I", "little")):
            if place in seen:
                raise Unusual
            if place:
                seen.add(place)
                table = numbers(_part(head, place, ENTRIES * ENTRY), "I", "little")
                self._take(index, _known(table, zero_grains=header.zero_grains))
            else:
                self._hole(index * ENTRIES, ENTRIES)
        self.ended = not self._missing

    def _take(self, index: int, table: array[int]) -> None:
        first = index * ENTRIES
        if not any(table):
            self._hole(first, ENTRIES)
            return
        # QEMU ignores entries behind the disk's end.
        del table[-(-self._header.capacity // self._header.grain) - first :]
        self._tables[index] = table
        for at, place in enumerate(table):
            if place:
                self._missing += 1
            else:
                self._hole(first + at, 1)

    def _hole(self, first: int, count: int) -> None:
        start, end = (each * self._header.grain for each in (first, first + count))
        self.holes.add(start * SECTOR, (min(end, self._header.capacity) - start) * SECTOR)

    def grain(self, place: int, disk: int) -> None:
        """See :meth:`Tables.grain`."""
        number, rest = divmod(disk, self._header.grain)
        index, entry = divmod(number, ENTRIES)
        if rest or index not in self._tables or self._tables[index][entry] != place:
            raise Unusual
        self._tables[index][entry] = 0
        self._missing -= 1
        self.ended = not self._missing

    def length(self, kind: int, value: int) -> int:
        """See :meth:`Tables.length`."""
        raise Unusual

    def metadata(self, place: int, kind: int, data: memoryview) -> None:
        """See :meth:`Tables.metadata`: no such marker is accepted."""

    def finish(self) -> None:
        """See :meth:`Tables.finish`."""
        if self._missing:
            raise ContainerTruncated(
                f"The vmdk image has ended, but {self._missing} of its grains are missing."
            )


class Behind:
    """Tables behind their grains, the directory of the tables, the footer, and the end."""

    def __init__(self, header: Header) -> None:
        self.holes = Holes()
        self.ended = False
        self._header = header
        # Offset on the disk behind the last grain.
        self._next = 0
        # The tables that have to come, by their index: in the order of the grains.
        self._open: dict[int, array[int]] = {}
        # The tables that have come: their indexes by their places; None for a table without grains.
        self._found: dict[int, int | None] = {}
        self._directory: int | None = None
        self._has_footer = False

    def grain(self, place: int, disk: int) -> None:
        """See :meth:`Tables.grain`.  Grains come in the order of the disk."""
        number, rest = divmod(disk, self._header.grain)
        if rest or disk < self._next or self._directory is not None or place >> 32:
            raise Unusual
        self._hole(disk)
        self._next = disk + self._header.grain
        index, entry = divmod(number, ENTRIES)
        if index not in self._open:
            if len(self._open) == _MOST_OPEN:
                raise Unusual
            self._open[index] = array("I", bytes(ENTRIES * ENTRY))
        self._open[index][entry] = place

    def _hole(self, end: int) -> None:
        if self._next < end:
            self.holes.add(self._next * SECTOR, (end - self._next) * SECTOR)

    def length(self, kind: int, value: int) -> int:
        """See :meth:`Tables.length`."""
        lengths = {
            END: 0,
            TABLE: ENTRIES * ENTRY // SECTOR,
            DIRECTORY: -(-self._header.tables * ENTRY // SECTOR),
            FOOTER: 1,
        }
        # QEMU wants one directory, and the end right behind the footer.
        twice = kind == DIRECTORY and self._directory is not None
        if lengths.get(kind) != value or twice or (self._has_footer and kind != END):
            raise Unusual
        return value * SECTOR

    def metadata(self, place: int, kind: int, data: memoryview) -> None:
        """See :meth:`Tables.metadata`."""
        if kind == TABLE:
            self._table(
                place, _known(numbers(data, "I", "little"), zero_grains=self._header.zero_grains)
            )
        elif kind == DIRECTORY:
            self._check_directory(numbers(data, "I", "little")[: self._header.tables])
            self._directory = place
        elif kind == FOOTER:
            footer = parse(data)
            stated = footer.directory
            if stated is None or footer.fields != self._header.fields or stated != self._directory:
                raise Unusual
            self._has_footer = True
        else:
            if not self._has_footer:
                raise Unusual
            self._hole(self._header.capacity)
            self.ended = True

    def _table(self, place: int, table: array[int]) -> None:
        if len(self._found) == _MOST:
            raise Unusual
        self._found[place] = None
        if any(table):
            index = next(iter(self._open), None)
            if index is None or self._open.pop(index) != table:
                raise Unusual
            self._found[place] = index

    def _check_directory(self, directory: array[int]) -> None:
        """Check that each table is in its place in the directory."""
        for index, place in enumerate(directory):
            if place and self._found.pop(place, -1) not in (index, None):
                raise Unusual
        if self._open or any(index is not None for index in self._found.values()):
            raise Unusual

    def finish(self) -> None:
        """See :meth:`Tables.finish`."""
        if not self.ended:
            raise ContainerTruncated(
                "The vmdk image is incomplete: its footer or its end-of-stream marker is missing."
            )


def _part(head: bytes, place: int, length: int) -> bytes:
    """Return ``length`` bytes at the sector ``place``.

    :raises Unusual: if ``head`` does not have them.
    """
    part = head[place * SECTOR : place * SECTOR + length]
    if len(part) < length:
        raise Unusual
    return part


def _known(table: array[int], *, zero_grains: bool) -> array[int]:
    """Return a table whose entry is 0 for each grain that reads as zeros."""
    return array("I", (0 if each == 1 else each for each in table)) if zero_grains else table
