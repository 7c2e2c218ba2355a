"""Backend ``file``: each volume is a sparse raw file in one folder."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from zope.interface import implementer

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

_AROUND_CACHE: Final = os.O_DIRECT | os.O_CLOEXEC
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


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
        with _failures(f"volume {volume} cannot be made"):
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
                    raise BackendFailed(f"Something else is in the place of {volume}.")
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
        return await self._threads.obtain(_OpenFile.shut, self._open_to_write, volume)

    async def open_reader(self, volume: str) -> IVolumeReader:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_reader`."""
        return await self._threads.obtain(_OpenFile.shut, self._open_to_read, volume)

    def _open(self, volume: str, flags: int) -> int:
        with _failures(f"volume {volume} cannot be opened"):
            return os.open(self._path(volume), flags | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _open_to_read(self, volume: str) -> _OpenFile:
        return _OpenFile(self._threads, self._open(volume, os.O_RDONLY))

    def _open_to_write(self, volume: str) -> _OpenFile:
        """Open a volume through the page cache and, where the file system lets us, around it."""
        descriptor = self._open(volume, os.O_RDWR)
        try:
            # By the descriptor, not by the name again: it must be the very same file.
            direct = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | _AROUND_CACHE)
        except OSError:
            direct = None
        return _OpenFile(self._threads, descriptor, direct)

    async def delete(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.delete`."""
        await self._threads.run(self._delete, volume)

    def _delete(self, volume: str) -> None:
        with _failures(f"volume {volume} cannot be deleted"):
            self._path(volume).unlink(missing_ok=True)
            if self._directory.exists():
                # Also when it was gone: an earlier call may have ended between the two.
                self._sync_directory()

    async def connection(self, volume: str) -> Connection:
        """See :meth:`bootvol.interfaces.IBlockBackend.connection`."""
        path = self._path(volume)
        if not await self._threads.run(path.is_file):
            raise BackendFailed(f"volume {volume} is not there")
        return Connection("file", str(path))

    def _path(self, volume: str) -> Path:
        return self._directory / f"{volume}.raw"

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@implementer(IVolumeWriter, IVolumeReader)
class _OpenFile:
    """A volume's file, held open: the name may be taken away meanwhile, the file may not.

    :param direct: the same file, opened for direct I/O, or None.
    """

    def __init__(self, threads: Threads, descriptor: int, direct: int | None = None) -> None:
        self._threads = threads
        self._descriptor: int | None = descriptor
        self._direct = direct

    async def write(self, offset: int, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.write`."""
        descriptor = self._open_descriptor()
        await self._threads.run(_write, self._direct, descriptor, offset, data)

    async def zero(self, offset: int, length: int) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.zero`."""
        await self._threads.run(_zero, self._open_descriptor(), offset, length)

    async def flush(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.flush`."""
        await self._threads.run(_flush, self._open_descriptor())

    async def read(self, offset: int, length: int) -> bytes:
        """See :meth:`bootvol.interfaces.IVolumeReader.read`."""
        return await self._threads.run(_read, self._open_descriptor(), offset, length)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.close`."""
        await self._threads.run(self.shut)

    def shut(self) -> None:
        """Close at once; blocks."""
        for descriptor in (self._descriptor, self._direct):
            if descriptor is not None:
                os.close(descriptor)
        self._descriptor = self._direct = None

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise BackendFailed("the volume has been closed")
        return self._descriptor


def _write(direct: int | None, descriptor: int, offset: int, data: memoryview) -> None:
    """Write around the page cache: copying into it costs several times what the disk does.

    Memory that is not aligned goes through it all the same.
    """
    with _failures("a write failed"):
        if direct is not None:
            try:
                return _write_all(direct, offset, data)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        return _write_all(descriptor, offset, data)


def _write_all(descriptor: int, offset: int, data: memoryview) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _zero(descriptor: int, offset: int, length: int) -> None:
    with _failures("zeroing failed"):
        blank = bytes(min(length, 1024 * 1024))
        for start in range(offset, offset + length, len(blank)):
            _write_all(descriptor, start, memoryview(blank)[: offset + length - start])


def _flush(descriptor: int) -> None:
    with _failures("flushing failed"):
        os.fsync(descriptor)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    with _failures("a read failed"):
        data = b""
        while len(data) < length:
            more = os.pread(descriptor, length - len(data), offset + len(data))
            if not more:
                raise BackendFailed("the volume ends before what was to be read")
            data += more
        return data


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn the system's errors into the contract's."""
    try:
        yield
    except OSError as error:
        kind = NoSpace if error.errno in _FULL else BackendFailed
        raise kind(f"{what}: {error.strerror or error}") from error


def _make(options: FileOptions, context: PluginContext) -> FileBackend:
    return FileBackend(context.name, options.directory, context.threads)


PLUGIN = BackendPlugin(FileOptions, _make)
