"""What a daemon has to itself while it runs: its state directory, and a database in a file."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from uuid import uuid4

from bootvol.errors import ConfigurationError


def take_directory(directory: Path) -> tuple[int, str]:
    """Lock the state directory for this process; return the lock and the id that it holds.

    The id stays, so that a daemon that was killed knows its own claims when it starts again, and
    need not wait for them to run out.

    Beside the id stands the number of the very file: in a copy of the directory that is another
    one, and two daemons of one id would take each other's claims for their own.

    :raises ConfigurationError: another daemon has it, it is a copy, or it cannot be written.
    """
    path = directory / "daemon.lock"
    lock = _lock(
        "state.directory",
        path,
        f"another daemon is using {directory}. Stop it, or give each its own.",
    )
    worker_id, _, number = os.read(lock, 128).decode("ascii", "replace").partition(" ")
    here = str(os.fstat(lock).st_ino)
    if number not in ("", here):
        os.close(lock)
        raise ConfigurationError(
            f"state.directory: {directory} is a copy of another daemon's, which may still run."
            f" Delete {path} to have a daemon of its own. If the directory was moved here for good:"
            f" write only {worker_id} to that file."
        )
    if not number:
        worker_id = worker_id or f"worker-{uuid4()}"
        os.pwrite(lock, f"{worker_id} {here}".encode("ascii"), 0)
    return lock, worker_id


def take_database(file: Path) -> int:
    """Lock SQLite's file for this process: it holds what may be shown without being read again.

    :raises ConfigurationError: another daemon has it, or a file beside it cannot be written.
    """
    real = file.resolve()
    return _lock(
        "state.url",
        real.with_name(f"{real.name}.lock"),
        f"another daemon is using {file}. Stop it, or let both use PostgreSQL.",
    )


def _lock(key: str, path: Path, taken: str) -> int:
    """Lock a file, which is made if need be; the system lets go of it however the process ends.

    :param key: of the configuration, that the path is of.
    :param taken: what to say if it is locked.
    :raises ConfigurationError: another process has it, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{key}: {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConfigurationError(f"{key}: {taken}") from None
    return lock
