"""A logical volume as LVM reports it, and the device that it is."""

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

#: What bootvol's own volumes are tagged with.
TAG: Final = "bootvol"
#: What their names begin with: LVM keeps ``snapshot`` and others at the beginning for itself.
PREFIX: Final = "bootvol-"
#: What is asked of a volume.
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

    :ivar path: by which people and hypervisors open it.
    :ivar size: bytes.
    :ivar extent: of the group, in bytes.
    :ivar ours: whether bootvol made it.
    :ivar number: of its device; None while it is not active.
    :ivar uuid: of its device.
    :ivar is_open: whether somebody has the device open.
    """

    path: str
    size: int
    extent: int
    ours: bool
    number: tuple[int, int] | None
    uuid: str
    is_open: bool

    @classmethod
    def of_row(cls, row: Mapping[str, str]) -> Found:
        """Read a row of a report."""
        number = int(row["lv_kernel_major"]), int(row["lv_kernel_minor"])
        return cls(
            row["lv_path"],
            int(row["lv_size"]),
            int(row["vg_extent_size"]),
            TAG in row["lv_tags"].split(","),
            number if number[0] >= 0 else None,
            "LVM-" + (row["vg_uuid"] + row["lv_uuid"]).replace("-", ""),
            row["lv_device_open"] == "open",
        )

    def whole(self, size: int) -> int:
        """Return ``size`` up to a whole extent, in bytes: what LVM makes of it."""
        return -(-size // self.extent) * self.extent

    def open(self, flags: int) -> int:
        """Open the device; return its descriptor.  Blocks.

        :raises OSError: it cannot be opened.
        :raises BackendFailed: what is there is not this volume.
        """
        # Whoever made the links, udev or LVM: what counts is what is open in the end.
        path = os.path.realpath(self.path)
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not self._is_this(descriptor):
                raise BackendFailed(f"{self.path} is not the logical volume that LVM says it is.")
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
        """Let all beyond ``size`` bytes read as zeros, for a volume in a thin pool.  Blocks.

        Space of whole chunks goes back to the pool; a part of one that is discarded would stay as
        it is.

        :param chunk: of the pool, in bytes.
        :raises OSError: the device failed.
        :raises BackendFailed: as :meth:`open`.
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
