"""Volume groups of the tests' own, inside the machine that :mod:`tests.lvm` boots."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: The machine's disks.
DISKS: Final = ("/dev/ubda", "/dev/ubdb")
_VOLUMES: Final = "segtype!=thin-pool"


def lvm(*words: str) -> str:
    """Run a command of LVM; return what it says."""
    ended = subprocess.run(
        ["lvm", *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert ended.returncode == 0, f"{words}: {ended.stderr}"
    return ended.stdout


def names(group: str) -> list[str]:
    """Return the names of the logical volumes in a group, but for pools."""
    found = lvm("lvs", "--noheadings", "-o", "lv_name", "-S", _VOLUMES, group)
    return sorted(line.strip() for line in found.splitlines())


def empty(group: str) -> None:
    """Remove all that :func:`names` lists."""
    lvm("lvremove", "-y", "-S", _VOLUMES, group)


@contextmanager
def group(name: str, disk: str, pool: str | None = None, extent: str = "4m") -> Iterator[str]:
    """Make a volume group until the block ends.

    :param disk: the device that it lies on.
    :param pool: the size of a thin pool in it, ``pool``.
    :param extent: the size of its extents.
    """
    lvm("vgcreate", "-y", "-s", extent, name, disk)
    try:
        if pool is not None:
            lvm("lvcreate", "-y", "--type", "thin-pool", "-L", pool, "-n", "pool", name)
            lvm("lvchange", "--errorwhenfull", "y", f"{name}/pool")
        yield name
    finally:
        lvm("vgremove", "-y", "-f", name)
