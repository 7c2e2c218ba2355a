"""The guide through a stream-optimized vmdk image, from marker to marker.

Each grain has a marker with its place on the disk and its length (VMware, Virtual Disk Format 1.1,
"Stream-Optimized Compressed Sparse Extents").  So nothing has to be read ahead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, cast

from bootvol.errors import ContainerTruncated, ImageCorrupt
from bootvol.imaging.blocks import up_to_block
from bootvol.imaging.containers import other_format
from bootvol.imaging.pieces.limits import Limits
from bootvol.imaging.pieces.pieces import BEYOND, Piece, Unusual
from bootvol.imaging.vmdk.header import ENTRY, MAGIC, SECTOR, Header, check_descriptor, parse
from bootvol.imaging.vmdk.tables import LARGEST_HEAD, Ahead, Behind, Tables

#: A marker: offset on the disk or number of sectors, length of the grain, and the kind if the
#: length is 0.  A grain begins at the place of the kind.
_MARKER: Final = struct.Struct("<QII")
_GRAIN: Final = 12


class MarkerGuide:
    """See :class:`bootvol.imaging.pieces.guide.Guide`.

    :param limits: limits of the import.
    """

    def __init__(self, limits: Limits) -> None:
        self.disk_size = self.cluster = 0
        self._limits = limits
        self._header: Header | None = None
        self._head = bytearray()
        self._tables: Tables | None = None
        self._at = 0

    @property
    def holes(self) -> Iterable[tuple[int, int]]:
        """See :class:`.Guide`."""
        return self._tables.holes if self._tables is not None else ()

    @property
    def start(self) -> int:
        """See :attr:`.Guide.start`."""
        return self._at

    def until(self, offset: int, data: memoryview) -> Sequence[Piece]:
        """See :meth:`.Guide.until`."""
        if self._header is None:
            if len(data) < SECTOR:
                return ()
            if bytes(data[: len(MAGIC)]) != MAGIC:
                raise other_format("vmdk")
            self._header = self._checked(parse(data))
        if self._tables is None:
            end = self._header.overhead * SECTOR
            self._head += data[self._at - offset : end - offset]
            self._at = len(self._head)
            if self._at < end:
                return ()
            self._tables = self._begin(self._header, bytes(self._head))
            self._head.clear()
        return tuple(self._pieces(self._header, self._tables, offset, data))

    def within_zeros(self, begin: int, end: int) -> tuple[Sequence[Piece], int]:
        """See :meth:`.Guide.within_zeros`: each byte shows where the next one belongs."""
        return (), begin

    def check(self, offset: int, data: memoryview) -> None:
        """See :meth:`.Guide.check`: no tables were read before."""

    def unpack(self, data: memoryview, target: memoryview) -> int:
        """See :meth:`.Guide.unpack`.  The last grain of a disk may be short."""
        # Import late: the import takes half a MiB, and not all daemons read such images.
        from isal import isal_zlib

        decoder = isal_zlib.decompressobj()
        try:
            # With room for one byte more, the decoder reaches the checksum at the end.
            out = decoder.decompress(data, len(target) + 1)
        except cast("type[Exception]", isal_zlib.error) as error:
            raise _refusal() from error
        if not decoder.eof or len(out) > len(target):
            raise _refusal()
        target[: len(out)] = out
        return len(out)

    def finish(self) -> None:
        """See :meth:`.Guide.finish`."""
        if self._tables is None:
            raise ContainerTruncated("The vmdk image ends within its first parts.")
        self._tables.finish()

    def _checked(self, header: Header) -> Header:
        """Return a header whose grains fit the volume and the memory."""
        self.disk_size, self.cluster = header.capacity * SECTOR, header.grain * SECTOR
        directory = header.tables * ENTRY + 2 * SECTOR
        self._limits.check(self.disk_size, self.cluster, max(self._longest, directory))
        if header.overhead * SECTOR > LARGEST_HEAD:
            raise Unusual
        return header

    @property
    def _longest(self) -> int:
        """The most bytes of a grain with its marker in the file: QEMU's limit."""
        return 2 * self.cluster

    def _begin(self, header: Header, head: bytes) -> Tables:
        """Read the part of the file before the first grain."""
        at, length = (each * SECTOR for each in header.descriptor)
        check_descriptor(head[at : at + length], header.capacity)
        return Behind(header) if header.directory is None else Ahead(header, head)

    def _pieces(
        self, header: Header, tables: Tables, offset: int, data: memoryview
    ) -> Iterator[Piece]:
        """Yield the grains that ``data`` holds whole."""
        while not tables.ended and (at := self._at - offset) + _MARKER.size <= len(data):
            value, size, kind = _MARKER.unpack_from(data, at)
            if size:
                length = self._grain_length(header, value, size)
            else:
                length = SECTOR + tables.length(kind, value)
            if at + length > len(data):
                return
            place = self._at // SECTOR
            if size:
                tables.grain(place, value)
                yield Piece(self._at + _GRAIN, size, value * SECTOR, packed=True)
            else:
                tables.metadata(place + 1, kind, data[at + SECTOR : at + length])
            self._at += up_to_block(length, SECTOR)
        if tables.ended and header.directory is not None:
            # QEMU leaves zeros behind the last grain.
            self._at = BEYOND
        elif tables.ended and self._at < offset + len(data):
            raise Unusual

    def _grain_length(self, header: Header, disk: int, size: int) -> int:
        if disk >= header.capacity:
            raise ImageCorrupt("A grain of the vmdk image lies beyond the end of the disk.")
        if _GRAIN + size > self._longest:
            raise ImageCorrupt(f"A grain of the vmdk image states a length of {size} bytes.")
        return _GRAIN + size


def _refusal() -> ImageCorrupt:
    return ImageCorrupt("A grain of the vmdk image cannot be decompressed.")
