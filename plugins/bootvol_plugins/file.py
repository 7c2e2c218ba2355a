"""Backend ``file``: each volume is a sparse raw file in one folder."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from zope.interface import implementer

from bootvol.devices import OpenDevice, failures
from bootvol.errors import BackendFailed, NoSpace
from bootvol.interfaces import (
    BackendPlugin,
    Capabilities,
    IBlockBackend,
    IVolumeReader,
    IVolumeWriter,
    PluginContext,
)
from bootvol.model import Connection
from bootvol.options import ConfigPath, Options
from bootvol.threads import Threads


class FileOptions(Options):
    """``[[backends]]`` of this plugin."""

    directory: ConfigPath


@implementer(IBlockBackend)
class FileBackend:
    """Sparse files.  A new one reads as zeros, and takes no space until it is written."""

    # Whole blocks of 4 KiB suit direct I/O on any disk.
    capabilities = Capabilities(reads_zero_when_new=True, block_size=4096)

    def __init__(self, name: str, directory: Path, threads: Threads) -> None:
        self.name = name
        self._directory = directory
        self._threads = threads

    async def allocate(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.allocate`."""
        await self._threads.run(self._allocate, volume, size)

    def _allocate(self, volume: str, size: int) -> None:
        with failures(f"Making {self._called(volume)} failed"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_space(size)
            path = self._path(volume)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                # What was there already must look like an earlier call's work.
                found = os.fstat(descriptor)
                ours = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
                if not ours or found.st_size not in (0, size):
                    raise BackendFailed(
                        f"Something else is in the place of {self._called(volume)}."
                    )
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._sync_directory()

    def _check_space(self, size: int) -> None:
        # Sparse files promise more than there is: what is refused is what could never fit.
        free = os.statvfs(self._directory)
        if size > free.f_bavail * free.f_frsize:
            raise NoSpace(
                f"Backend {self.name} has {free.f_bavail * free.f_frsize} bytes free;"
                f" the volume needs {size}."
            )

    async def open_writer(self, volume: str) -> IVolumeWriter:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_writer`."""
        return await self._threads.obtain(OpenDevice.shut, self._open_to_write, volume)

    async def open_reader(self, volume: str) -> IVolumeReader:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_reader`."""
        return await self._threads.obtain(OpenDevice.shut, self._open_to_read, volume)

    def _open(self, volume: str, flags: int) -> int:
        with failures(f"Opening {self._called(volume)} failed"):
            return os.open(self._path(volume), flags | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _open_to_read(self, volume: str) -> OpenDevice:
        descriptor = self._open(volume, os.O_RDONLY)
        return OpenDevice.to_read(self._threads, descriptor, self._called(volume))

    def _open_to_write(self, volume: str) -> OpenDevice:
        descriptor = self._open(volume, os.O_RDWR)
        return OpenDevice.to_write(self._threads, descriptor, self._called(volume))

    async def delete(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.delete`."""
        await self._threads.run(self._delete, volume)

    def _delete(self, volume: str) -> None:
        with failures(f"Deleting {self._called(volume)} failed"):
            self._path(volume).unlink(missing_ok=True)
            if self._directory.exists():
                # Also when it was gone: an earlier call may have ended between the two.
                self._sync_directory()

    async def connection(self, volume: str) -> Connection:
        """See :meth:`bootvol.interfaces.IBlockBackend.connection`."""
        path = self._path(volume)
        if not await self._threads.run(path.is_file):
            raise BackendFailed(f"There is no {self._called(volume)}.")
        return Connection("file", str(path))

    def _path(self, volume: str) -> Path:
        return self._directory / f"{volume}.raw"

    def _called(self, volume: str) -> str:
        return f"{volume} on backend {self.name}"

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _make(options: FileOptions, context: PluginContext) -> FileBackend:
    return FileBackend(context.name, options.directory, context.threads)


PLUGIN = BackendPlugin(FileOptions, _make)
