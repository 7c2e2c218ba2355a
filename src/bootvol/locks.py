"""Exclusive locks of a running daemon: on its state directory, and on a database in a file.

The system releases a lock no matter how the process ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

from bootvol import private
from bootvol.checks import Mistake
from bootvol.errors import ConfigurationError
from bootvol.patience import in_time

_NAME: Final = "daemon.lock"
_LONGEST: Final = 128
#: The fault of a file system without locks, such as NFS without its lock service; and the remedy.
_UNLOCKABLE: Final = "the file cannot be locked"
_REMEDY: Final = "Name a folder on a disk with locks, or mend the locks of the file server."
#: The daemon's id, and the inode number of the lock file.
_CONTENT: Final = re.compile(r"(?:([!-~]+)(?: ([0-9]+))?)?\s*")


def take_directory(directory: Path) -> tuple[int, str]:
    """Lock the state directory for this process.  Return the lock and the id in the lock file.

    The id stays the same over restarts.  So a killed daemon knows its own claims at the next start,
    and need not wait until their leases expire.

    The lock file contains the id and its own inode number.  In a copy of the directory the lock
    file has another inode number.  Two daemons with one id would treat each other's claims as their
    own.

    :raises ConfigurationError: if another daemon has the directory, or if the directory is a copy,
        cannot be written, or lies on a hanging disk.
    """
    return in_time("state.directory", directory, lambda: _take_directory(directory))


def _take_directory(directory: Path) -> tuple[int, str]:
    path = directory / _NAME
    lock = _lock(
        "state.directory",
        path,
        f"another daemon uses {directory}. Stop that daemon, or give each daemon its own"
        " directory.",
    )
    content = os.read(lock, _LONGEST)
    if (mistake := _fault(path, content, lock)) is not None:
        os.close(lock)
        raise ConfigurationError(f"{mistake.key}: {mistake.fault}. {mistake.remedy}")
    worker_id, number = _parts(content) or ("", "")
    if not number:
        worker_id = worker_id or f"worker-{uuid4()}"
        try:
            os.pwrite(lock, f"{worker_id} {os.fstat(lock).st_ino}".encode("ascii"), 0)
        except OSError as error:
            os.close(lock)
            raise ConfigurationError(f"state.directory: {path}: {error.strerror}") from error
    return lock, worker_id


def known_id(directory: Path) -> str:
    """Return the id of the daemon with the state directory; empty without one.  Blocks."""
    try:
        found = _parts((directory / _NAME).read_bytes()[:_LONGEST])
    except OSError:
        return ""
    return found[0] if found is not None else ""


def take_database(file: Path) -> int:
    """Lock the SQLite file for this process, which shows cached answers without reading again.

    :raises ConfigurationError: if another daemon has the file, if no file beside it can be
        written, or if the disk hangs.
    """
    taken = f"another daemon uses {file}. Stop that daemon, or use PostgreSQL for both."
    return in_time("state.url", file, lambda: _lock("state.url", _beside(file), taken))


def is_taken(directory: Path) -> bool:
    """Return whether a daemon runs with the state directory.  Blocks; changes nothing."""
    return _is_locked(directory / _NAME)


def check_directory(directory: Path) -> Iterator[Mistake]:
    """Check that an unused state directory can be locked.  Change nothing."""
    path = directory / _NAME
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        yield from _not_opened("state.directory", path, error)
        return
    try:
        mistake = _fault(path, os.read(lock, _LONGEST), lock)
    finally:
        os.close(lock)
    if mistake is not None:
        yield mistake
    yield from _not_locked("state.directory", path)


def check_database(file: Path) -> Iterator[Mistake]:
    """Check that the SQLite file can be locked.  Change nothing."""
    path = _beside(file)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        yield from _not_opened("state.url", path, error)
        return
    if _is_locked(path):
        remedy = "Stop that daemon, or use PostgreSQL for both."
        yield Mistake("state.url", file, "another daemon uses the file", remedy)
    yield from _not_locked("state.url", path)


def _beside(file: Path) -> Path:
    # Unlike Path.resolve, realpath accepts links that lead nowhere.
    real = Path(os.path.realpath(file))
    return real.with_name(f"{real.name}.lock")


def _not_opened(key: str, path: Path, error: OSError) -> Iterator[Mistake]:
    # The start makes missing files, and other checks report if the start cannot.
    if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
        fault = f"the file cannot be written: {error.strerror}"
        yield Mistake(key, path, fault, "Give the file to the daemon's user, or delete the file.")


def _not_locked(key: str, path: Path) -> Iterator[Mistake]:
    error = _tried(path)
    if error is not None and not isinstance(error, BlockingIOError):
        yield Mistake(key, path, f"{_UNLOCKABLE}: {error.strerror}", _REMEDY)


def _is_locked(path: Path) -> bool:
    return isinstance(_tried(path), BlockingIOError)


def _tried(path: Path) -> OSError | None:
    """Try to lock an existing file for a moment; return the system's error, if any."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error
    finally:
        os.close(lock)
    return None


def _parts(content: bytes) -> tuple[str, str] | None:
    """Return the id and the inode number in a lock file; None if the content is something else."""
    found = _CONTENT.fullmatch(content.decode("latin-1"))
    return None if found is None else (found[1] or "", found[2] or "")


def _fault(path: Path, content: bytes, lock: int) -> Mistake | None:
    """Return the mistake in the content of a state directory's lock file, if any."""
    parts = _parts(content)
    if parts is None:
        fault, remedy = f"{path} was not written by a daemon", f"Delete {path}."
    elif parts[1] not in ("", str(os.fstat(lock).st_ino)):
        fault = f"{path.parent} is a copy of another daemon's, which may still run"
        remedy = (
            f"Delete {path} to have a daemon of its own. If the directory was moved here for good:"
            f" write only {parts[0]} to that file."
        )
    else:
        return None
    return Mistake("state.directory", path.parent, fault, remedy)


def _lock(key: str, path: Path, taken: str) -> int:
    """Lock a file; make a missing file.  The system unlocks the file however the process ends.

    :param key: the setting that the path comes from.
    :param taken: error text if the file is locked.
    :raises ConfigurationError: if another process has the lock, or the file cannot be written.
    """
    try:
        private.make(key, path.parent)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{key}: {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConfigurationError(f"{key}: {taken}") from None
    except OSError as error:
        os.close(lock)
        raise ConfigurationError(
            f"{key}: {path}: {_UNLOCKABLE}: {error.strerror}. {_REMEDY}"
        ) from error
    return lock
