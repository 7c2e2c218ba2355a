"""Guides for formats whose tables are read before the file: see :mod:`bootvol.imaging.placing`."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from operator import attrgetter
from typing import Final

import attrs

from bootvol.imaging.chunk_index import CHUNK
from bootvol.imaging.pieces.guide import TablesChanged
from bootvol.imaging.pieces.pieces import BEYOND, Holes, Piece, Pieces, Unusual

#: Reads exactly `length` bytes at `offset` of the image.
Read = Callable[[int, int], Awaitable[bytes]]

#: Compressed clusters share the sector where one ends and the next begins.
_SECTOR: Final = 512
#: The most pieces that begin within so many bytes.  A portion of the file is in memory with its
#: pieces, and a piece takes almost 200 bytes.
_MOST_NEAR: Final = 4096
_NEAR: Final = 1024 * 1024


@attrs.frozen
class Table:
    """A table of the image, to recognize the same bytes when the whole file arrives.

    :ivar start: offset in the file, in bytes.
    :ivar length: bytes.
    :ivar digest: sha256 of the bytes.  Strangers write the tables, so a weak hash would not do.
    """

    start: int
    length: int
    digest: bytes

    @classmethod
    def of(cls, start: int, data: bytes) -> Table:
        """Return the table with the bytes ``data``.  Blocks."""
        return cls(start, len(data), hashlib.sha256(data).digest())

    @property
    def end(self) -> int:
        """Offset behind the table in the file, in bytes."""
        return self.start + self.length


@attrs.frozen
class Map:
    """All that leads from the file to the disk.

    :ivar size: size of the file in bytes.
    :ivar disk_size: size of the disk in bytes.
    :ivar cluster: size in bytes of a compressed piece on the disk.
    :ivar pieces: the data, by its offsets in the file.
    :ivar holes: the parts of the disk that read as zeros.
    :ivar tables: the tables by their offsets in the file.
    :ivar unpack: see :meth:`.Guide.unpack`.
    """

    size: int
    disk_size: int
    cluster: int
    pieces: Pieces
    holes: Holes
    tables: tuple[Table, ...]
    unpack: Callable[[memoryview, memoryview], int]


def no_packed(data: memoryview, target: memoryview) -> int:
    """Stand for :attr:`Map.unpack` in formats without compressed pieces."""
    raise NotImplementedError


def sort(pieces: Pieces, regions: Sequence[tuple[int, int]]) -> None:
    """Sort pieces by the file, and check that no two parts of the file overlap.  Blocks.

    Overlaps come from damage or malice, like two tables that lead to one cluster.  Only compressed
    clusters share a sector, with the compressed clusters before and after.

    :param regions: offsets and lengths of the parts that are no pieces, in bytes.
    :raises Unusual: if parts overlap, or pieces are too dense.
    """
    pieces.sort()
    near: deque[int] = deque(maxlen=_MOST_NEAR)
    taken = _ends(sorted(region for region in regions if region[1]))
    start, end = next(taken)
    last, before, was_packed = -1, 0, False
    for piece in pieces:
        while end <= piece.start:
            start, end = next(taken)
        shared = _SECTOR - 1 if piece.packed and was_packed else 0
        if start < piece.end or piece.start < before - shared or piece.start == last:
            raise Unusual
        if len(near) == _MOST_NEAR and piece.start < near[0] + _NEAR:
            raise Unusual
        near.append(piece.start)
        last, before, was_packed = piece.start, max(before, piece.end), piece.packed


def _ends(regions: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each region, and a last region that no piece reaches."""
    before = 0
    for start, length in regions:
        if start < before:
            raise Unusual
        before = start + length
        yield start, before
    yield BEYOND, BEYOND


