"""A block backend for bootvol: each volume is a file in one folder.

A place to start from.  What is right of it stays: the two phases, blocking calls in threads, the
system's errors as the contract's.  What is a file here becomes your device.
"""

import os
import stat
from pathlib import Path
from typing import Final

from zope.interface import implementer

from bootvol import private
from bootvol.devices import OpenDevice, check_unused, failures
from bootvol.errors import BackendFailed, VolumeMissing
from bootvol.interfaces import (
    BackendPlugin,
    Capabilities,
    IBlockBackend,
    IGuardedBackend,
    IVolumeReader,
    IVolumeWriter,
    PluginContext,
)
from bootvol.model import ConnectionInfo
from bootvol.options import Options, OwnFolder
from bootvol.threads import Threads

#: Follow no link that somebody else may have made, and pass no descriptor to child processes.
_OURS: Final = os.O_NOFOLLOW | os.O_CLOEXEC


class ShelfOptions(Options):
    """A table ``[[backends]]`` of this plugin."""

    directory: OwnFolder
    """The directory of the volumes.  The daemon creates the directory at its start."""


@implementer(IBlockBackend, IGuardedBackend)
class ShelfBackend:
    """Stores each volume as a sparse file.  A new file reads as zeros."""

    # The contract suite tests the declared capabilities. Declare only what the backend has.
    capabilities = Capabilities(reads_zero_when_new=True, block_size=512, local=True)

    def __init__(self, name: str, directory: Path, threads: Threads) -> None:
        self.name = name
        self._directory = directory
        self._threads = threads

    async def allocate(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.allocate`."""
        await self._threads.run(self._allocate, volume, size)

    def _allocate(self, volume: str, size: int) -> None:
        # Idempotent, because a daemon that was killed during the call calls again.
        with failures(f"Backend {self.name} cannot make {volume}"):
            flags = os.O_CREAT | os.O_RDWR | _OURS
            descriptor = os.open(self._directory / volume, flags, 0o600)
            try:
                if self._checked(descriptor, volume).st_size not in (0, size):
                    raise BackendFailed(f"{volume} of backend {self.name} has another size.")
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._sync()

    async def open_writer(self, volume: str) -> IVolumeWriter:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_writer`."""
        # Not run(): if nobody wants it any more by the time it is open, it is shut again.
        return await self._threads.obtain(OpenDevice.shut, self._to_write, volume)

    def _to_write(self, volume: str) -> OpenDevice:
        return OpenDevice.to_write(self._threads, self._open(volume, os.O_RDWR), volume)

    async def open_reader(self, volume: str) -> IVolumeReader:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_reader`."""
        return await self._threads.obtain(OpenDevice.shut, self._to_read, volume)

    def _to_read(self, volume: str) -> OpenDevice:
        return OpenDevice.to_read(self._threads, self._open(volume, os.O_RDONLY), volume)

    def _open(self, volume: str, flags: int) -> int:
        with failures(f"Backend {self.name} cannot open {volume}"):
            try:
                descriptor = os.open(self._directory / volume, flags | _OURS)
            except FileNotFoundError as error:
                raise VolumeMissing(f"Backend {self.name} has no volume {volume}.") from error
        try:
            self._checked(descriptor, volume)
        except BackendFailed:
            os.close(descriptor)
            raise
        return descriptor

    def _checked(self, descriptor: int, volume: str) -> os.stat_result:
        """Check that the open file is a regular file, and so a volume."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BackendFailed(f"{volume} of backend {self.name} is no file.")
        return found

    async def delete(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.delete`."""
        await self._threads.run(self._delete, volume)

    def _delete(self, volume: str) -> None:
        with failures(f"Backend {self.name} cannot delete {volume}"):
            path = self._directory / volume
            if path.exists():
                self._check_unused(volume)
            path.unlink(missing_ok=True)
            self._sync()

    async def check_unused(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IGuardedBackend.check_unused`."""
        await self._threads.run(self._check_unused, volume)

    def _check_unused(self, volume: str) -> None:
        descriptor = self._open(volume, os.O_RDONLY)
        try:
            check_unused(descriptor, volume)
        finally:
            os.close(descriptor)

    async def connection(self, volume: str) -> ConnectionInfo:
        """See :meth:`bootvol.interfaces.IBlockBackend.connection`."""
        await (await self.open_reader(volume)).close()
        return ConnectionInfo("file", str(self._directory / volume))

    def _sync(self) -> None:
        """Make new and deleted names survive a loss of power."""
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _make(options: ShelfOptions, context: PluginContext) -> ShelfBackend:
    # The daemon calls this function once, at its start. Import a driver's library here, not above:
    # then only daemons with this backend need the library.
    private.make("directory", options.directory)
    return ShelfBackend(context.name, options.directory, context.threads)


PLUGIN: Final = BackendPlugin(settings=ShelfOptions, factory=_make)
