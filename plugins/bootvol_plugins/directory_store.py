"""The ``directory`` source with ``writable = true``: it also takes images from callers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from bootvol.errors import ImageNotFound, ImageNotReady, ImageUnusable
from bootvol.interfaces import IImageStore, IStagedUpload, PluginContext
from bootvol.model import Caller, Digest, Image, ImageRecord, ImageStatus, StoredBytes
from bootvol.threads import Shared
from bootvol_plugins.directory_records import Records, failures
from bootvol_plugins.directory_source import DirectorySource

#: Bytes of an upload between two checks of the quota, and between two flushes.  The system keeps no
#: more bytes of an upload in memory, and the end of an upload waits for no more.
_STEP: Final = 64 * 1024 * 1024


@implementer(IImageStore)
class WritableDirectory(DirectorySource):
    """The operator's images, and the images of callers.

    The operator's images come first: a caller's image never hides one of them.

    :param quota: the most bytes of one tenant; None for no limit.
    """

    _log = Logger()

    def __init__(self, context: PluginContext, directory: Path, quota: int | None) -> None:
        super().__init__(context.name, directory, context.threads)
        self._context = context
        self._records = Records(context.name, directory, quota)
        #: Bytes of each tenant's running uploads.
        self._growing: Counter[str] = Counter()
        #: The removal of what uploads of a dead daemon have left.
        self._swept = Shared(Deferred.fromCoroutine(self._sweep()))

    async def images(self, caller: Caller) -> Sequence[Image]:
        """See :meth:`bootvol.interfaces.IImageSource.images`."""
        found = {
            each.id: self._described(each, each.data)
            for each in await self.records()
            if each.data is not None
            and each.status is ImageStatus.ACTIVE
            and each.is_listed_for(caller.tenant)
            and not each.is_hidden
        }
        found.update({each.id: each for each in await super().images(caller)})
        return [found[each] for each in sorted(found)]

    async def find(self, caller: Caller, reference: str) -> Image:
        """See :meth:`bootvol.interfaces.IImageSource.find`."""
        try:
            return await super().find(caller, reference)
        except ImageNotFound:
            record = await self.record(reference)
        if not record.is_usable_by(caller.tenant):
            raise ImageNotFound(reference)
        if record.status is ImageStatus.DEACTIVATED:
            raise ImageUnusable(f"Image {record.id} is deactivated.")
        if record.data is None or record.status is not ImageStatus.ACTIVE:
            raise ImageNotReady(f"Image {record.id} is not active yet; it is {record.status}.")
        return self._described(record, record.data)

    async def records(self) -> Sequence[ImageRecord]:
        """See :meth:`bootvol.interfaces.IImageStore.records`."""
        return await self._threads.run(self._records.all)

    async def record(self, image_id: str) -> ImageRecord:
        """See :meth:`bootvol.interfaces.IImageStore.record`."""
        return await self._threads.run(self._records.one, image_id)

    async def add(self, record: ImageRecord) -> None:
        """See :meth:`bootvol.interfaces.IImageStore.add`."""
        await self._threads.run(self._records.add, record)

    async def change(
        self, image_id: str, changed: Callable[[ImageRecord], ImageRecord]
    ) -> ImageRecord:
        """See :meth:`bootvol.interfaces.IImageStore.change`."""
        return await self._threads.run(self._records.change, image_id, changed)

    async def remove(
        self, image_id: str, check: Callable[[ImageRecord], object] = lambda record: None
    ) -> None:
        """See :meth:`bootvol.interfaces.IImageStore.remove`."""
        await self._threads.run(self._records.remove, image_id, check)

    async def upload(
        self, image_id: str, size: int | None, *, instead: bool = False
    ) -> IStagedUpload:
        """See :meth:`bootvol.interfaces.IImageStore.upload`."""
        await self._swept.wait()
        upload = await self._threads.obtain(_Upload.shut, self._begin, image_id, instead)
        try:
            await upload.begin(size)
        except BaseException:
            await upload.abort()
            raise
        return upload

    def _path(self, image: Image) -> Path:
        try:
            return super()._path(image)
        except ImageNotFound:
            return self._records.disk(self._records.one(image.id).id)

    def _begin(self, image_id: str, instead: bool) -> _Upload:
        record, descriptor = self._records.begin(image_id, instead=instead)
        return _Upload(self._context, self._records, record, descriptor, self._growing)

    async def _sweep(self) -> None:
        try:
            await self._threads.run(self._records.sweep)
        except Exception:
            self._log.failure("source {name}: leftover uploads remain", name=self.name)

    def _described(self, record: ImageRecord, data: StoredBytes) -> Image:
        return Image(
            id=record.id,
            source=self.name,
            name=record.name or record.id,
            format=record.disk_format,
            size_bytes=data.size_bytes,
            min_disk_gib=record.min_disk_gib,
            digest=Digest("sha512", data.sha512),
            disk_bytes=data.disk_bytes,
            changed_at=record.created_at,
            properties={
                **record.properties,
                "checksum": data.md5,
                "container_format": record.container_format or "bare",
                "min_ram": str(record.min_ram_mib),
            },
        )


@implementer(IStagedUpload)
class _Upload:
    """The bytes of one image, on their way to a file.

    :param descriptor: the file, owned by this object.
    :param growing: bytes of each tenant's running uploads.
    """

    def __init__(
        self,
        context: PluginContext,
        records: Records,
        record: ImageRecord,
        descriptor: int,
        growing: Counter[str],
    ) -> None:
        self._context = context
        self._threads = context.threads
        self._records = records
        self._record = record
        self._descriptor: int | None = descriptor
        self._growing = growing
        self._written = 0
        #: Bytes of the owner's other images, as last counted.
        self._stored = 0

    async def begin(self, size: int | None) -> None:
        """Count the owner's images, and check that the quota has room for the bytes to come.

        :raises QuotaExceeded: if the quota has no room.
        """
        await self._count()
        self._check_room(size or 0)

    async def write(self, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IImageUpload.write`."""
        is_due = (self._written + len(data)) // _STEP > self._written // _STEP
        if is_due:
            await self._count()
        self._check_room(len(data))
        self._written += len(data)
        self._growing[self._record.owner] += len(data)
        await self._threads.run(self._write, data, is_due)

    async def finish(self, data: StoredBytes) -> ImageRecord:
        """See :meth:`bootvol.interfaces.IImageUpload.finish`."""
        return await self._keep(data, ImageStatus.ACTIVE)

    async def stage(self, data: StoredBytes) -> ImageRecord:
        """See :meth:`bootvol.interfaces.IStagedUpload.stage`."""
        return await self._keep(data, ImageStatus.UPLOADING)

    async def abort(self) -> None:
        """See :meth:`bootvol.interfaces.IImageUpload.abort`."""
        await self._threads.run(self.shut)
        self._shrink()

    def shut(self) -> None:
        """Drop the bytes.  Blocks."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._records.abort(self._record.id, descriptor)

    async def _count(self) -> None:
        self._stored = await self._threads.run(
            self._records.used_by, self._record.owner, beside=self._record.id
        )

    def _check_room(self, more: int) -> None:
        self._records.check_room(self._stored + self._growing[self._record.owner] + more)

    def _write(self, data: memoryview, flush: bool) -> None:
        assert self._descriptor is not None  # noqa: S101 - for mypy
        self._records.check_exists(self._record.id, self._descriptor)
        with failures(self._context.name):
            done = 0
            while done < len(data):
                done += os.write(self._descriptor, data[done:])
            if flush:
                os.fdatasync(self._descriptor)

    async def _keep(self, data: StoredBytes, status: ImageStatus) -> ImageRecord:
        whole = await self._threads.run(self._finish, data, status)
        self._shrink()
        return whole

    def _finish(self, data: StoredBytes, status: ImageStatus) -> ImageRecord:
        assert self._descriptor is not None  # noqa: S101 - for mypy
        now = self._context.now()
        whole = self._records.finish(self._record.id, self._descriptor, data, now, status)
        self._descriptor = None
        return whole

    def _shrink(self) -> None:
        """Count the upload's bytes no more among the bytes on their way."""
        self._growing[self._record.owner] -= self._written
        self._written = 0
        if not self._growing[self._record.owner]:
            del self._growing[self._record.owner]
