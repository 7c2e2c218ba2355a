"""The ``file`` backend: each volume is a sparse raw file in one folder.

The folder is made once, when the daemon starts.  If the folder disappears later, or its disk is
unmounted, calls fail until the folder is back.  Otherwise new volumes would go to another disk, and
be invisible when the right disk is mounted again; and deleted volumes would still exist there.  For
the same reason a file in the folder holds the folder's identity.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from twisted.logger import Logger
from zope.interface import implementer

from bootvol import private
from bootvol.devices import OpenDevice, check_unused, check_unwritten
from bootvol.errors import (
    BackendFailed,
    ConfigurationError,
    NoSpace,
    VolumeCutOff,
    VolumeMissing,
)
from bootvol.interfaces import (
    BackendPlugin,
    Capabilities,
    IAdoptingBackend,
    IBlockBackend,
    ICloningBackend,
    IGrowingBackend,
    IGuardedBackend,
    IIdentifiedBackend,
    IMeasuredBackend,
    IRoutingBackend,
    ISharingBackend,
    IVolumeReader,
    IVolumeWriter,
    PluginContext,
    Room,
)
from bootvol.model import ConnectionInfo, LocalRoute, StoredDisk
from bootvol.threads import Threads
from bootvol_plugins import file_adoption
from bootvol_plugins.file_folder import Folder
from bootvol_plugins.file_options import FileOptions, check, store
from bootvol_plugins.file_store import (
    FICLONE,
    can_clone,
    file_of,
    space,
    status_of,
)

T = TypeVar("T")

#: The system's errors for blocks that a file and a volume cannot share.
_NOT_SHARED: Final = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ETXTBSY}
)
_OURS: Final = os.O_NOFOLLOW | os.O_CLOEXEC


@implementer(
    IBlockBackend,
    ICloningBackend,
    ISharingBackend,
    IIdentifiedBackend,
    IGuardedBackend,
    IRoutingBackend,
    IGrowingBackend,
    IAdoptingBackend,
    IMeasuredBackend,
)
class FileBackend:
    """Sparse files.  A new file reads as zeros, and takes no space until it is written.

    :param directory: an existing folder.
    :param mounted: True if the folder must be a mount point with a mounted disk.
    :param clones: True if the file system lets files share their blocks.
    :param shared: True if other hosts have the same folder.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        directory: Path,
        threads: Threads,
        mounted: bool = False,
        clones: bool = False,
        shared: bool = False,
    ) -> None:
        # Blocks of 4 KiB suit direct I/O on any disk.
        self.capabilities = Capabilities(
            reads_zero_when_new=True,
            block_size=4096,
            clones=clones,
            shares=clones,
            # The second write keeps the disk busy until the reactor hears of the first one's end.
            parallel_writes=2,
            local=not shared,
        )
        self.name = name
        self._directory = directory
        self._threads = threads
        self._folder = Folder(name, directory, mounted)

    async def identity(self) -> str:
        """See :meth:`bootvol.interfaces.IIdentifiedBackend.identity`."""
        return await self._threads.run(self._folder.identity)

    def expect(self, identity: str) -> None:
        """See :meth:`bootvol.interfaces.IIdentifiedBackend.expect`."""
        self._folder.expect(identity)

    async def allocate(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.allocate`."""
        await self._threads.run(self._allocate, volume, size)

    def _allocate(self, volume: str, size: int) -> None:
        with self._folder.open(f"Making {self._called(volume)} failed") as folder:
            if status_of(folder, volume) is None:
                self._check_size(folder, volume, size)
            path = file_of(volume)
            with contextlib.suppress(FileExistsError):
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                os.close(os.open(path, flags, 0o600, dir_fd=folder))
            descriptor = os.open(path, os.O_RDWR | _OURS, dir_fd=folder)
            try:
                # An existing file must look like the work of an earlier call.
                found = os.fstat(descriptor)
                ours = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
                if not ours or found.st_size not in (0, size):
                    raise BackendFailed(
                        f"The place of {self._called(volume)} is taken by something else."
                    )
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.fsync(folder)

    def _check_size(self, folder: int, volume: str, size: int) -> None:
        # Sparse files and clones take space when they are written. Refuse only sizes that could
        # never fit. Some file systems of FUSE do not tell the size of the disk.
        most, free = space(folder)
        if most and size > most:
            # Tenants must not learn how much space the disk has.
            self._log.warn(
                "backend {name} cannot hold {volume}: {size} bytes are needed, and the disk of"
                " {directory} has {most} bytes, {free} of them free",
                name=self.name,
                volume=volume,
                size=size,
                directory=self._directory,
                most=most,
                free=free,
            )
            raise NoSpace(
                f"Backend {self.name} has no room for {volume}: its disk is smaller.",
                never_fits=True,
            )

    async def open_writer(self, volume: str) -> IVolumeWriter:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_writer`."""
        return await self._threads.obtain(OpenDevice.shut, self._open_to_write, volume)

    async def open_reader(self, volume: str) -> IVolumeReader:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_reader`."""
        return await self._threads.obtain(OpenDevice.shut, self._open_to_read, volume)

    def _open(self, volume: str, flags: int) -> int:
        with self._folder.open(f"Opening {self._called(volume)} failed") as folder:
            return os.open(file_of(volume), flags | _OURS, dir_fd=folder)

    def _open_to_read(self, volume: str) -> OpenDevice:
        descriptor = self._open(volume, os.O_RDONLY)
        called = self._called(volume)
        return OpenDevice.to_read(self._threads, descriptor, called, self._folder.failures)

    def _open_to_write(self, volume: str) -> OpenDevice:
        return OpenDevice.to_write(
            self._threads,
            self._open(volume, os.O_RDWR),
            self._called(volume),
            partial(self._check_place, volume),
            self._folder.failures,
        )

    def _check_place(self, volume: str, descriptor: int) -> None:
        """Check that the volume's name still leads to the open file.

        After a move or an unmount of the directory, writes would succeed, but nobody would find
        the data.
        """
        with self._folder.open(f"Flushing {self._called(volume)} failed") as folder:
            found = status_of(folder, volume)
            if found is None or not os.path.samestat(found, os.fstat(descriptor)):
                raise BackendFailed(f"{self._called(volume)} was removed or replaced.")

    async def clone(self, source: str, target: str, size: int, held: int = 0) -> None:
        """See :meth:`bootvol.interfaces.ICloningBackend.clone`."""
        await self._threads.run(self._clone, source, target, size, held)

    def _clone(self, source: str, target: str, size: int, held: int) -> None:
        doing = f"Cloning {self._called(source)} failed"
        with self._folder.open(doing) as folder:
            origin = os.open(file_of(source), os.O_RDONLY | _OURS, dir_fd=folder)
            try:
                if self._make_of(origin, folder, target, size) < held:
                    raise VolumeCutOff(self._called(source), held)
            finally:
                os.close(origin)

    async def share(self, file: int, volume: str, size: int) -> int | None:
        """See :meth:`bootvol.interfaces.ISharingBackend.share`."""
        return await self._threads.run(self._share, file, volume, size)

    def _share(self, file: int, volume: str, size: int) -> int | None:
        with self._folder.open(f"Making {self._called(volume)} failed") as folder:
            try:
                length = self._make_of(file, folder, volume, size)
            except OSError as error:
                if error.errno not in _NOT_SHARED:
                    raise
                length = None
            if length is not None and length <= size:
                return length
            os.unlink(file_of(volume), dir_fd=folder)
            return None

    def _make_of(self, origin: int, folder: int, volume: str, size: int) -> int:
        """Make a volume from the blocks of an open file; return the file's size in bytes."""
        self._check_size(folder, volume, size)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _OURS
        made = os.open(file_of(volume), flags, 0o600, dir_fd=folder)
        try:
            fcntl.ioctl(made, FICLONE, origin)
            length = os.fstat(made).st_size
            os.ftruncate(made, size)
            os.fsync(made)
        finally:
            os.close(made)
        os.fsync(folder)
        return length

    async def grow(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IGrowingBackend.grow`."""
        await self._threads.run(self._grow, volume, size)

    def _grow(self, volume: str, size: int) -> None:
        with self._folder.open(f"Extending {self._called(volume)} failed") as folder:
            self._grow_in(folder, volume, size)

    def _grow_in(self, folder: int, volume: str, size: int) -> None:
        self._check_size(folder, volume, size)
        descriptor = os.open(file_of(volume), os.O_RDWR | _OURS, dir_fd=folder)
        try:
            # Unlike ftruncate(2), the call never cuts off what a later call has added.
            os.posix_fallocate(descriptor, size - 1, 1)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    async def room(self) -> Room:
        """See :meth:`bootvol.interfaces.IMeasuredBackend.room`."""
        return Room(*await self._in_folder(space))

    async def stored_disks(self) -> Sequence[StoredDisk]:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.stored_disks`."""

        return await self._in_folder(file_adoption.stored_disks)

    async def stored_disk(self, place: str) -> StoredDisk | None:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.stored_disk`."""
        return await self._in_folder(lambda folder: file_adoption.stored_disk(folder, place))

    async def _in_folder(self, look: Callable[[int], T]) -> T:
        def looked() -> T:
            with self._folder.open(f"Looking at the disks of backend {self.name} failed") as folder:
                return look(folder)

        return await self._threads.run(looked)

    async def adopt(self, place: str, volume: str, unit: int) -> int:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.adopt`."""

        def adopted() -> int:
            with self._folder.open(f"Taking over {self._called(volume)} failed") as folder:
                file_adoption.adopt(folder, place, volume)
                size = os.stat(file_of(volume), dir_fd=folder, follow_symlinks=False).st_size
                whole = -(-size // unit) * unit
                if size != whole:
                    self._grow_in(folder, volume, whole)
                return whole

        return await self._threads.run(adopted)

    async def give_up(self, volume: str, place: str) -> None:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.give_up`."""

        def give_up() -> None:
            called = self._called(volume)
            with self._folder.open(f"Giving up {called} failed") as folder:
                file_adoption.give_up(folder, volume, place, called)

        await self._threads.run(give_up)

    async def delete(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.delete`."""
        await self._threads.run(self._delete, volume)

    def _delete(self, volume: str) -> None:
        with self._folder.open(f"Deleting {self._called(volume)} failed") as folder:
            with contextlib.suppress(FileNotFoundError):
                found = status_of(folder, volume)
                # Only a file can be open as a volume; anything else goes by its name alone.
                if found is not None and stat.S_ISREG(found.st_mode):
                    self._check_unused(folder, volume)
                os.unlink(file_of(volume), dir_fd=folder)
            # Sync even if the file is gone: an earlier call may have ended before its sync.  A
            # failed file system reports its failure once; later only a change reports it.
            os.utime(folder)
            os.fsync(folder)

    async def check_unused(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IGuardedBackend.check_unused`.

        Check QEMU's locks, and whether a program without locks can write to the file.
        """

        def check() -> None:
            with self._folder.open(f"Finding {self._called(volume)} failed") as folder:
                try:
                    self._check_unused(folder, volume, check_unwritten)
                except FileNotFoundError as error:
                    raise VolumeMissing(f"{self._called(volume)} does not exist.") from error

        await self._threads.run(check)

    def _check_unused(self, folder: int, volume: str, *more: Callable[[int, str], None]) -> None:
        flags = os.O_RDONLY | os.O_NONBLOCK | _OURS
        descriptor = os.open(file_of(volume), flags, dir_fd=folder)
        try:
            for check in (check_unused, *more):
                check(descriptor, self._called(volume))
        finally:
            os.close(descriptor)

    async def connection(self, volume: str) -> ConnectionInfo:
        """See :meth:`bootvol.interfaces.IBlockBackend.connection`."""
        return await self._threads.run(self._connection, volume)

    async def route(self, volume: str) -> LocalRoute:
        """See :meth:`bootvol.interfaces.IRoutingBackend.route`."""
        return LocalRoute((await self.connection(volume)).address)

    def _connection(self, volume: str) -> ConnectionInfo:
        with self._folder.open(f"Finding {self._called(volume)} failed") as folder:
            found = status_of(folder, volume)
            if found is None or not stat.S_ISREG(found.st_mode):
                raise VolumeMissing(f"{self._called(volume)} does not exist.")
        return ConnectionInfo("file", str(self._directory / file_of(volume)))

    def _called(self, volume: str) -> str:
        return f"{volume} on backend {self.name}"


def _make(options: FileOptions, context: PluginContext) -> FileBackend:
    """Make the backend. Blocks on the disk; the reactor does not run yet.

    :raises ConfigurationError: if the directory cannot be made or used, or others may write to
        the directory.
    """
    directory = options.directory
    try:
        private.make(f"backend {context.name!r}: directory", directory)
        # A mount point at the start must remain one.
        mounted = options.mounted or directory.is_mount()
        clones = can_clone(context.name, directory)
    except OSError as error:
        raise ConfigurationError(
            f"backend {context.name!r}: directory {directory} cannot be used: {error.strerror}"
        ) from error
    return FileBackend(context.name, directory, context.threads, mounted, clones, options.shared)


PLUGIN = BackendPlugin(FileOptions, _make, check, store)
