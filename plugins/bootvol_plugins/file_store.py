"""The folder of a ``file`` backend: its identity, its space, and the abilities of its disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

from twisted.logger import Logger

from bootvol import files
from bootvol.errors import BackendFailed

#: The end of the names of volumes' files.
SUFFIX: Final = ".raw"
#: The name of the file with the identity, and the most bytes to read of the file.
STORE: Final = ".bootvol-store"
_SIZE: Final = 256
#: ioctl_ficlone(2): makes a file share all blocks of another file.
FICLONE: Final = 0x40049409
_OURS: Final = os.O_NOFOLLOW | os.O_CLOEXEC
#: A full disk, or a disk that its system made read-only after a failure.
_NO_FILES: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})

_NO_FILE: Final = (
    f"{STORE} in the directory of the volumes is not a file. Put the original file back."
)

_log = Logger()


def identity_of(folder: int) -> str | None:
    """Return the identity of an open folder; None if the folder has no identity yet.

    :raises BackendFailed: if something other than a file has the file's name.
    """
    try:
        # Without O_NONBLOCK a FIFO would block the thread for ever.
        descriptor = os.open(STORE, os.O_RDONLY | os.O_NONBLOCK | _OURS, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise BackendFailed(_NO_FILE) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BackendFailed(_NO_FILE)
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


def space(folder: int) -> tuple[int, int]:
    """Return the size of the disk of an open folder, and its free space, in bytes."""
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def is_mount(folder: int) -> bool:
    """Return whether an open folder is a mount point."""
    return os.fstat(folder).st_dev != os.stat("..", dir_fd=folder).st_dev


def can_clone(backend: str, directory: Path) -> bool:
    """Return whether files in a directory can share their blocks (xfs, btrfs).  Blocks.

    A full or failing disk must not keep the daemon from its start: nobody could delete volumes of a
    full disk, or reach the volumes of other backends.

    :param backend: name of the backend, for the log.
    :returns: False also if the disk is full, read-only or failing.
    :raises OSError: if no file can be made for another reason.
    """
    try:
        with (
            tempfile.TemporaryFile(buffering=0, dir=directory) as one,
            tempfile.TemporaryFile(buffering=0, dir=directory) as two,
        ):
            # Empty files will do on a full disk, but not in every file system.
            with _full_or_not():
                one.write(bytes(4096))
            try:
                fcntl.ioctl(two.fileno(), FICLONE, one.fileno())
            except OSError:
                return False
            return True
    except OSError as error:
        if error.errno not in _NO_FILES:
            raise
        _log.warn(
            "backend {backend} makes no clones until the next start of the daemon: {directory}"
            " takes no new files: {reason}",
            backend=backend,
            directory=str(directory),
            reason=error.strerror,
        )
        return False


@contextlib.contextmanager
def _full_or_not() -> Iterator[None]:
    """End the block without an error if the disk is full or failing."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_FILES:
            raise


def file_of(volume: str) -> str:
    """Return the name of a volume's file."""
    return f"{volume}{SUFFIX}"


def status_of(folder: int, volume: str) -> os.stat_result | None:
    """Return the status of a volume's file in an open folder; None if the file does not exist."""
    try:
        return os.stat(file_of(volume), dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
