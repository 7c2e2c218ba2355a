"""The pieces of an image: which bytes of the file belong where on the disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

import attrs

#: The most pieces of an image.  With 64 KiB clusters, 64 GiB of compressed data.
MOST: Final = 1024 * 1024

#: An offset behind the end of any file: entries of tables have at most 62 bits.
BEYOND: Final = 1 << 62

#: Marks the length of a compressed piece.
_PACKED: Final = 1 << 63


class Unusual(Exception):
    """The image is too large or too odd for this decoder: QEMU has to read the image."""


@attrs.frozen
class Piece:
    """Consecutive bytes of the file, and their place on the disk; in bytes.

    :ivar start: offset in the file.
    :ivar length: length in the file.
    :ivar disk: offset on the disk.
    :ivar packed: whether the bytes are one compressed cluster or grain.
    """

    start: int
    length: int
    disk: int
    packed: bool

    @property
    def end(self) -> int:
        """Offset behind the piece in the file, in bytes."""
        return self.start + self.length


class Pieces:
    """The pieces of one image, in 24 bytes of memory each.

    :raises Unusual: if the image has more than :data:`MOST`.
    """

    def __init__(self) -> None:
        self._starts, self._lengths, self._disks = array("Q"), array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, length: int, disk: int, *, packed: bool) -> None:
        """Add a piece.  Consecutive plain pieces become one."""
        if packed:
            length |= _PACKED
        elif self._starts:
            before = self._lengths[-1]
            if start == self._starts[-1] + before and disk == self._disks[-1] + before:
                self._lengths[-1] += length
                return
        if len(self._starts) == MOST:
            raise Unusual
        self._starts.append(start)
        self._lengths.append(length)
        self._disks.append(disk)

    def sort(self) -> None:
        """Sort the pieces by their offsets in the file.  Blocks."""
        starts = self._starts
        if all(starts[at] <= starts[at + 1] for at in range(len(starts) - 1)):
            return
        order = sorted(range(len(starts)), key=starts.__getitem__)
        self._starts, self._lengths, self._disks = (
            array("Q", (each[at] for at in order)) for each in (starts, self._lengths, self._disks)
        )

    def __iter__(self) -> Iterator[Piece]:
        for start, length, disk in zip(self._starts, self._lengths, self._disks, strict=True):
            yield Piece(start, length & ~_PACKED, disk, bool(length & _PACKED))


class Holes:
    """The parts of the disk without data, in the order of the disk."""

    def __init__(self) -> None:
        self._starts, self._ends = array("Q"), array("Q")

    def add(self, disk: int, length: int) -> None:
        """Add a part; consecutive parts become one.

        :raises Unusual: if the image has more than :data:`MOST`.
        """
        if self._ends and self._ends[-1] == disk:
            self._ends[-1] += length
            return
        if len(self._starts) == MOST:
            raise Unusual
        self._starts.append(disk)
        self._ends.append(disk + length)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield offset and length of each part, in bytes."""
        for start, end in zip(self._starts, self._ends, strict=True):
            yield start, end - start
