"""The serial console of a server: keeps the guest's output, but no more than about 1 MiB.

QEMU could write the output to a file itself, but without a bound, and a guest may write for ever.
So QEMU writes to a pipe.  This module, run as a program of its own, moves the output into files.
Like QEMU, the program outlives the daemon.  The program ends when QEMU ends.  The program opens its
files, confines itself, and opens nothing more.
"""

from __future__ import annotations

import contextlib
import os
import sys

# Import nothing else: one such program runs beside each server.

#: The file of the last output, and the file of the output before.
NEW = "console"
OLD = "console.old"
#: Size in bytes up to which the first file grows before its content becomes the second's.
HALF = 512 * 1024
#: Size in bytes of each read.
PIECE = 64 * 1024


def keep(source: int, new: int, old: int) -> None:
    """Move the data of ``source`` into two files, until the end.  Blocks.

    :param new: descriptor of the file :data:`NEW`, open for reading and appending.
    :param old: descriptor of the file :data:`OLD`.
    """
    while data := os.read(source, PIECE):
        # Data that the disk does not take is lost.  The guest must not stop for lost data.
        with contextlib.suppress(OSError):
            if os.fstat(new).st_size >= HALF:
                os.ftruncate(old, 0)
                os.pwrite(old, os.pread(new, HALF + PIECE, 0), 0)
                os.ftruncate(new, 0)
            os.write(new, data)


def _open(name: str, more: int = 0) -> int:
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | more, 0o600)


def tail(folder: int, length: int) -> bytes:
    """Return the last bytes of the console in a folder.  Blocks.

    :param folder: descriptor of the folder.
    :param length: maximum number of bytes.
    """
    for _ in range(3):
        new, old = _content(folder, NEW), _content(folder, OLD)
        if len(_content(folder, NEW)) >= len(new):
            break
        # The content has become that of the second file meanwhile.
    if len(new) >= HALF and new.startswith(old):
        # The content becomes that of the second file now.
        old = b""
    return (old + new)[-length:] if length > 0 else b""


def _content(folder: int, name: str) -> bytes:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as file:
        return file.read()


if __name__ == "__main__":
    opened = _open(NEW, os.O_APPEND), _open(OLD)
    sys.path.insert(0, sys.argv[1])
    import program  # type: ignore[import-not-found]

    program.stay(sys.argv[2:])
    keep(0, *opened)
