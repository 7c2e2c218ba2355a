"""Source ``directory``: the files of one folder are the images.

An image's id is its file name.  Letters with marks (é) may be one character or two in it, as the
system has them that the file came from: an image is found by either form (Unicode Standard, Annex
15: NFC and NFD).  Only where there are files of both forms does the form tell which one is meant.

A file ``index.toml`` in the folder may say more of some::

    [[images]]
    id = "4"                     # what imageRef says; the file's name then no longer serves
    file = "debian-12.raw"
    name = "Debian 12"           # default: the id
    format = "qcow2"             # raw, iso, qcow2, vmdk, vhd, vhdx, vdi; default: as found
    min_disk = 2                 # GiB; default: 0
    sha512 = "…"                 # of the file; checked on every import
"""

from __future__ import annotations

import contextlib
import os
import stat
import tomllib
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from pydantic import Field, field_validator
from twisted.logger import Logger
from zope.interface import implementer

from bootvol import checks, reading
from bootvol.checks import Mistake
from bootvol.devices import extents
from bootvol.errors import ImageNotFound, SourceFailed
from bootvol.interfaces import (
    IFileStream,
    IImageSource,
    IImageStream,
    ISparseStream,
    PluginContext,
    SourcePlugin,
)
from bootvol.model import Caller, Digest, Extent, Image
from bootvol.options import Options, SharedFolder, Text
from bootvol.threads import Threads

INDEX: Final = "index.toml"
#: What an entry of the index may state.
_FORMATS: Final = frozenset({"raw", "iso", "qcow2", "vmdk", "vhd", "vhdx", "vdi"})
#: Seconds for which the last good index serves in the place of one that is not valid.
_STALE: Final = 3600.0


class DirectoryOptions(Options):
    """``[[sources]]`` of this plugin."""

    directory: SharedFolder
    """Where the images lie, and what its index.toml says of them."""


class Entry(Options):
    """One ``[[images]]`` of the index."""

    id: Text
    file: str = Field(pattern=r"^[^/.][^/]*$")
    name: str | None = None
    format: str | None = None
    min_disk: int = Field(default=0, ge=0, le=2**31 - 1)
    sha512: str | None = Field(default=None, pattern=r"^[0-9A-Fa-f]{128}$")


class Index(Options):
    """The index file as a whole."""

    images: list[Entry] = Field(default=[])

    @field_validator("images")
    @classmethod
    def _ids_differ(cls, value: list[Entry]) -> list[Entry]:
        if len({entry.id for entry in value}) < len(value):
            raise ValueError("an id is given twice")
        return value