class MapGuide:
    """The guide along a map: see :class:`bootvol.imaging.pieces.guide.Guide`.

    :param mapped: the map of the image.
    :param unit: plain pieces may be split at multiples of this many bytes.
    """

    def __init__(self, mapped: Map, unit: int) -> None:
        self.disk_size = mapped.disk_size
        self.cluster = mapped.cluster
        self.holes = mapped.holes
        self._tables = _TableCheck(mapped.tables)
        self._unpack = mapped.unpack
        self._unit = unit
        self._chunk = max(CHUNK, unit)
        self._pieces = iter(mapped.pieces)
        self._next = next(self._pieces, None)

    @property
    def start(self) -> int:
        """Offset of the next piece in the file; beyond any file if all pieces have arrived."""
        return self._next.start if self._next is not None else BEYOND

    def until(self, offset: int, data: memoryview) -> Sequence[Piece]:
        """See :meth:`.Guide.until`."""
        return tuple(self._until(offset + len(data)))

    def within_zeros(self, begin: int, end: int) -> tuple[Sequence[Piece], int]:
        """See :meth:`.Guide.within_zeros`."""
        if self.start < begin:
            # A piece has begun before the zeros.
            return (), begin
        end = min(end, self._tables.next_start(begin))
        pieces = tuple(self._until(end, plain=True))
        return pieces, max(begin, min(end, self.start))

    def check(self, offset: int, data: memoryview) -> None:
        """See :meth:`.Guide.check`."""
        self._tables.take(offset, data)

    def unpack(self, data: memoryview, target: memoryview) -> int:
        """See :meth:`.Guide.unpack`."""
        return self._unpack(data, target)

    def finish(self) -> None:
        """See :meth:`.Guide.finish`: the map was checked before."""

    def _until(self, end: int, *, plain: bool = False) -> Iterator[Piece]:
        """Yield the pieces for which the bytes before ``end`` suffice.

        :param plain: whether to stop before the first compressed piece.
        """
        while (piece := self._next) is not None and not (plain and piece.packed):
            if piece.end > end:
                part = self._part(piece, end)
                if part is not None:
                    yield part
                return
            self._next = next(self._pieces, None)
            yield piece

    def _part(self, piece: Piece, end: int) -> Piece | None:
        """Return the part before ``end`` of a plain piece, and keep the rest."""
        if piece.packed:
            return None
        has = max(0, end - piece.start)
        # A volume with a base compares whole chunks of the disk, and writes the others.
        length = (piece.disk + has) // self._chunk * self._chunk - piece.disk
        if length <= 0:
            length = has // self._unit * self._unit
        if not length:
            return None
        self._next = attrs.evolve(
            piece,
            start=piece.start + length,
            length=piece.length - length,
            disk=piece.disk + length,
        )
        return attrs.evolve(piece, length=length)


class _TableCheck:
    """Compares the tables in the arriving file with the tables of the map.

    Without this check, a source that changes its image would mix two images unnoticed: the digest
    covers the file as it arrives, and not the tables that were read before.

    :param tables: the tables by their offsets.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = sorted(tables, key=attrgetter("start"))
        self._first = self._ahead = 0
        self._hashes: dict[int, hashlib._Hash] = {}

    def next_start(self, offset: int) -> int:
        """Return where the first table begins that ends behind ``offset``; else :data:`BEYOND`.

        :param offset: bytes in the file, not smaller than in the last call.
        """
        tables = self._tables
        while self._ahead < len(tables) and tables[self._ahead].end <= offset:
            self._ahead += 1
        return tables[self._ahead].start if self._ahead < len(tables) else BEYOND

    def take(self, offset: int, data: memoryview) -> None:
        """Check the next bytes of the file.  Blocks.

        :raises TablesChanged: if a table ends here, and differs.
        """
        end = offset + len(data)
        for at in range(self._first, len(self._tables)):
            table = self._tables[at]
            if table.start >= end:
                break
            hashed = self._hashes.setdefault(at, hashlib.sha256())
            hashed.update(data[max(0, table.start - offset) : max(0, table.end - offset)])
            if offset < table.end <= end and hashed.digest() != table.digest:
                raise TablesChanged
        while self._first < len(self._tables) and self._tables[self._first].end <= end:
            self._hashes.pop(self._first, None)
            self._first += 1
