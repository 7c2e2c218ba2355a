"""Takes over disk files of other programs, and gives files up.  Everything here blocks.

The names of bootvol's files end in ``.raw``.  So the rename decides whose a file is.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from bootvol.devices import check_unused, check_unwritten
from bootvol.errors import BackendFailed, DiskNotAdoptable, DiskNotFound, VolumeInUse
from bootvol.model import StoredDisk
from bootvol_plugins.file_store import SUFFIX, file_of, status_of

#: A file cannot be a disk by itself if it begins like this (QEMU's docs/interop/qcow2.txt).
_QCOW2: Final = b"QFI\xfb"
#: Cinder's NFS driver keeps a list of a volume's snapshots beside the volume, under the volume's
#: name with this end.  The list names the file that guests write to.
_LIST: Final = ".info"
_LARGEST_LIST: Final = 1024 * 1024
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: The system's errors for names that cannot exist.
_IMPOSSIBLE: Final = frozenset({errno.ENOENT, errno.ENAMETOOLONG, errno.EINVAL})
#: The errors of file systems without hard links.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})


def stored_disks(folder: int) -> list[StoredDisk]:
    """See :meth:`bootvol.interfaces.IAdoptingBackend.stored_disks`.

    :param folder: descriptor of the backend's directory.
    """
    with os.scandir(folder) as entries:
        names = [each.name for each in entries]
    found = [stored_disk(folder, name) for name in names if not name.endswith(_LIST)]
    return [each for each in found if each is not None]


def stored_disk(folder: int, name: str) -> StoredDisk | None:
    """See :meth:`bootvol.interfaces.IAdoptingBackend.stored_disk`."""
    if not _is_name(name):
        return None
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            return None
        if name.endswith(SUFFIX):
            return StoredDisk(name, status.st_size, name.removesuffix(SUFFIX))
        with _opened(folder, name) as descriptor:
            obstacle = _obstacle(folder, name, descriptor)
            if obstacle is None and _is_open(descriptor, name):
                obstacle = "another program has the file open"
    except PermissionError:
        obstacle = "the daemon may not read the file"
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            return None
        raise
    return StoredDisk(name, status.st_size, None, obstacle)


def adopt(folder: int, place: str, volume: str) -> None:
    """Rename a file, as :meth:`bootvol.interfaces.IAdoptingBackend.adopt` does."""
    if status_of(folder, volume) is not None:
        return
    called = f"File {_shown(place)}"
    if not _is_name(place):
        raise DiskNotFound(f"{called} does not exist.")
    if place.endswith(SUFFIX):
        raise DiskNotAdoptable(
            f"{called} cannot be taken over: the names of bootvol's files end in {SUFFIX}."
        )
    try:
        with _opened(folder, place) as descriptor:
            obstacle = _obstacle(folder, place, descriptor)
            if obstacle is not None:
                raise DiskNotAdoptable(f"{called} cannot be taken over: {obstacle}.")
            _check_closed(descriptor, called)
            _own(descriptor, called)
            os.rename(place, file_of(volume), src_dir_fd=folder, dst_dir_fd=folder)
            taken = status_of(folder, volume)
            if taken is None or not os.path.samestat(taken, os.fstat(descriptor)):
                with suppress(FileNotFoundError):
                    os.rename(file_of(volume), place, src_dir_fd=folder, dst_dir_fd=folder)
                raise BackendFailed(f"{called} was replaced meanwhile.")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DiskNotAdoptable(f"{called} is a link, and no disk.") from error
        if error.errno in _IMPOSSIBLE:
            raise DiskNotFound(f"{called} does not exist.") from error
        raise
    os.fsync(folder)


def give_up(folder: int, volume: str, place: str, called: str) -> None:
    """See :meth:`bootvol.interfaces.IAdoptingBackend.give_up`.

    A crash may leave both names.  Then the next call removes the former one.

    :param called: the volume's name for errors.
    """
    found = status_of(folder, volume)
    if found is None:
        return
    with _opened(folder, file_of(volume)) as descriptor:
        _check_closed(descriptor, called)
    taken = f"{called} cannot be given up: a file has the name {place}."
    try:
        os.link(file_of(volume), place, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError as error:
        there = os.stat(place, dir_fd=folder, follow_symlinks=False)
        if not os.path.samestat(there, found):
            raise BackendFailed(taken) from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _reserve(folder, place, taken)
        try:
            os.rename(file_of(volume), place, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(place, dir_fd=folder)
            raise
        os.fsync(folder)
        return
    os.fsync(folder)
    os.unlink(file_of(volume), dir_fd=folder)
    os.fsync(folder)


def _reserve(folder: int, place: str, taken: str) -> None:
    """Make an empty file, which a rename may replace: no file of another program is lost.

    A crash leaves the empty file.  Then the operator removes the file.

    :param taken: the message if another file has the name.
    :raises BackendFailed: if another file has the name.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    try:
        os.close(os.open(place, flags, 0o600, dir_fd=folder))
    except FileExistsError as error:
        raise BackendFailed(taken) from error


@contextmanager
def _opened(folder: int, name: str) -> Iterator[int]:
    descriptor = os.open(name, _READ, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _obstacle(folder: int, name: str, descriptor: int) -> str | None:
    """Return why a foreign file cannot be taken over, whether it is open or not."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        return "this is no regular file"
    if found.st_nlink != 1:
        return "the file has several names"
    if found.st_size == 0:
        return "the file is empty"
    if os.pread(descriptor, len(_QCOW2), 0) == _QCOW2:
        return "the file is a qcow2 image: convert the image to a raw disk"
    if _has_snapshots(folder, name):
        return "Cinder has snapshots of the volume in other files: delete them there"
    return None


def _has_snapshots(folder: int, name: str) -> bool:
    """Return whether Cinder's list of a volume's snapshots names another file, or is not clear."""
    try:
        with _opened(folder, name + _LIST) as descriptor:
            listed = json.loads(os.read(descriptor, _LARGEST_LIST))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(listed, dict) or any(each != name for each in listed.values())


def _check_closed(descriptor: int, called: str) -> None:
    check_unused(descriptor, called)
    check_unwritten(descriptor, called)


def _is_open(descriptor: int, name: str) -> bool:
    try:
        _check_closed(descriptor, name)
    except VolumeInUse:
        return True
    return False


def _own(descriptor: int, called: str) -> None:
    """Make a file the daemon's alone, as all its volumes are.

    :raises DiskNotAdoptable: if the system does not allow this.
    """
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o600)
    except PermissionError as error:
        raise DiskNotAdoptable(
            f"{called} cannot be taken over: the file belongs to another user."
        ) from error


def _is_name(place: str) -> bool:
    """Return whether a text can be the name of a disk in the folder."""
    return bool(place) and place.isprintable() and not place.startswith(".") and "/" not in place


def _shown(place: str) -> str:
    return place if len(place) <= 255 else f"{place[:255]}..."
