"""Turns the bytes of an image's file, in their order, into writes to the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from bootvol.errors import ImageCorrupt
from bootvol.imaging.blocks import Run, runs, up_to_block
from bootvol.imaging.pieces.guide import Guide
from bootvol.imaging.pieces.pieces import Piece


@attrs.frozen
class Portion:
    """A part of the file with the whole pieces in it.

    :ivar buffer: a whole buffer of the pool, with the bytes at its start.
    :ivar start: offset of the first byte of ``buffer`` in the file.
    :ivar pieces: the pieces that the buffer holds whole.
    """

    buffer: memoryview
    start: int
    pieces: tuple[Piece, ...]


@attrs.frozen
class Write:
    """Bytes for the disk.

    :ivar disk: offset on the disk, in bytes.
    :ivar data: whole blocks.
    :ivar runs: the zeros and the data in ``data``.
    """

    disk: int
    data: memoryview
    runs: tuple[Run, ...]


class Decoder:
    """The decoder of portions.

    :param guide: the guide of the image.
    :param block: block size of the destination in bytes.
    """

    def __init__(self, guide: Guide, block: int) -> None:
        self._guide = guide
        self._block = block

    def writes(self, portion: Portion, room: memoryview) -> Iterator[Sequence[Write]]:
        """Yield the writes of a portion, in groups.  Each step blocks.

        The next step reuses ``room``: the writes of the group before must have ended.

        :param room: memory for decompressed clusters, at least one cluster.
        :raises bootvol.errors.ImageCorrupt: if a cluster cannot be decompressed.
        """
        group: list[Write] = []
        filled = began = disk = 0
        for piece in portion.pieces:
            data = portion.buffer[piece.start - portion.start : piece.end - portion.start]
            length = self._length(piece)
            aligned = up_to_block(length, self._block)
            if not piece.packed and aligned == length:
                group.append(_write(piece.disk, data))
                continue
            if filled > began and piece.disk != disk + filled - began:
                group.append(_write(disk, room[began:filled]))
                began = filled
            if filled + max(self._guide.cluster, aligned) > len(room):
                if filled > began:
                    group.append(_write(disk, room[began:filled]))
                yield group
                group, filled, began = [], 0, 0
            if filled == began:
                disk = piece.disk
            if piece.packed:
                target = room[filled : filled + self._guide.cluster]
                if self._guide.unpack(data, target) < length:
                    raise ImageCorrupt("A compressed part of the image is too short.")
            else:
                room[filled : filled + length] = data
            room[filled + length : filled + aligned] = bytes(aligned - length)
            filled += aligned
        if filled > began:
            group.append(_write(disk, room[began:filled]))
        yield group

    def _length(self, piece: Piece) -> int:
        """Return the length of a piece on the disk, which may end within its last cluster."""
        length = self._guide.cluster if piece.packed else piece.length
        return min(length, self._guide.disk_size - piece.disk)


def _write(disk: int, data: memoryview) -> Write:
    return Write(disk, data, tuple(runs(data)))
