"""Hands files over to confined programs, which find the files by name in a folder: keys, say.

The contents are in memory, and the program gets their descriptors.  The folder holds links to the
descriptors by name.  Nothing else leads to the contents, and no copy of a secret is on a disk.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bootvol import reading

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@contextmanager
def in_memory(content: bytes) -> Iterator[int]:
    """Yield the descriptor of a file in memory that nobody can change."""
    descriptor = os.memfd_create("bootvol", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, content)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        os.fchmod(descriptor, 0o444)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def folder_of(links: Mapping[str, int]) -> Iterator[int]:
    """Yield the descriptor of a folder, which exists until the block ends.

    :param links: descriptors in the program that gets the folder, by file name.
    """
    with tempfile.TemporaryDirectory(prefix="bootvol") as made:
        path = Path(made)
        path.chmod(0o755)
        for name, number in links.items():
            (path / name).symlink_to(f"/proc/self/fd/{number}")
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield opened
        finally:
            os.close(opened)


class Handed:
    """A folder ``/proc/self/fd/FIRST`` in a program, with files.

    The constructor and :meth:`close` block.

    :param files: contents by name, at most some KiB each.  Without files no folder is made.
    :param first: descriptor of the folder in the program.  Those of the files follow.
    :ivar descriptors: descriptors in the program, each mapped to the descriptor here.
    """

    def __init__(self, files: Mapping[str, bytes], first: int) -> None:
        self.descriptors: dict[int, int] = {}
        with ExitStack() as stack:
            if files:
                links = dict(zip(files, itertools.count(first + 1)))
                for name, number in links.items():
                    self.descriptors[number] = stack.enter_context(in_memory(files[name]))
                self.descriptors[first] = stack.enter_context(folder_of(links))
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Delete the folder.  By now the program must have found its files."""
        self._stack.close()


def contents(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return the contents of the named files, as far as they exist in a folder.  Blocks.

    :raises OSError: if a file cannot be read.  The text names the file.
    """
    return {name: _content(folder / name) for name in names if (folder / name).exists()}


def _content(path: Path) -> bytes:
    try:
        return reading.content(path)
    except OSError as error:
        raise OSError(error.errno, f"{path.name}: {error.strerror}") from error
