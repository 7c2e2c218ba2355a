"""An open volume of a backend whose volumes are files or block devices of the system.

Each backend opens the descriptor in its own way.  Write, zero, flush and read are the same for all
such backends, and so is the translation of the system's errors into the errors of the contract.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, TypeAlias

from zope.interface import alsoProvides, implementer

from bootvol.errors import BackendFailed, FileTooLarge, NoSpace, VolumeInUse
from bootvol.file_systems import is_local
from bootvol.interfaces import ISparse, IVolumeReader, IVolumeWriter
from bootvol.model import Extent
from bootvol.threads import Threads

#: The errors of the contract, by the system's error number.
_KINDS: Final[dict[int | None, type[BackendFailed]]] = {
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EFBIG: FileTooLarge,
}
#: The most zeros in one write, in bytes.
_BLANK: Final = 1024 * 1024
#: Bytes that a thread zeroes before the coroutine can notice a cancellation.
_PIECE: Final = 64 * 1024 * 1024
#: Bytes that a thread returns to the file system before the coroutine can notice a cancellation.
_PUNCHED: Final = 16 * 1024**3
#: From linux/falloc.h: make a hole in a file, which reads as zeros; the size of the file stays.
_PUNCH_HOLE: Final = 0x02 | 0x01
#: The errors of file systems that do not support an operation.
_UNABLE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY})
#: The most extents in one result.
_EXTENTS: Final = 1024
#: For fallocate(2): Python supports only the part that extends files.
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
#: From linux/fs.h: make a range of a block device read as zeros, on any device.
_BLKZEROOUT: Final = 0x127F
#: The ``struct flock`` of 64-bit Linux.
_FLOCK: Final = "hhqqi4x"
#: The bytes that QEMU may lock: offset and length.
_QEMU_LOCKS: Final = (100, 200)


@contextmanager
def failures(what: str) -> Iterator[None]:
    """Turn the system's errors into the errors of the contract.

    :param what: the failed action and its object, as the beginning of a sentence:
        ``"Backend disks cannot open volume-1"``.  The error ends the sentence.
    :raises NoSpace: if an OSError means that something is full.
    :raises FileTooLarge: if an OSError means that no file may be so large.
    :raises BackendFailed: if any other OSError occurs.
    """
    try:
        yield
    except OSError as error:
        kind = _KINDS.get(error.errno, BackendFailed)
        raise kind(f"{what}: {error.strerror or error}.") from error


#: A function that does as :func:`failures`.
Failures: TypeAlias = Callable[[str], AbstractContextManager[None]]


@implementer(IVolumeWriter, IVolumeReader)
class OpenDevice:
    """An open regular file or block device.  The object stays usable if the name goes meanwhile.

    A file knows where zeros are (:class:`bootvol.interfaces.ISparse`).  A device does not.

    Create objects with :meth:`to_write` or :meth:`to_read`, mostly in a thread::

        await threads.obtain(OpenDevice.shut, open_it, volume)

    :param name: name of the volume in errors.
    :param direct: descriptor of the same file or device, open for direct I/O, or None.
    :param check: see :meth:`to_write`.
    :param told: turns the system's errors into the contract's, as :func:`failures` does.
    """

    def __init__(
        self,
        threads: Threads,
        descriptor: int,
        name: str,
        direct: int | None = None,
        check: Callable[[int], object] | None = None,
        told: Failures = failures,
    ) -> None:
        self._threads = threads
        self._failures = told
        self._descriptor: int | None = descriptor
        self._name = name
        self._direct = direct
        self._check = check
        self._size = _size_of(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            alsoProvides(self, ISparse)

    @classmethod
    def to_write(
        cls,
        threads: Threads,
        descriptor: int,
        name: str = "the volume",
        check: Callable[[int], object] | None = None,
        told: Failures = failures,
    ) -> OpenDevice:
        """Take over a descriptor that is open for reading and writing.  Blocks.

        Writes bypass the page cache if the file system allows direct I/O.

        :param name: name of the volume in errors.
        :param check: called with the descriptor after each flush, in a thread; may block.  Raises
            BackendFailed if the volume's name no longer leads to the descriptor's file or device:
            data that nobody will find again must not count as safe.
        """
        return cls(threads, descriptor, name, _around_cache(descriptor, os.O_RDWR), check, told)

    @classmethod
    def to_read(
        cls,
        threads: Threads,
        descriptor: int,
        name: str = "the volume",
        told: Failures = failures,
    ) -> OpenDevice:
        """Take over a descriptor that is open for reading.  Blocks.

        Reads come from the device, and not from old pages in the page cache.

        :param name: name of the volume in errors.
        :raises BackendFailed: if cached pages could not be written; the descriptor is closed.
        """
        try:
            with told(f"Reading {name} failed"):
                # The system drops only those pages from memory that the device has.
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except BaseException:
            os.close(descriptor)
            raise
        direct = _around_cache(descriptor, os.O_RDONLY)
        return cls(threads, descriptor, name, direct, told=told)

    async def write(self, offset: int, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.write`."""
        await self._threads.run(self._write, self._open_descriptor(), offset, data)

    async def zero(self, offset: int, length: int) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.zero`.

        In a file, the range becomes a hole if the file system supports holes; else zeros are
        written.  On a block device, zeros are written, since discarded blocks need not read as
        zeros.
        """
        end = offset + length
        while offset < end:
            descriptor = self._open_descriptor()
            offset += await self._threads.run(self._zero, descriptor, offset, end - offset)

    async def flush(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.flush`."""
        await self._threads.run(self._flush, self._open_descriptor())

    async def read_into(self, offset: int, target: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeReader.read_into`."""
        await self._threads.run(self._read, self._open_descriptor(), offset, target)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """See :meth:`bootvol.interfaces.ISparse.extents`."""
        return await self._threads.run(self._extents, self._open_descriptor(), offset, length)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.close`."""
        await self._threads.run(self.shut)

    def shut(self) -> None:
        """Close at once.  Blocks; idempotent."""
        descriptors = (self._descriptor, self._direct)
        self._descriptor = self._direct = None
        for descriptor in descriptors:
            if descriptor is not None:
                os.close(descriptor)

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise BackendFailed(f"{self._name} cannot be used: the volume is closed.")
        return self._descriptor

    # --- in threads ------------------------------------------------------------------------------

    def _write(self, descriptor: int, offset: int, data: memoryview) -> None:
        """Write with direct I/O: copying into the page cache costs several times the disk's time.

        Data in unaligned memory goes through the page cache anyway.
        """
        with self._failures(f"Writing {self._name} failed"):
            self._check_size(descriptor)
            try:
                _write_all(descriptor if self._direct is None else self._direct, offset, data)
            except OSError as error:
                if self._direct is None or error.errno != errno.EINVAL:
                    raise
                _write_all(descriptor, offset, data)
            self._size = max(self._size, offset + len(data))

    def _zero(self, descriptor: int, offset: int, length: int) -> int:
        """Zero as much of a range as allowed at once.  Return the number of zeroed bytes."""
        with self._failures(f"Zeroing {self._name} failed"):
            self._check_size(descriptor)
            found = os.fstat(descriptor)
            punched = min(length, _PUNCHED)
            if stat.S_ISREG(found.st_mode) and _punch(descriptor, offset, punched):
                if found.st_size < offset + punched:
                    # Unlike ftruncate(2), this keeps what another thread writes behind the range.
                    os.posix_fallocate(descriptor, offset + punched - 1, 1)
                    self._size = max(self._size, offset + punched)
                return punched
            length = min(length, _PIECE)
            if stat.S_ISBLK(found.st_mode):
                # The system writes the zeros around the page cache, or lets the device do so.
                fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("=QQ", offset, length))
                return length
            blank = memoryview(bytes(min(length, _BLANK)))
            for start in range(0, length, _BLANK):
                _write_all(descriptor, offset + start, blank[: length - start])
            return length

    def _flush(self, descriptor: int) -> None:
        with self._failures(f"Flushing {self._name} failed"):
            os.fsync(descriptor)
            self._check_size(descriptor)
        if self._check is not None:
            self._check(descriptor)

    def _check_size(self, descriptor: int) -> None:
        # A write behind the new end of a truncated file would hide the loss of bytes.
        if _size_of(descriptor) < self._size:
            raise BackendFailed(f"{self._name} has lost bytes: the volume became smaller.")

    def _extents(self, descriptor: int, offset: int, length: int) -> Sequence[Extent]:
        with self._failures(f"Reading {self._name} failed"):
            return extents(descriptor, offset, length)

    def _read(self, descriptor: int, offset: int, target: memoryview) -> None:
        with self._failures(f"Reading {self._name} failed"):
            if self._direct is not None:
                try:
                    return self._fill(self._direct, offset, target)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
            return self._fill(descriptor, offset, target)

    def _fill(self, descriptor: int, offset: int, target: memoryview) -> None:
        while target:
            count = os.preadv(descriptor, [target], offset)
            if not count:
                raise BackendFailed(f"Reading {self._name} failed: the volume ends too early.")
            target, offset = target[count:], offset + count


def _size_of(descriptor: int) -> int:
    """Return the size of a file or block device in bytes.  The descriptor's position moves."""
    return os.lseek(descriptor, 0, os.SEEK_END)


def extents(descriptor: int, offset: int, length: int) -> Sequence[Extent]:
    """Return the extents of data and of zeros that the file system knows.  Blocks, briefly.

    Preallocated space counts as zeros; data that is only in memory counts as data (lseek(2)).  The
    range beyond the file's end counts as data, so that a reader notices the end.

    :param descriptor: a descriptor that is open for reading; its position moves.
    :returns: the extents, as in :meth:`bootvol.interfaces.ISparse.extents`.
    :raises OSError: if the file cannot be read.
    """
    found: list[Extent] = []
    at, end = offset, offset + length
    while at < end and len(found) < _EXTENTS:
        data = min(_seek(descriptor, at, os.SEEK_DATA), end)
        if data > at:
            found.append(Extent(data - at, zero=True))
        hole = min(_seek(descriptor, data, os.SEEK_HOLE), end) if data < end else end
        if hole > data:
            found.append(Extent(hole - data, zero=False))
        at = hole
    return found


def _seek(descriptor: int, offset: int, whence: int) -> int:
    """Return the offset of the next data or hole in a file; :data:`sys.maxsize` if none follows."""
    size = os.fstat(descriptor).st_size
    if offset < size:
        try:
            return os.lseek(descriptor, offset, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:
                # Only a hole follows.
                return size
            if error.errno not in _UNABLE:
                raise
    # Treat the rest as data.
    return offset if whence == os.SEEK_DATA else sys.maxsize


def check_unused(descriptor: int, name: str) -> None:
    """Check that no QEMU process on this machine has a file or block device open.  Blocks.

    QEMU locks one byte of an image for each used permission, and one byte for each permission that
    is not shared (block/file-posix.c: RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE).  The locks belong
    to open files, so the locks end with the process.

    :param descriptor: a descriptor of the file or device, open in any way.
    :param name: name of the volume in the error.
    :raises VolumeInUse: if a guest, an export or a tool has the volume open.
    :raises OSError: if the system does not tell.
    """
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, *_QEMU_LOCKS, 0)
    told = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    if struct.unpack(_FLOCK, told)[0] != fcntl.F_UNLCK:
        raise VolumeInUse(f"A guest or another program has {name} open.")


def check_unwritten(descriptor: int, name: str) -> None:
    """Check that no process on this machine can write to a file, also one without locks.  Blocks.

    The kernel grants a read lease only if nobody has the file open for writing, by whatever
    descriptor, mapped memory, or message on its way (fcntl(2), "Leases").  NFS and SMB grant none
    without a delegation of the server.  So this check counts only on the file systems of this
    machine, where the kernel decides alone.

    :param descriptor: a descriptor of the file, open for reading only.
    :param name: name of the volume in the error.
    :raises VolumeInUse: if a process has the file open for writing.
    """
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not is_local(descriptor):
        return
    try:
        # Whoever opens the file meanwhile waits for the end of the lease, and the kernel sends a
        # signal.  The usual one would end the daemon; processes ignore this one.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        # Other errors mean that the daemon or the file system has no leases.
        if error.errno == errno.EAGAIN:
            raise VolumeInUse(f"A guest or another program can write to {name}.") from error
    else:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def can_go_around_cache(descriptor: int) -> bool:
    """Return whether an open file supports direct I/O, which bypasses the page cache.  Blocks."""
    direct = _around_cache(descriptor, os.O_RDONLY)
    if direct is None:
        return False
    os.close(direct)
    return True


def _around_cache(descriptor: int, access: int) -> int | None:
    """Open the file again for direct I/O.  Return None if the file system does not allow that."""
    try:
        # Open through the descriptor, not by name: this must be the very same file.
        path = f"/proc/self/fd/{descriptor}"
        return os.open(path, access | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None


def _punch(descriptor: int, offset: int, length: int) -> bool:
    """Make a hole in a file.  Return False if the file system does not support holes."""
    zone = (ctypes.c_int64(offset), ctypes.c_int64(length))
    if not _LIBC.fallocate64(descriptor, _PUNCH_HOLE, *zone):
        return True
    number = ctypes.get_errno()
    if number in _UNABLE:
        return False
    raise OSError(number, os.strerror(number))


def _write_all(descriptor: int, offset: int, data: memoryview) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
