"""SQLite's journal on a full disk.

The journal is a write-ahead log, except where a full disk would end the process.  With such a log,
SQLite maps an index of the log into memory.  Some file systems write each change to a new place.
On a full disk they have no place for a change of the index, and the kernel ends the process
(SIGBUS).

Elsewhere space is reserved for the database and its log.  Without the reserve, a call to delete a
volume could not make room on a disk that is full for the database, too.
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

#: These file systems: btrfs, bcachefs, nilfs2 (linux/magic.h, and their ``page_mkwrite``).
_FULL_ENDS_PROCESS: Final = frozenset({0x9123683E, 0xCA451A4E, 0x3434})
#: At least the bytes of ``struct statfs`` of 64-bit Linux, which begins with the type (statfs(2)).
_STATFS: Final = 256
#: The reserve behind the end of each file, in bytes.  SQLite's log seldom has more than 4 MiB.
RESERVE: Final = 8 * 1024 * 1024
#: From linux/falloc.h: the size of the file stays.
_KEEP_SIZE: Final = 0x01
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def mode(folder: Path) -> str:
    """Return the value of the pragma ``journal_mode`` for a database in a folder.  Blocks.

    Without a write-ahead log, readers and the writer wait for each other for a moment.
    """
    return "TRUNCATE" if _kind(folder) in _FULL_ENDS_PROCESS else "WAL"


def _kind(folder: Path) -> int:
    """Return the number of a file system's type; 0 if the system does not tell."""
    found = ctypes.create_string_buffer(_STATFS)
    if _LIBC.statfs(os.fsencode(folder), found):
        return 0
    (kind,) = struct.unpack_from("=q", found)
    return int(kind)


def log_of(path: Path) -> Path:
    """Return the path of SQLite's write-ahead log (https://www.sqlite.org/wal.html)."""
    return path.with_name(f"{path.name}-wal")


def reserve(file: Path) -> None:
    """Reserve space behind the end of a file, if the disk has room and can do so.  Blocks.

    Closing a file ends all of the process's locks on the file (F_SETLK in fcntl(2)).  So the file
    must be without such locks: the log, or a database without connections.
    """
    with suppress(OSError):
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            zone = ctypes.c_int64(os.fstat(descriptor).st_size), ctypes.c_int64(RESERVE)
            _LIBC.fallocate64(descriptor, _KEEP_SIZE, *zone)
        finally:
            os.close(descriptor)
