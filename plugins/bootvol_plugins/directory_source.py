"""The images in the operator's folder, and the streams of their files."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from bootvol.devices import extents
from bootvol.errors import ImageNotFound, SourceFailed
from bootvol.interfaces import IFileStream, IImageSource, IImageStream, ISparseStream
from bootvol.model import Caller, Digest, Extent, Image
from bootvol.threads import Shared, Threads
from bootvol_plugins.directory_index import Entry, IndexFile, Names, is_shown

#: Seconds within which two writes may leave the same times: a tick of the system's clock has at
#: most 10 milliseconds (Linux, kernel/Kconfig.hz).
_TICK: Final = 0.02


@implementer(IImageSource)
class DirectorySource:
    """Images in the operator's folder. The source follows links: the operator made them."""

    def __init__(self, name: str, directory: Path, threads: Threads) -> None:
        self.name = name
        self._directory = directory
        self._threads = threads
        self._index = IndexFile(name, directory)
        #: The running listing, and the next one, which begins after the running one.
        self._listing: Shared[list[Image]] | None = None
        self._next: Shared[list[Image]] | None = None

    async def images(self, caller: Caller) -> Sequence[Image]:
        """See :meth:`bootvol.interfaces.IImageSource.images`.

        Listing thousands of files takes a while. Concurrent callers share the next listing.
        """
        listing = self._next
        if listing is None:
            self._next = listing = Shared()
            Deferred.fromCoroutine(self._list(listing)).addBoth(listing.finish)
        return await listing.wait()

    async def find(self, caller: Caller, reference: str) -> Image:
        """See :meth:`bootvol.interfaces.IImageSource.find`."""
        return self._image(*await self._threads.run(self._find, reference))

    async def open(
        self, image: Image, offset: int = 0, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IImageSource.open`."""
        stream = await self._threads.obtain(FileStream.shut, self._open, image)
        if validator == stream.validator:
            stream.begin_at(offset)
        return stream

    async def _list(self, listing: Shared[list[Image]]) -> list[Image]:
        """List the images after the end of the running listing.

        :param listing: fires with the result of this listing.
        """
        if self._listing is not None:
            with contextlib.suppress(Exception):
                await self._listing.wait()
        self._listing, self._next = listing, None
        return await self._threads.run(self._images)

    def _images(self) -> list[Image]:
        with self._failures():
            files = {
                each.name: status
                for each in os.scandir(self._directory)
                if is_shown(each.name) and (status := _status(each)) is not None
            }
            found = self._by_id(files)
        return [self._image(*found[each], files[found[each][0]]) for each in sorted(found)]

    def _find(self, reference: str) -> tuple[str, Entry | None, os.stat_result]:
        """Return the name of an image's file, the image's entry in the index, and the status."""
        with self._failures():
            found = self._by_id(frozenset(filter(is_shown, os.listdir(self._directory))))
            image_id = Names(found).meant(reference)
            if image_id is not None:
                name, entry = found[image_id]
                status = _status(self._directory / name)
                if status is not None:
                    return name, entry, status
        raise ImageNotFound(reference)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn the system's errors about the folder into failures of the source."""
        try:
            yield
        except OSError as error:
            raise SourceFailed(f"Source {self.name} cannot be read: {error.strerror}") from error

    def _by_id(self, names: Collection[str]) -> dict[str, tuple[str, Entry | None]]:
        """Return each image's file and entry in the index, by image id.

        :param names: the current names in the folder, which others may change at any time.
        """
        files = Names(names)
        indexed = {
            entry.id: (name, entry)
            for entry in self._index.entries()
            if (name := files.meant(entry.file)) is not None
        }
        plain = set(names).difference(name for name, _ in indexed.values())
        return {**{name: (name, None) for name in plain}, **indexed}

    def _image(self, name: str, entry: Entry | None, file: os.stat_result) -> Image:
        digest = Digest("sha512", entry.sha512.lower()) if entry and entry.sha512 else None
        of_file = Image(
            id=name,
            source=self.name,
            name=name,
            size_bytes=file.st_size,
            digest=digest,
            validator=_validator(file, digest),
            changed_at=file.st_mtime,
        )
        if entry is None:
            return of_file
        return attrs.evolve(
            of_file,
            id=entry.id,
            name=entry.name or entry.id,
            format=entry.format,
            min_disk_gib=entry.min_disk,
        )

    def _path(self, image: Image) -> Path:
        """Return the path of an image's file. Blocks."""
        name, _, _ = self._find(image.id)
        return self._directory / name

    def _open(self, image: Image) -> FileStream:
        try:
            # O_NONBLOCK: the open must not hang if a pipe has replaced the image's file.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(self._path(image), flags)
        except FileNotFoundError:
            raise ImageNotFound(image.id) from None
        except OSError as error:
            raise SourceFailed(f"Image {image.id} cannot be opened: {error.strerror}") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise ImageNotFound(image.id)
        if abs(time.time() - status.st_ctime) < _TICK:
            # A later write might leave the same times.  So read no byte before the next tick.
            time.sleep(_TICK)
        return FileStream(self._threads, descriptor, status, image.digest)


@implementer(IImageStream, IFileStream, ISparseStream)
class FileStream:
    """An open file.

    :param digest: the stated digest of the image; None without one.
    """

    def __init__(
        self, threads: Threads, descriptor: int, status: os.stat_result, digest: Digest | None
    ) -> None:
        self.size: int | None = status.st_size
        self.validator: str | None = _validator(status, digest)
        self.offset = 0
        self._digest = digest
        self._status = status
        self._descriptor: int | None = descriptor
        self._threads = threads
        self._next = 0
        self._synced = False

    def begin_at(self, offset: int) -> None:
        """Skip the bytes that the reader has already."""
        self.offset = self._next = offset

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        count = await self._threads.run(_read, self.fileno(), self._next, target)
        self._next += count
        if count < len(target):
            await self.check()
        return count

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """See :meth:`bootvol.interfaces.ISparse.extents`."""
        return await self._threads.run(self._extents, self.fileno(), offset, length)

    def _extents(self, descriptor: int, offset: int, length: int) -> Sequence[Extent]:
        if not self._synced:
            # Some file systems (ZFS before 2.2.2) report data as holes while the data is in memory
            # only.  A file system that cannot sync has nothing in memory only.
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
            self._synced = True
        try:
            return extents(descriptor, offset, length)
        except OSError as error:
            raise SourceFailed(f"The image cannot be read: {error.strerror}") from error

    def skip(self, length: int) -> None:
        """See :meth:`bootvol.interfaces.ISparseStream.skip`."""
        self._next += length

    def fileno(self) -> int:
        """See :meth:`bootvol.interfaces.IFileStream.fileno`."""
        if self._descriptor is None:
            raise SourceFailed("the image has been closed")
        return self._descriptor

    async def check(self) -> None:
        """See :meth:`bootvol.interfaces.IFileStream.check`."""
        now, before = await self._threads.run(os.fstat, self.fileno()), self._status
        if _content(now) != _content(before):
            raise SourceFailed("The image's file changed while bootvol read it.")
        # A new or removed name of the file also changes st_ctime, but changes no byte.
        linked = now.st_nlink != before.st_nlink
        if not linked and _validator(now, self._digest) != self.validator:
            raise SourceFailed(
                "The image's file, or its owner, rights or times, changed while bootvol read it."
            )

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        await self._threads.run(self.shut)

    def shut(self) -> None:
        """Close the file at once. Blocks."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _validator(file: os.stat_result, digest: Digest | None) -> str:
    """Return a value that changes with each change of a file.

    Programs can set the other times, as ``cp --preserve`` does, but not ``st_ctime``.  Changes of
    owner, rights or times also change ``st_ctime``.  With a stated digest, the digest shows changed
    bytes, so ``st_ctime`` does not count.
    """
    return _content(file) if digest else f"{_content(file)}-{file.st_ctime_ns}"


def _content(file: os.stat_result) -> str:
    return f"{file.st_ino}-{file.st_size}-{file.st_mtime_ns}"


def _status(entry: os.DirEntry[str] | Path) -> os.stat_result | None:
    """Return the status of a file, behind a link or not; None if the entry is not a file.

    A broken link, or a file that was just deleted, does not affect other images.
    """
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    except OSError:
        if entry.is_symlink():
            return None
        raise
    return status if stat.S_ISREG(status.st_mode) else None


def _read(descriptor: int, offset: int, target: memoryview) -> int:
    done = 0
    try:
        while done < len(target):
            count = os.preadv(descriptor, [target[done:]], offset + done)
            if not count:
                break
            done += count
    except OSError as error:
        raise SourceFailed(f"The image cannot be read: {error.strerror}") from error
    return done
