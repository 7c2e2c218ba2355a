"""The limits that decide whether bootvol or QEMU decodes an image."""

from __future__ import annotations

from typing import Final

import attrs

from bootvol.imaging.buffers import Memory
from bootvol.imaging.containers import too_large
from bootvol.imaging.pieces.pieces import Unusual
from bootvol.interfaces import Capabilities

#: Alignment of buffers in the file, in bytes, so that direct I/O can write plain pieces.
ALIGNED: Final = 4096


@attrs.frozen
class Limits:
    """The limits of one import.

    :ivar volume_size: size of the volume in bytes.
    :ivar block: block size of the volume's backend in bytes.
    :ivar largest: the most bytes of the file that have to be in memory at once.
    """

    volume_size: int
    block: int
    largest: int

    @classmethod
    def of(cls, volume_size: int, capabilities: Capabilities, memory: Memory) -> Limits:
        """Return the limits for a volume."""
        return cls(volume_size, capabilities.block_size, memory.size - ALIGNED)

    def check(self, disk_size: int, smallest: int, largest: int) -> None:
        """Check the header of an image.

        :param disk_size: size of the disk in bytes.
        :param smallest: size in bytes of the smallest part of the disk with a place of its own.
        :param largest: the most bytes of the file that belong together.
        :raises bootvol.errors.ImageTooLarge: if the volume is smaller than the disk.
        :raises Unusual: if the disk is empty, or its parts do not fit whole blocks or the memory.
        """
        if disk_size > self.volume_size:
            raise too_large(disk_size, self.volume_size)
        if not disk_size or smallest < self.block or largest > self.largest:
            raise Unusual
