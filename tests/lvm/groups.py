"""Volume groups for tests, inside the machine of :mod:`tests.lvm`."""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: The machine's disks.
DISKS: Final = ("/dev/ubda", "/dev/ubdb")
_PIECE: Final = 4 * 1024 * 1024
_VOLUMES: Final = "segtype!=thin-pool"


def lvm(*words: str) -> str:
    """Run a command of LVM; return its output."""
    ended = subprocess.run(
        ["lvm", *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert ended.returncode == 0, f"{words}: {ended.stderr}"
    return ended.stdout


def names(group: str) -> list[str]:
    """Return the names of the logical volumes in a group, without pools."""
    found = lvm("lvs", "--noheadings", "-o", "lv_name", "-S", _VOLUMES, group)
    return sorted(line.strip() for line in found.splitlines())


def empty(group: str) -> None:
    """Remove all volumes listed by :func:`names`."""
    lvm("lvremove", "-y", "-S", _VOLUMES, group)


def fill(device: str, content: bytes) -> None:
    """Write ``content``, of a length of a power of two, repeatedly to a device's end."""
    piece = mmap.mmap(-1, _PIECE)
    piece[:] = content * (_PIECE // len(content))
    with open(os.open(device, os.O_WRONLY | os.O_DIRECT), "wb", buffering=0) as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        for start in range(0, size, _PIECE):
            opened.write(memoryview(piece)[: size - start])
        os.fsync(opened)


def holds(device: str | Path, content: bytes) -> bool:
    """Return whether any block of 512 bytes on a device begins with the content."""
    with open(os.open(device, os.O_RDONLY | os.O_DIRECT), "rb", buffering=0) as opened:
        piece = mmap.mmap(-1, _PIECE)
        while count := opened.readinto(piece):
            found = piece.find(content, 0, count)
            while found >= 0:
                if found % 512 == 0:
                    return True
                found = piece.find(content, found + 1, count)
    return False


@contextmanager
def group(name: str, disk: str, pool: str | None = None, extent: str = "4m") -> Iterator[str]:
    """Make a volume group until the end of the block.

    :param disk: the device of the group.
    :param pool: size of a thin pool in the group, named ``pool``.
    :param extent: size of the group's extents.
    """
    lvm("vgcreate", "-y", "-s", extent, name, disk)
    try:
        if pool is not None:
            lvm("lvcreate", "-y", "--type", "thin-pool", "-L", pool, "-n", "pool", name)
            lvm("lvchange", "--errorwhenfull", "y", f"{name}/pool")
        yield name
    finally:
        lvm("vgremove", "-y", "-f", name)
