"""A logical volume from a report of LVM, and the volume's device."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from bootvol.errors import BackendFailed

#: The tag of bootvol's volumes.
TAG: Final = "bootvol"
#: The prefix of their names. LVM reserves names that begin with ``snapshot`` and some others.
PREFIX: Final = "bootvol-"
#: The tag of a volume that becomes larger: its former size in bytes follows.
CONTENT: Final = "bootvol.content="
#: The fields of a report on volumes.
FIELDS: Final = (
    "lv_path",
    "lv_size",
    "lv_tags",
    "lv_uuid",
    "vg_uuid",
    "vg_extent_size",
    "lv_kernel_major",
    "lv_kernel_minor",
    "lv_device_open",
)
# From linux/fs.h.
_BLKGETSIZE64: Final = 0x80081272
_BLKDISCARD: Final = 0x1277
_BLKZEROOUT: Final = 0x127F


@attrs.frozen
class Found:
    """A logical volume.

    :ivar path: the path by which people and hypervisors open the volume.
    :ivar size: size in bytes.
    :ivar extent: the group's extent size in bytes.
    :ivar ours: True if the volume has bootvol's tag.
    :ivar number: major and minor number of the device; None while the volume is inactive.
    :ivar uuid: UUID of the device.
    :ivar is_open: True if the device is open.
    :ivar content: the former size in bytes of a volume that becomes larger; None for any other
        volume.  What follows may be old data of others.
    """

    path: str
    size: int
    extent: int
    ours: bool
    number: tuple[int, int] | None
    uuid: str
    is_open: bool
    content: int | None

    @classmethod
    def of_row(cls, row: Mapping[str, str]) -> Found:
        """Return the volume of a report's row."""
        number = int(row["lv_kernel_major"]), int(row["lv_kernel_minor"])
        tags = row["lv_tags"].split(",")
        begun = [int(tag.removeprefix(CONTENT)) for tag in tags if tag.startswith(CONTENT)]
        return cls(
            row["lv_path"],
            int(row["lv_size"]),
            int(row["vg_extent_size"]),
            TAG in tags,
            number if number[0] >= 0 else None,
            "LVM-" + (row["vg_uuid"] + row["lv_uuid"]).replace("-", ""),
            row["lv_device_open"] == "open",
            min(begun, default=None),
        )

    def whole(self, size: int) -> int:
        """Return ``size`` rounded up to whole extents, in bytes, as LVM rounds."""
        return -(-size // self.extent) * self.extent

    def open(self, flags: int) -> int:
        """Open the device; return its descriptor. Blocks.

        :raises OSError: if the device cannot be opened.
        :raises BackendFailed: if the opened device is not this volume.
        """
        # The links may come from udev or LVM. The check below tests the opened device itself.
        path = os.path.realpath(self.path)
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not self._is_this(descriptor):
                raise BackendFailed(f"{self.path} is not the logical volume that LVM reports.")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _is_this(self, descriptor: int) -> bool:
        device = os.fstat(descriptor)
        number = os.major(device.st_rdev), os.minor(device.st_rdev)
        if not stat.S_ISBLK(device.st_mode) or number != self.number:
            return False
        size = fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8))
        uuid = Path(f"/sys/dev/block/{number[0]}:{number[1]}/dm/uuid").read_text().strip()
        return struct.unpack("=Q", size) == (self.size,) and uuid == self.uuid

    def cut(self, size: int, chunk: int) -> None:
        """Make everything beyond ``size`` bytes read as zeros, in a thin pool. Blocks.

        Whole chunks return to the pool. Parts of chunks are zeroed instead: a discard would
        leave them as they are.

        :param chunk: the pool's chunk size in bytes.
        :raises OSError: if the device fails.
        :raises BackendFailed: if the opened device is not this volume.
        """
        first, last = min(-(-size // chunk) * chunk, self.size), self.size // chunk * chunk
        descriptor = self.open(os.O_RDWR | os.O_EXCL)
        try:
            _apply(descriptor, _BLKZEROOUT, size, first)
            _apply(descriptor, _BLKDISCARD, first, last)
            _apply(descriptor, _BLKZEROOUT, max(first, last), self.size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _apply(descriptor: int, request: int, start: int, end: int) -> None:
    if start < end:
        fcntl.ioctl(descriptor, request, struct.pack("=QQ", start, end - start))
