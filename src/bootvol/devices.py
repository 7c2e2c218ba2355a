"""For backends: a volume that the system shows as a file or a block device, held open.

A backend opens the descriptor in its own way; what is written, zeroed, flushed and read through it
is the same for all, and so is how the system's errors become the contract's.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from zope.interface import alsoProvides, implementer

from bootvol.errors import BackendFailed, NoSpace, VolumeInUse
from bootvol.interfaces import ISparse, IVolumeReader, IVolumeWriter
from bootvol.model import Extent
from bootvol.shortage import NoThread
from bootvol.threads import Threads

#: Descriptors that the start of a process takes: both ends of its pipes, and one to see the others.
_OF_A_PROCESS: Final = 16
#: How QEMU complains of that (util/qemu-thread-posix.c).
_NO_THREAD: Final = "qemu_thread_create: Resource temporarily unavailable"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: The most zeros that are written at once; bytes.
_BLANK: Final = 1024 * 1024
#: How much a thread zeroes before it is seen whether that is still wanted; bytes.
_PIECE: Final = 64 * 1024 * 1024
#: How much of a file a thread gives back to its file system before that is seen; bytes.
_PUNCHED: Final = 16 * 1024**3
#: From linux/falloc.h: take a range of a file out, so that it reads as zeros; its size stays.
_PUNCH_HOLE: Final = 0x02 | 0x01
#: How file systems say that they cannot do what is asked for.
_UNABLE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY})
#: The most extents that are told of at once.
_EXTENTS: Final = 1024
#: For fallocate(2), of which Python has only the part that makes files larger.
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
#: From linux/fs.h: make a range of a block device read as zeros, whatever the device can do for it.
_BLKZEROOUT: Final = 0x127F

#: struct flock of Linux's 64-bit machines, and the bytes that QEMU may lock: where, and how many.
_FLOCK: Final = "hhqqi4x"
_QEMU_LOCKS: Final = (100, 200)


@contextmanager
def failures(what: str) -> Iterator[None]:
    """Turn the system's errors into the contract's.

    :param what: what failed and where, as the beginning of a sentence that the error ends:
        ``"Backend disks cannot open volume-1"``.
    :raises NoSpace: in place of an OSError that means that something is full.
    :raises BackendFailed: in place of any other OSError.
    """
    try:
        yield
    except OSError as error:
        kind = NoSpace if error.errno in _FULL else BackendFailed
        raise kind(f"{what}: {error.strerror or error}.") from error


def check_descriptors() -> None:
    """See that there are enough descriptors to start a process: call this just before.

    A process that lacks one when it begins ends with exit code 1, and does not say why.

    :raises OSError: there are too few (EMFILE or ENFILE).
    """
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(_OF_A_PROCESS))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def shortage_in(said: str) -> NoThread | None:
    """Return an error to raise from, if a program of QEMU's says that the system gave it no thread.

    The work that the program was for is done again then, instead of failing.

    :param said: the program's complaint.
    """
    return NoThread(said) if _NO_THREAD in said else None


@implementer(IVolumeWriter, IVolumeReader)
class OpenDevice:
    """A regular file or a block device, held open: its name may go meanwhile, this may not.

    A file tells where zeros are (:class:`bootvol.interfaces.ISparse`); a device does not know.

    Made by :meth:`to_write` or :meth:`to_read`, mostly in a thread::

        await threads.obtain(OpenDevice.shut, open_it, volume)

    :param name: what errors call it.
    :param direct: the same, opened for direct I/O, or None.
    :param check: see :meth:`to_write`.
    """

    def __init__(
        self,
        threads: Threads,
        descriptor: int,
        name: str,
        direct: int | None = None,
        check: Callable[[int], object] | None = None,
    ) -> None:
        self._threads = threads
        self._descriptor: int | None = descriptor
        self._name = name
        self._direct = direct
        self._check = check
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            alsoProvides(self, ISparse)

    @classmethod
    def to_write(
        cls,
        threads: Threads,
        descriptor: int,
        name: str = "the volume",
        check: Callable[[int], object] | None = None,
    ) -> OpenDevice:
        """Take over a descriptor that is open for reading and writing.  Blocks.

        Where the file system lets us, what is written goes around the page cache.

        :param name: what errors call it.
        :param check: blocks, in a thread; called with the descriptor after each flush.  It raises
            BackendFailed when this is not what the volume's name leads to any more: what nobody
            will find again must not be taken for safe.
        """
        return cls(threads, descriptor, name, _around_cache(descriptor, os.O_RDWR), check)

    @classmethod
    def to_read(cls, threads: Threads, descriptor: int, name: str = "the volume") -> OpenDevice:
        """Take over a descriptor that is open for reading.  Blocks.

        What is read comes from the device, not from what memory still holds of it.

        :param name: what errors call it.
        :raises BackendFailed: what memory holds could not be written; the descriptor is closed.
        """
        try:
            with failures(f"Reading {name} failed"):
                # Only what the device has can be dropped from memory.
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(threads, descriptor, name, _around_cache(descriptor, os.O_RDONLY))

    async def write(self, offset: int, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.write`."""
        await self._threads.run(self._write, self._open_descriptor(), offset, data)

    async def zero(self, offset: int, length: int) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.zero`.

        A file gives the space back where its file system can; else zeros are written.  On a block
        device they are written, since one that forgets need not give zeros back.
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
            raise BackendFailed(f"Nothing can be done to {self._name}: it is closed.")
        return self._descriptor

    # --- in threads ------------------------------------------------------------------------------

    def _write(self, descriptor: int, offset: int, data: memoryview) -> None:
        """Write around the page cache: copying into it costs several times what the disk does.

        Memory that is not aligned goes through it all the same.
        """
        with failures(f"Writing {self._name} failed"):
            if self._direct is not None:
                try:
                    return _write_all(self._direct, offset, data)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
            return _write_all(descriptor, offset, data)

    def _zero(self, descriptor: int, offset: int, length: int) -> int:
        """Zero as much of a range as may be done at once; return how many bytes that is."""
        with failures(f"Zeroing {self._name} failed"):
            found = os.fstat(descriptor)
            punched = min(length, _PUNCHED)
            if stat.S_ISREG(found.st_mode) and _punch(descriptor, offset, punched):
                if found.st_size < offset + punched:
                    os.ftruncate(descriptor, offset + punched)
                return punched
            length = min(length, _PIECE)
            if stat.S_ISBLK(found.st_mode):
                # The system writes them, around the page cache, or has the device do it.
                fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("=QQ", offset, length))
                return length
            blank = memoryview(bytes(min(length, _BLANK)))
            for start in range(0, length, _BLANK):
                _write_all(descriptor, offset + start, blank[: length - start])
            return length

    def _flush(self, descriptor: int) -> None:
        with failures(f"Flushing {self._name} failed"):
            os.fsync(descriptor)
        if self._check is not None:
            self._check(descriptor)

    def _extents(self, descriptor: int, offset: int, length: int) -> Sequence[Extent]:
        with failures(f"Reading {self._name} failed"):
            return extents(descriptor, offset, length)

    def _read(self, descriptor: int, offset: int, target: memoryview) -> None:
        with failures(f"Reading {self._name} failed"):
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
                raise BackendFailed(
                    f"Reading {self._name} failed: it ends before what was to be read."
                )
            target, offset = target[count:], offset + count


def extents(descriptor: int, offset: int, length: int) -> Sequence[Extent]:
    """Tell where a file reads as zeros, as its file system knows.  Blocks, briefly.

    What is preallocated counts as zeros; what only memory holds so far counts as data (lseek(2)).
    What lies beyond the file's end counts as data, so that whoever reads it finds that out.

    :param descriptor: open for reading; its position is moved.
    :returns: as :meth:`bootvol.interfaces.ISparse.extents`.
    :raises OSError: the file cannot be read.
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
    """Return where data, or a hole, comes next in a file: :data:`sys.maxsize` if nowhere."""
    size = os.fstat(descriptor).st_size
    if offset < size:
        try:
            return os.lseek(descriptor, offset, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:
                # Nothing but a hole follows.
                return size
            if error.errno not in _UNABLE:
                raise
    # As if all were data.
    return offset if whence == os.SEEK_DATA else sys.maxsize


def check_unused(descriptor: int, name: str) -> None:
    """See that no process of QEMU has a file or block device open on this machine.  Blocks.

    QEMU locks a byte of an image for each permission that it uses, and one for each that it does
    not share (block/file-posix.c: RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE).  The locks belong to
    open files, so they end with the process.

    :param descriptor: of the same, open in any way.
    :param name: what the error calls it.
    :raises VolumeInUse: a guest, an export or a tool has it open.
    :raises OSError: it cannot be told.
    """
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, *_QEMU_LOCKS, 0)
    told = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    if struct.unpack(_FLOCK, told)[0] != fcntl.F_UNLCK:
        raise VolumeInUse(f"A guest or another program has {name} open.")


def can_go_around_cache(descriptor: int) -> bool:
    """Tell whether a file that is open can be read around the page cache (direct I/O).  Blocks."""
    direct = _around_cache(descriptor, os.O_RDONLY)
    if direct is None:
        return False
    os.close(direct)
    return True


def _around_cache(descriptor: int, access: int) -> int | None:
    """Open the same once more, for direct I/O; None where the file system does not let us."""
    try:
        # By the descriptor, not by the name again: it must be the very same file.
        path = f"/proc/self/fd/{descriptor}"
        return os.open(path, access | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None


def _punch(descriptor: int, offset: int, length: int) -> bool:
    """Take a range out of a file; tell whether its file system can do that."""
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
