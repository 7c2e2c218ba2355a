"""Reads the small files that an operator names: settings, secrets, keys, certificates.

A path may lead to something else: a pipe without a writer, an endless device, a disk image.
Reading such a path would take for ever, or all memory.

Functions here block on the disk.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: Size limit of a file, in bytes.  A configuration of 100,000 users has 30 MB.
LARGEST: Final = 64 * 1024 * 1024
#: Seconds to read a whole pipe.
_PATIENCE: Final = 5.0
_CHUNK: Final = 64 * 1024


def content(path: Path) -> bytes:
    """Return the content of a file or of a pipe, such as the shell's ``<(command)``.

    Waits for a pipe, but for five seconds at most.

    :raises OSError: if the file cannot be read, or has more than :data:`LARGEST` bytes.  Also if
        the path is neither a file nor a pipe, or if the pipe does not end in time.
    """
    with _opened(path, pipes=True) as descriptor:
        return _read(path, descriptor)


def check(path: Path) -> None:
    """Check that a file can be read, before other code reads the file by its path.

    :raises OSError: if the file cannot be read, or has more than :data:`LARGEST` bytes, or if the
        path is not a file.
    """
    with _opened(path, pipes=False) as descriptor:
        if os.fstat(descriptor).st_size > LARGEST:
            raise _too_large(path)
        os.read(descriptor, 1)


@contextmanager
def _opened(path: Path, *, pipes: bool) -> Iterator[int]:
    # Opening a device may have side effects, so check the kind before.
    _check_kind(path, os.stat(path).st_mode, pipes=pipes)
    # Without O_NONBLOCK, opening a pipe waits until another process opens the pipe to write.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check_kind(path, os.fstat(descriptor).st_mode, pipes=pipes)
        yield descriptor
    finally:
        os.close(descriptor)


def _check_kind(path: Path, mode: int, *, pipes: bool) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not (stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode))):
        raise OSError(errno.EINVAL, "this is not a regular file, but a pipe or a device", str(path))


def _read(path: Path, descriptor: int) -> bytes:
    read = bytearray()
    end = time.monotonic() + _PATIENCE
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    while len(read) <= LARGEST:
        if not ready.poll(max(0.0, end - time.monotonic()) * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "this is a pipe without an end", str(path))
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            continue
        if not chunk:
            return bytes(read)
        read += chunk
    raise _too_large(path)


def _too_large(path: Path) -> OSError:
    return OSError(errno.EFBIG, f"the file has more than {LARGEST} bytes", str(path))
