"""The serial console of a server: keeps the guest's output, but no more than about 1 MiB.

QEMU could write the output to a file itself, but without a bound, and a guest may write for ever.
So QEMU writes to a pipe.  This module, run as a program of its own, moves the output into files.
Like QEMU, the program outlives the daemon.  The program ends when QEMU ends.
"""

from __future__ import annotations

import contextlib
import os

# Import nothing else: one such program runs beside each server.

#: The file of the last output, and the file of the output before.
NEW = "console"
OLD = "console.old"
#: Size in bytes up to which the first file grows before the first becomes the second.
HALF = 512 * 1024


def keep(source: int) -> None:
    """Move the data of ``source`` into files in the current folder, until the end.  Blocks."""
    file = _open()
    while data := os.read(source, 65536):
        # Data that the disk does not take is lost.  The guest must not stop for lost data.
        with contextlib.suppress(OSError):
            if os.fstat(file).st_size >= HALF:
                os.rename(NEW, OLD)
                full, file = file, _open()
                os.close(full)
            os.write(file, data)


def _open() -> int:
    return os.open(NEW, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)


def tail(folder: int, length: int) -> bytes:
    """Return the last bytes of the console in a folder.  Blocks.

    :param folder: descriptor of the folder.
    :param length: maximum number of bytes.
    """
    parts: dict[int, bytes] = {}
    for name in (NEW, OLD):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
            with open(descriptor, "rb") as file:
                # By inode: between the two opens, the first file may have become the second.
                parts.setdefault(os.fstat(descriptor).st_ino, file.read())
    whole = b"".join(reversed(parts.values()))
    return whole[-length:] if length > 0 else b""


if __name__ == "__main__":
    keep(0)
