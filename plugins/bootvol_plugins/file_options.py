"""The settings of the ``file`` backend, and the checks of the machine against them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from bootvol import checks
from bootvol.checks import Mistake
from bootvol.options import Options, OwnFolder
from bootvol_plugins.file_store import identity_of


class FileOptions(Options):
    """A table ``[[backends]]`` of this plugin."""

    directory: OwnFolder
    """The directory of the volumes, as sparse files.  The daemon creates the directory at its
    start.
    """
    mounted: bool = False
    """Whether the directory is the mount point of a disk.  Without the disk, the backend fails."""
    shared: bool = False
    """Whether the daemons of other hosts have the same directory (NFS, say), under this backend
    name.
    """


def check(options: FileOptions) -> Iterator[Mistake]:
    """Yield the faults of the directory: see :data:`bootvol.interfaces.Check`."""
    directory = options.directory
    yield from checks.folder("directory", directory)
    if options.mounted and not directory.is_mount():
        remedy = "Mount the disk, or set mounted to false."
        yield Mistake("directory", directory, "nothing is mounted there", remedy, fatal=False)


def store(options: FileOptions) -> str | None:
    """Return the identity of the directory; None without one, or without the directory."""
    try:
        folder = os.open(options.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        # The start makes the directory.
        return None
    try:
        return identity_of(folder)
    finally:
        os.close(folder)
