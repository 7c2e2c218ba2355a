"""The common interface of the formats that a copy decodes while the image arrives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from bootvol.imaging.pieces.pieces import Piece


class TablesChanged(Exception):
    """The tables in the file differ from the tables that were read before: the image changed."""


class Guide(Protocol):
    """Leads a copy through the file of one image, once and in order.

    One thread at a time calls the methods, except for :meth:`check` and :meth:`unpack`: other
    threads may call these two meanwhile.

    :ivar disk_size: size of the disk in bytes; 0 until the header has arrived.
    :ivar cluster: size in bytes of a compressed piece on the disk, after the decompression.
    :ivar holes: the parts of the disk without data, as offsets and lengths in bytes.  Complete
        after :meth:`finish`.
    """

    disk_size: int
    cluster: int

    @property
    def holes(self) -> Iterable[tuple[int, int]]:
        """See above."""

    @property
    def start(self) -> int:
        """Offset in the file of the first byte that the next :meth:`until` needs."""

    def until(self, offset: int, data: memoryview) -> Sequence[Piece]:
        """Return the next pieces that ``data`` holds whole.  Blocks.

        A plain piece may come in parts.

        :param offset: offset of ``data`` in the file: at most :attr:`start`.
        :raises bootvol.imaging.pieces.pieces.Unusual: if QEMU has to read the image.
        :raises bootvol.errors.ImportFailed: if the image is broken.
        """

    def within_zeros(self, begin: int, end: int) -> tuple[Sequence[Piece], int]:
        """Return the next pieces in a part of the file that is known to be zeros.

        :returns: the pieces, and the end of the part that need not be read: ``begin`` if all of the
            part has to be read.
        """

    def check(self, offset: int, data: memoryview) -> None:
        """Check bytes of the file that no piece has.  Blocks.

        Calls come in the order of the file, and cover each byte that is read.

        :raises TablesChanged: if the file has other tables than before.
        """

    def unpack(self, data: memoryview, target: memoryview) -> int:
        """Decompress one piece.  Blocks, without the interpreter's lock.

        :param data: the bytes of the piece.
        :param target: receives the piece; as long as :attr:`cluster`.
        :returns: number of bytes in ``target``.
        :raises bootvol.errors.ImageCorrupt: if the piece cannot be decompressed.
        """

    def finish(self) -> None:
        """Check that the whole image has come.  Blocks.

        :raises bootvol.errors.ImageCorrupt: if a part is missing.
        :raises bootvol.imaging.pieces.pieces.Unusual: if QEMU has to read the image.
        """
