"""The records and bytes of callers' images, in a hidden folder of the operator's folder.

The folder ``.bootvol-images`` has two files for each image: ``ID.json``, the record, and
``ID.disk``, the bytes.  While bytes come, they are in ``ID.part``, and the daemon holds a lock on
this file.  The system frees the lock of a dead daemon, and :meth:`Records.sweep` removes the file.

The bytes get their last name before the record states them.  So a record of an active image has its
bytes, and the sweep removes bytes that no record states.

Several daemons may share the folder: each change holds a lock on the file ``lock``.

All functions block.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
from twisted.logger import Logger

from bootvol import files
from bootvol.errors import ImageConflict, ImageNotFound, QuotaExceeded, SourceFailed
from bootvol.model import GIB, WHOLE, ImageRecord, ImageStatus, StoredBytes
from bootvol_plugins.directory_json import from_json, to_json

FOLDER: Final = ".bootvol-images"
#: Each record counts as at least this many bytes.  So a quota also limits the number of records.
LEAST: Final = 1024 * 1024
#: The most records of one tenant.  All records stay in memory.
MOST_RECORDS: Final = 1000
_ID: Final = re.compile("[0-9a-f-]{1,64}")
_RECORD: Final = ".json"
_DISK: Final = ".disk"
_PART: Final = ".part"
_LOCK: Final = "lock"
_DRAFT: Final = "draft"


class Records:
    """The records of one folder.

    :param name: the source's name, for messages.
    :param directory: the operator's folder.
    :param quota: the most bytes of one tenant; None for no limit.
    """

    _log = Logger()

    def __init__(self, name: str, directory: Path, quota: int | None) -> None:
        self._name = name
        self._folder = directory / FOLDER
        self._quota = quota
        #: The read records by the identity of their files.
        self._read: dict[str, tuple[tuple[int, int, int], ImageRecord | None]] = {}

    def disk(self, image_id: str) -> Path:
        """Return the path of an active image's bytes."""
        return self._folder / f"{image_id}{_DISK}"

    def all(self) -> list[ImageRecord]:
        """Return all records, sorted by id.

        :raises SourceFailed: if the folder cannot be read.
        """
        with self._failures():
            try:
                names = frozenset(os.listdir(self._folder))
            except FileNotFoundError:
                return []
            ids = sorted(each.removesuffix(_RECORD) for each in names if each.endswith(_RECORD))
            found = [self._load(each) for each in ids if _ID.fullmatch(each)]
            for gone in self._read.keys() - set(ids):
                self._read.pop(gone, None)
        return [_shown(each, names) for each in found if each is not None]

    def one(self, image_id: str) -> ImageRecord:
        """Return a record.

        :raises ImageNotFound: if the record does not exist.
        :raises SourceFailed: if the folder cannot be read.
        """
        with self._failures():
            found = self._load(image_id) if _ID.fullmatch(image_id) else None
            part = f"{image_id}{_PART}"
            if found is None:
                raise ImageNotFound(image_id)
            return _shown(found, {part} if (self._folder / part).exists() else set())

    def add(self, record: ImageRecord) -> None:
        """Add a record.

        :raises QuotaExceeded: if the owner's quota has no room, or the owner has too many records.
        """
        with self._changing():
            self._check_new(record)
            self._write(record)

    def change(self, image_id: str, changed: Callable[[ImageRecord], ImageRecord]) -> ImageRecord:
        """Replace a record, as :meth:`bootvol.interfaces.IImageStore.change` does."""
        with self._changing():
            former = self.one(image_id)
            new = changed(former)
            status = new.status if {former.status, new.status} <= WHOLE else former.status
            new = attrs.evolve(new, id=former.id, status=status, data=former.data)
            if new.owner != former.owner:
                self._check_new(new)
            self._write(new)
            return self.one(image_id)

    def remove(self, image_id: str, check: Callable[[ImageRecord], object]) -> None:
        """Remove a record and its bytes, as :meth:`bootvol.interfaces.IImageStore.remove` does.

        :raises ImageNotFound: if the record does not exist.
        """
        with self._changing():
            check(self.one(image_id))
            # Without a record, the sweep removes the bytes in any case.
            for ending in (_RECORD, _PART, _DISK):
                with suppress(FileNotFoundError):
                    os.unlink(self._folder / f"{image_id}{ending}")
            files.sync(self._folder)

    def begin(self, image_id: str, *, instead: bool) -> tuple[ImageRecord, int]:
        """Begin to take an image's bytes.

        :param instead: whether another upload of the image ends.
        :returns: the record, and the descriptor of an empty file, to be given to :meth:`finish` or
            :meth:`abort`.
        :raises ImageNotFound: if the record does not exist.
        :raises ImageConflict: if the image has its bytes, or an upload of the image runs.
        """
        with self._changing():
            record = self.one(image_id)
            if record.data is not None:
                raise ImageConflict(f"Image {image_id} is active: its data cannot be replaced.")
            if instead:
                with suppress(FileNotFoundError):
                    os.unlink(self._part(image_id))
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._part(image_id), flags, 0o600)
            try:
                if not _lock(descriptor):
                    raise ImageConflict(f"Image {image_id} is saving: another upload runs.")
                os.ftruncate(descriptor, 0)
            except BaseException:
                os.close(descriptor)
                raise
        return record, descriptor

    def finish(
        self, image_id: str, descriptor: int, data: StoredBytes, now: float, status: ImageStatus
    ) -> ImageRecord:
        """Keep the bytes of an image, and close their file.

        :param status: the new status of the image.
        :raises ImageNotFound: if the image was removed meanwhile.
        :raises QuotaExceeded: if the owner's quota has no room.
        """
        with self._failures():
            os.fsync(descriptor)
        with self._changing():
            self.check_exists(image_id, descriptor)
            record = self.one(image_id)
            others = self.used_by(record.owner, beside=image_id)
            self.check_room(others + max(data.size_bytes, LEAST))
            os.rename(self._part(image_id), self.disk(image_id))
            whole = attrs.evolve(record, status=status, data=data, updated_at=now)
            self._write(whole)
            os.close(descriptor)
        return whole

    def abort(self, image_id: str, descriptor: int) -> None:
        """Drop the bytes of an upload."""
        try:
            with self._changing():
                status = os.fstat(descriptor)
                # After a failed `finish`, the bytes may have their last name already.
                for path in (self._part(image_id), self.disk(image_id)):
                    with suppress(FileNotFoundError):
                        if os.path.samestat(os.stat(path), status) and not self._states(image_id):
                            os.unlink(path)
        finally:
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove the bytes of uploads that no daemon goes on with, and bytes without a record."""
        if not self._folder.exists():
            return
        with self._changing():
            for name in os.listdir(self._folder):
                image_id, ending = os.path.splitext(name)
                if ending not in (_PART, _DISK) or (ending == _DISK and self._states(image_id)):
                    continue
                descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if _lock(descriptor):
                        os.unlink(self._folder / name)
                finally:
                    os.close(descriptor)
            files.sync(self._folder)

    def check_exists(self, image_id: str, descriptor: int) -> None:
        """Check that nobody has removed an image during its upload.

        :raises ImageNotFound: if the image was removed.
        """
        if not os.fstat(descriptor).st_nlink:
            raise ImageNotFound(image_id)

    def used_by(self, owner: str, beside: str = "") -> int:
        """Return the bytes of a tenant's images, as far as they count.

        :param beside: id of an image that does not count.
        """
        return sum(
            _counted(each) for each in self.all() if each.owner == owner and each.id != beside
        )

    def check_room(self, needed: int) -> None:
        """Check the quota of a tenant.

        :param needed: the bytes of all images of the tenant.
        :raises QuotaExceeded: if the quota has no room.
        """
        if self._quota is not None and needed > self._quota:
            gib = self._quota / GIB
            raise QuotaExceeded(f"The project's images may have {gib:g} GiB together.")

    def _check_new(self, record: ImageRecord) -> None:
        """Check the quota of a record's owner, who does not have the record yet.

        :raises QuotaExceeded: if the quota has no room, or the owner has too many records.
        """
        if sum(each.owner == record.owner for each in self.all()) >= MOST_RECORDS:
            raise QuotaExceeded(f"A project may have {MOST_RECORDS} images of its own.")
        self.check_room(self.used_by(record.owner) + _counted(record))

    def _part(self, image_id: str) -> Path:
        return self._folder / f"{image_id}{_PART}"

    def _states(self, image_id: str) -> bool:
        """Return whether a record states bytes, or cannot be read."""
        try:
            found = self._load(image_id)
        except OSError:
            return True
        if found is None:
            return (self._folder / f"{image_id}{_RECORD}").exists()
        return found.data is not None

    def _load(self, image_id: str) -> ImageRecord | None:
        """Return a record from its file; None if the file does not exist or is damaged."""
        path = self._folder / f"{image_id}{_RECORD}"
        try:
            status = path.stat()
            identity = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
            known = self._read.get(image_id)
            if known is not None and known[0] == identity:
                return known[1]
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            found = from_json(content)
        except (ValueError, KeyError, TypeError) as error:
            self._log.error(
                "source {name}: the record {path} is damaged: {error!r}",
                name=self._name,
                path=path,
                error=error,
            )
            found = None
        self._read[image_id] = identity, found
        return found

    def _write(self, record: ImageRecord) -> None:
        files.replace(self._folder / f"{record.id}{_RECORD}", to_json(record), _DRAFT)
        # Two quick changes may leave the file with the identity of an earlier one.
        self._read.pop(record.id, None)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock of the folder.  The first change makes the folder."""
        with self._failures():
            with suppress(FileExistsError):
                # A missing directory means a missing disk, so no parents.
                self._folder.mkdir(0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._folder / _LOCK, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn the system's errors into failures of the source."""
        with failures(self._name):
            yield


@contextmanager
def failures(name: str) -> Iterator[None]:
    """Turn the system's errors into failures of a source.

    :raises SourceFailed: if the block raises OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise SourceFailed(f"Source {name} has no space for the image.") from error
        raise SourceFailed(f"Source {name} fails: {error.strerror}") from error


def _lock(descriptor: int) -> bool:
    """Lock a file until its descriptor is closed; return False if another process has the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _shown(record: ImageRecord, names: frozenset[str] | set[str]) -> ImageRecord:
    """Return a record with its status.

    :param names: names of files in the folder.
    """
    if record.data is not None:
        return record
    is_saving = f"{record.id}{_PART}" in names
    return attrs.evolve(record, status=record.status_without_bytes(is_saving=is_saving))


def _counted(record: ImageRecord) -> int:
    """Return the bytes of a record as they count against the quota."""
    return max(record.data.size_bytes if record.data else 0, LEAST)
