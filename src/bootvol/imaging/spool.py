"""A place on the daemon's own disk for an image that cannot be read as it streams.

It has no name: whatever becomes of the daemon, nothing of it is left.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from bootvol.devices import OpenDevice, failures
from bootvol.interfaces import Capabilities, IVolumeReader, IVolumeWriter
from bootvol.threads import Threads

#: What errors call it.
_NAME: Final = "the room for unpacking images"


class Spool:
    """One file without a name, written and read as a volume is.

    :param directory: on whose file system it lies; made if it is missing.
    :param size: the most that it may take, in bytes.
    """

    capabilities = Capabilities(reads_zero_when_new=True, block_size=4096)

    def __init__(self, directory: Path, size: int, threads: Threads) -> None:
        self.size = size
        self._directory = directory
        self._threads = threads
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The open file, once there was a :meth:`renew`; it stays this object's."""
        assert self._descriptor is not None  # noqa: S101 - for mypy
        return self._descriptor

    async def renew(self) -> None:
        """Begin with an empty file.

        :raises bootvol.errors.BackendFailed: the file system does not let us.
        """
        await self.close()
        self._descriptor = await self._threads.obtain(os.close, self._make)

    async def open_writer(self) -> IVolumeWriter:
        """Open it for writing."""
        return await self._threads.obtain(
            OpenDevice.shut,
            lambda: OpenDevice.to_write(self._threads, os.dup(self.descriptor), _NAME),
        )

    async def open_reader(self) -> IVolumeReader:
        """Open it for reading."""
        return await self._threads.obtain(
            OpenDevice.shut,
            lambda: OpenDevice.to_read(self._threads, os.dup(self.descriptor), _NAME),
        )

    async def cut(self, length: int) -> None:
        """End it after ``length`` bytes: whole blocks were written, but its end counts."""
        await self._threads.run(self._cut, length)

    async def close(self) -> None:
        """Give it up, and its space back.  Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            await self._threads.run(os.close, descriptor)

    def _make(self) -> int:
        with failures("no room to unpack the image can be made"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
                return os.open(self._directory, flags, 0o600)
            except OSError:
                # The file system knows no files without a name: take the name away at once.
                descriptor, name = tempfile.mkstemp(dir=self._directory)
                Path(name).unlink()
                return descriptor

    def _cut(self, length: int) -> None:
        with failures("the unpacked image cannot be cut"):
            os.ftruncate(self.descriptor, length)
