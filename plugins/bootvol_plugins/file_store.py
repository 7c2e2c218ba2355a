"""The folder of a ``file`` backend: its identity, its free space, and the abilities of its disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path
from typing import Final
from uuid import uuid4

from bootvol import files

#: The name of the file with the identity, and the most bytes to read of the file.
STORE: Final = ".bootvol-store"
_SIZE: Final = 256
#: ioctl_ficlone(2): makes a file share all blocks of another file.
FICLONE: Final = 0x40049409
_OURS: Final = os.O_NOFOLLOW | os.O_CLOEXEC


def identity_of(folder: int) -> str | None:
    """Return the identity of an open folder; None if the folder has no identity yet."""
    try:
        descriptor = os.open(STORE, os.O_RDONLY | _OURS, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, _SIZE).decode("ascii", "replace").strip() or None
    finally:
        os.close(descriptor)


def identify(folder: int) -> str:
    """Give an open folder a permanent identity; return the identity.

    Another daemon may do the same at the same time: the first link to the name stays.
    """
    identity = str(uuid4())
    with contextlib.suppress(FileExistsError):
        files.create_in(folder, STORE, f"{identity}\n".encode("ascii"))
    # Also if the other daemon has created the file, and not synced the folder yet.
    os.fsync(folder)
    return identity_of(folder) or identity


def free_space(folder: int) -> int:
    """Return the free space on the disk of an open folder, in bytes."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def is_mount(folder: int) -> bool:
    """Return whether an open folder is a mount point."""
    return os.fstat(folder).st_dev != os.stat("..", dir_fd=folder).st_dev


def can_clone(directory: Path) -> bool:
    """Return whether files in a directory can share their blocks (xfs, btrfs).  Blocks."""
    with tempfile.TemporaryFile(dir=directory) as one, tempfile.TemporaryFile(dir=directory) as two:
        one.write(bytes(4096))
        one.flush()
        try:
            fcntl.ioctl(two.fileno(), FICLONE, one.fileno())
        except OSError:
            return False
        return True


def file_of(volume: str) -> str:
    """Return the name of a volume's file."""
    return f"{volume}.raw"


def status_of(folder: int, volume: str) -> os.stat_result | None:
    """Return the status of a volume's file in an open folder; None if the file does not exist."""
    try:
        return os.stat(file_of(volume), dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
