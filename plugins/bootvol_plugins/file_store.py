"""The identity of the folder of a ``file`` backend, kept in a file in the folder."""

from __future__ import annotations

import contextlib
import os
from typing import Final
from uuid import uuid4

#: The file's name, and the most bytes to read of the file.
STORE: Final = ".bootvol-store"
_SIZE: Final = 256
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
    draft = f"{STORE}.{identity}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OURS
    descriptor = os.open(draft, flags, 0o600, dir_fd=folder)
    try:
        os.write(descriptor, f"{identity}\n".encode("ascii"))
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(draft, STORE, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(descriptor)
        os.unlink(draft, dir_fd=folder)
    os.fsync(folder)
    return identity_of(folder) or identity