@implementer(IImageSource)
class DirectorySource:
    """Images in a folder that the operator keeps; links in it are the operator's own.

    While the index is not valid, as when somebody is editing it, the last good one serves for an
    hour.
    """

    _log = Logger()

    def __init__(self, name: str, directory: Path, threads: Threads) -> None:
        self.name = name
        self._directory = directory
        self._threads = threads
        #: What the last good index said, and when it was last read.
        self._last: tuple[list[Entry], float] | None = None
        self._is_valid = True

    async def images(self, caller: Caller) -> Sequence[Image]:
        """See :meth:`bootvol.interfaces.IImageSource.images`."""
        return await self._threads.run(self._images)

    async def find(self, caller: Caller, reference: str) -> Image:
        """See :meth:`bootvol.interfaces.IImageSource.find`."""
        return self._image(*await self._threads.run(self._find, reference))

    async def open(
        self, image: Image, offset: int = 0, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IImageSource.open`."""
        stream = await self._threads.obtain(_FileStream.shut, self._open, image.id)
        if validator == stream.validator:
            stream.begin_at(offset)
        return stream

    def _images(self) -> list[Image]:
        found = self._found()
        return [self._image(*found[image_id]) for image_id in sorted(found)]

    def _found(self) -> dict[str, tuple[Entry, os.stat_result]]:
        """Return entries and files by image id, as they are now: the folder changes unasked."""
        try:
            entries = self._entries()
            files = {
                entry.name: status
                for entry in os.scandir(self._directory)
                if _is_shown(entry.name) and (status := _status(entry)) is not None
            }
        except OSError as error:
            raise SourceFailed(f"Source {self.name} cannot be read: {error.strerror}") from error
        indexed = [
            (entry, name) for entry in entries if (name := _meant(entry.file, files)) is not None
        ]
        plain = files.keys() - {name for _, name in indexed}
        return {
            **{name: (Entry(id=name, file=name), files[name]) for name in plain},
            **{
                entry.id: (entry.model_copy(update={"file": name}), files[name])
                for entry, name in indexed
            },
        }

    def _find(self, reference: str) -> tuple[Entry, os.stat_result]:
        found = self._found()
        image_id = _meant(reference, found)
        if image_id is None:
            raise ImageNotFound(reference)
        return found[image_id]

    def _entries(self) -> list[Entry]:
        try:
            entries = _read_index(self._directory).images
        except FileNotFoundError:
            entries = []
        except (OSError, ValueError) as error:
            return self._last_entries(error)
        if not self._is_valid:
            self._log.info("source {name}: {index} is valid again", name=self.name, index=INDEX)
        self._is_valid = True
        self._last = entries, monotonic()
        return list(entries)

    def _last_entries(self, error: Exception) -> list[Entry]:
        """Return what the last good index said; the log says what is wrong with this one.

        :raises SourceFailed: there was none, or it is too old.
        """
        if self._is_valid:
            self._is_valid = False
            self._log.error(
                "source {name}: {index} is not valid; the last good one serves meanwhile: {error}",
                name=self.name,
                index=INDEX,
                error=error,
            )
        if self._last is None or monotonic() - self._last[1] > _STALE:
            # What is wrong with it is for the operator, who has it in the log.
            raise SourceFailed(f"Source {self.name}: {INDEX} is not valid.") from None
        return list(self._last[0])

    def _image(self, entry: Entry, file: os.stat_result) -> Image:
        return Image(
            id=entry.id,
            source=self.name,
            name=entry.name or entry.id,
            format=entry.format,
            size_bytes=file.st_size,
            min_disk_gib=entry.min_disk,
            digest=Digest("sha512", entry.sha512.lower()) if entry.sha512 else None,
            validator=_validator(file),
            changed_at=file.st_mtime,
        )

    def _open(self, image_id: str) -> _FileStream:
        name = self._find(image_id)[0].file
        try:
            # O_NONBLOCK: a pipe put in an image's place must not hold the thread for ever.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(self._directory / name, flags)
        except FileNotFoundError:
            raise ImageNotFound(image_id) from None
        except OSError as error:
            raise SourceFailed(f"Image {image_id} cannot be opened: {error.strerror}") from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise ImageNotFound(image_id)
        return _FileStream(self._threads, descriptor, status)


@implementer(IImageStream, IFileStream, ISparseStream)
class _FileStream:
    """An open file."""

    def __init__(self, threads: Threads, descriptor: int, status: os.stat_result) -> None:
        self.size: int | None = status.st_size
        self.validator: str | None = _validator(status)
        self.offset = 0
        self._descriptor: int | None = descriptor
        self._threads = threads
        self._next = 0
        self._synced = False

    def begin_at(self, offset: int) -> None:
        """Skip what the reader has already."""
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
            # There have been file systems (ZFS before 2.2.2) that knew nothing yet of what only
            # memory held.  One that cannot sync has nothing there either.
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
        status = await self._threads.run(os.fstat, self.fileno())
        if _validator(status) != self.validator:
            raise SourceFailed("The image's file was written to while it was read.")

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        await self._threads.run(self.shut)

    def shut(self) -> None:
        """Close at once; blocks."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _meant(wanted: str, names: Collection[str]) -> str | None:
    """Return the one of ``names`` that is wanted: it itself, or the only one that reads the same.

    :returns: None if there is none, or if there are several.
    """
    if wanted in names:
        return wanted
    alike = [name for name in names if _composed(name) == _composed(wanted)]
    return alike[0] if len(alike) == 1 else None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _read_index(directory: Path) -> Index:
    text = reading.content(directory / INDEX).decode("utf-8-sig")
    return Index.model_validate(tomllib.loads(text))


def _validator(file: os.stat_result) -> str:
    return f"{file.st_ino}-{file.st_size}-{file.st_mtime_ns}"


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return the status of a file, by a link or not; None if the entry is no file.

    A link that leads nowhere, and a file that was deleted just now, concern no other image.
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


def _is_shown(name: str) -> bool:
    """Tell whether a file is an image; one whose name is no text cannot be asked for.

    Control characters and bytes that are no UTF-8 are no text; spaces and joiners of any script are
    (Unicode Standard, section 4.5, "General Category").
    """
    is_text = not any(unicodedata.category(each) in ("Cc", "Cs") for each in name)
    return is_text and name != INDEX and not name.startswith(".")


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


def _make(options: DirectoryOptions, context: PluginContext) -> DirectorySource:
    return DirectorySource(context.name, options.directory, context.threads)


def _check(options: DirectoryOptions) -> Iterator[Mistake]:
    # The folder may come later: until then the source has no images.
    yield from checks.readable_folder("directory", options.directory, fatal=False)
    index = options.directory / INDEX
    try:
        entries = _read_index(options.directory).images
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        fault = " ".join(f"the index is not valid: {error}".split())
        yield Mistake("directory", index, fault, "Correct the index.", fatal=False)
        return
    for entry in entries:
        name = _meant(entry.file, os.listdir(options.directory))
        if name is None:
            fault = f"the index names {entry.file!r}, which is not in the folder"
        elif not (options.directory / name).is_file():
            fault = f"the index names {entry.file!r}, which is no file"
        elif entry.format is not None and entry.format not in _FORMATS:
            fault = f"image {entry.id!r} has the format {entry.format!r}, which nothing reads"
        else:
            continue
        yield Mistake("directory", index, fault, "Correct the index.", fatal=False)


PLUGIN = SourcePlugin(DirectoryOptions, _make, _check)
