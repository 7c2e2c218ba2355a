"""A file on the daemon's own disk for an image that cannot be read as the image streams by.

The file has no name.  So however the daemon ends, the file is gone as well.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from zope.interface import implementer

from bootvol.devices import OpenDevice, failures
from bootvol.imaging.room import Share
from bootvol.interfaces import Capabilities, IVolumeReader, IVolumeWriter
from bootvol.threads import Threads

#: The name of a spool in errors.
_NAME: Final = "the room for unpacking images"


class Spool:
    """One file without a name, written and read like a volume.

    :param directory: a folder on the file system of the file; made if missing.
    :param size: the most bytes of the file.
    :param share: the disk space of the import.
    """

    capabilities = Capabilities(reads_zero_when_new=True, block_size=4096)

    def __init__(self, directory: Path, size: int, share: Share, threads: Threads) -> None:
        self.size = size
        self._share = share
        self._directory = directory
        self._threads = threads
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The descriptor of the file, after a :meth:`renew`.  This object owns the descriptor."""
        assert self._descriptor is not None  # noqa: S101 - for mypy
        return self._descriptor

    async def renew(self) -> None:
        """Begin with an empty file.

        :raises bootvol.errors.BackendFailed: if the file system does not allow that.
        """
        await self.close()
        self._descriptor = await self._threads.obtain(os.close, self._make)

    async def open_writer(self) -> IVolumeWriter:
        """Open the file for writing."""
        writer = await self._threads.obtain(
            OpenDevice.shut,
            lambda: OpenDevice.to_write(self._threads, os.dup(self.descriptor), _NAME),
        )
        return _Counted(writer, self._reach)

    async def open_reader(self) -> IVolumeReader:
        """Open the file for reading."""
        return await self._threads.obtain(
            OpenDevice.shut,
            lambda: OpenDevice.to_read(self._threads, os.dup(self.descriptor), _NAME),
        )

    async def cut(self, length: int) -> None:
        """Truncate the file to ``length`` bytes: whole blocks were written, but the end counts."""
        await self._threads.run(self._cut, length)

    async def close(self) -> None:
        """Close the file, and give its space back.  Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                await self._threads.run(os.close, descriptor)
            finally:
                self._share.give_back()

    def _reach(self, end: int) -> None:
        """Take space for the file's first ``end`` bytes, without the space already taken."""
        if end > self._share.held:
            self._share.take(end - self._share.held)

    def _make(self) -> int:
        with failures("no space for the image can be reserved in the spool"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
                descriptor = os.open(self._directory, flags, 0o600)
            except OSError:
                # The file system has no files without a name: make one, and delete its name.
                descriptor, name = tempfile.mkstemp(dir=self._directory)
                Path(name).unlink()
            # The sandbox's readers open the file again, as nobody.
            os.fchmod(descriptor, 0o644)
            return descriptor

    def _cut(self, length: int) -> None:
        with failures("the converted image cannot be shortened"):
            os.ftruncate(self.descriptor, length)


@implementer(IVolumeWriter)
class _Counted:
    """A writer that takes space before each write.

    :param reach: called before a write with the offset of the write's end, in bytes.
    """

    def __init__(self, writer: IVolumeWriter, reach: Callable[[int], None]) -> None:
        self._reach = reach
        self._writer = writer
        self.flush, self.close = writer.flush, writer.close

    async def write(self, offset: int, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.write`."""
        self._reach(offset + len(data))
        await self._writer.write(offset, data)

    async def zero(self, offset: int, length: int) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.zero`."""
        self._reach(offset + length)
        await self._writer.zero(offset, length)
