"""The serial console of a server: what its guest writes is kept, but no more than about 1 MiB.

QEMU could write it to a file itself, but without a bound, and a guest may write for ever.  So it
writes to a pipe, and this module, run as a program of its own, moves what comes into files.  Like
QEMU it outlives the daemon; it ends when QEMU does.
"""

from __future__ import annotations

import contextlib
import os

# Nothing else is imported: one of these runs beside each server.

#: What was written last, and what was written before that.
NEW = "console"
OLD = "console.old"
#: How large the one may grow before it becomes the other; bytes.
HALF = 512 * 1024


def keep(source: int) -> None:
    """Move what comes of ``source`` into files in the current folder, until it ends.  Blocks."""
    file = _open()
    while data := os.read(source, 65536):
        # What the disk does not take is lost; the guest must not stop for that.
        with contextlib.suppress(OSError):
            if os.fstat(file).st_size >= HALF:
                os.rename(NEW, OLD)
                full, file = file, _open()
                os.close(full)
            os.write(file, data)


def _open() -> int:
    return os.open(NEW, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)


def tail(folder: int, length: int) -> bytes:
    """Return the last bytes that are kept in the open folder.  Blocks.

    :param length: at most so many.
    """
    parts: dict[int, bytes] = {}
    for name in (NEW, OLD):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
            with open(descriptor, "rb") as file:
                # By its number: between the two the one may have become the other.
                parts.setdefault(os.fstat(descriptor).st_ino, file.read())
    whole = b"".join(reversed(parts.values()))
    return whole[-length:] if length > 0 else b""


if __name__ == "__main__":
    keep(0)
