"""Writes small files so that each is complete or absent, also after a loss of power.

The content goes to a draft beside the file, and the draft then gets the file's name.  All functions
block on the disk.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def replace(path: Path, content: bytes, draft: str | None = None) -> None:
    """Write a file in place of the former one, if any.  Only the daemon's user may use the file.

    :param draft: name of the draft; by default a name that no other process uses.
    :raises OSError: if the file cannot be written.  The former file then remains.
    """
    with opened(path.parent) as folder:
        replace_in(folder, path.name, content, draft)


def replace_in(folder: int, name: str, content: bytes, draft: str | None = None) -> None:
    """Write a file as :func:`replace` does, in an open folder.

    :param folder: descriptor of the folder.
    """
    _write(folder, name, content, draft, os.replace)


def create(path: Path, content: bytes) -> None:
    """Write a new file.  Only the daemon's user may use the file.

    :raises FileExistsError: if the file exists.  Of two processes at the same time, one succeeds.
    :raises OSError: if the file cannot be written.
    """
    with opened(path.parent) as folder:
        create_in(folder, path.name, content)


def create_in(folder: int, name: str, content: bytes) -> None:
    """Write a new file as :func:`create` does, in an open folder.

    :param folder: descriptor of the folder.
    """
    _write(folder, name, content, None, os.link)


def sync(folder: Path) -> None:
    """Make the changed names in a folder survive a loss of power.

    :raises OSError: if the disk fails.
    """
    with opened(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    """Yield the descriptor of a folder, open until the block ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write(
    folder: int, name: str, content: bytes, draft: str | None, publish: Callable[..., None]
) -> None:
    draft = draft or f"{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(draft, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
