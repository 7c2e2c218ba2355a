"""Images that callers bring: their records, rights, and the way of their bytes to a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol
from uuid import uuid4

import attrs

from bootvol.errors import (
    Forbidden,
    ImageConflict,
    ImageNotFound,
    ImageProtected,
    InvalidRequest,
    NoImageStore,
    SourceFailed,
)
from bootvol.imaging.uploads import PassingImage
from bootvol.interfaces import IImageSource, IImageStore, IImageUpload
from bootvol.model import Caller, ImageRecord, ImageStatus, StoredBytes, Visibility
from bootvol.service.images import Images
from bootvol.service.inflight import InFlight
from bootvol.threads import Threads

#: Bytes of an upload in memory.
_BUFFER: Final = 1024 * 1024
#: The most uploads at once.
MOST_UPLOADS: Final = 32

#: Returns the new record for the current one.
Change = Callable[[ImageRecord], ImageRecord]


class Body(Protocol):
    """The bytes from a client.

    :ivar length: number of bytes; None if unknown.
    """

    length: int | None

    async def read_into(self, target: memoryview) -> int:
        """Fill ``target``; return the number of bytes, fewer than its length at the end."""


class StoredImages:
    """The images in all sources that take images from callers.

    Everybody may see and use an image as :meth:`ImageRecord.is_usable_by` says.  Only callers of
    the owner change, fill and remove the image.

    :param images: asks the sources.
    :param sources: the sources by name.  New images go to the first one that takes images.
    :param threads: runs the inspection of uploads.
    :param most: the most uploads at once.
    :param now: returns the seconds since 1970.
    """

    def __init__(
        self,
        images: Images,
        sources: Mapping[str, IImageSource],
        threads: Threads,
        most: int,
        now: Callable[[], float],
    ) -> None:
        self._images = images
        self._stores = {
            name: IImageStore(each)
            for name, each in sources.items()
            if IImageStore.providedBy(each)
        }
        self._threads = threads
        self._uploads = InFlight(most)
        self._now = now

    async def records(self, caller: Caller) -> Sequence[ImageRecord]:
        """Return the records of all images that the caller may use, except in failed stores."""
        found: list[ImageRecord] = []
        for name, store in self._stores.items():
            try:
                all_records = await self._images.ask(name, caller, store.records)
            except SourceFailed:
                # The list of the images reports the failure.
                continue
            found += (each for each in all_records if each.is_usable_by(caller.tenant))
        return found

    async def record(self, caller: Caller, image_id: str) -> ImageRecord | None:
        """Return the record of an image; None if no store has an image for the caller.

        :raises SourceFailed: if a store does not answer.
        """
        found = await self._find(caller, image_id)
        return None if found is None else found[1]

    async def create(self, caller: Caller, described: Change, *, publishes: bool) -> ImageRecord:
        """Create the record of an image without bytes.

        :param described: returns the described record for an empty one.
        :param publishes: whether the caller may make images public.
        :raises NoImageStore: if no source takes images.
        :raises Forbidden: if the image is public, and the caller may not make images public.
        :raises bootvol.errors.QuotaExceeded: if the quota has no room for a record.
        """
        if not self._stores:
            raise NoImageStore
        name, store = next(iter(self._stores.items()))
        now = self._now()
        empty = ImageRecord(str(uuid4()), caller.tenant, now, now)
        record = _checked(described(empty), empty, publishes=publishes)
        await self._images.ask(name, caller, lambda: store.add(record))
        return record

    async def change(
        self, caller: Caller, image_id: str, changed: Change, *, publishes: bool
    ) -> ImageRecord:
        """Change a record.

        :param publishes: whether the caller may make images public.
        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant; also if the change makes the
            image public, and the caller may not make images public.
        """
        name, store = await self._owned(caller, image_id)

        def checked(former: ImageRecord) -> ImageRecord:
            new = attrs.evolve(changed(former), updated_at=self._now())
            return _checked(new, former, publishes=publishes)

        return await self._images.ask(name, caller, lambda: store.change(image_id, checked))

    async def remove(self, caller: Caller, image_id: str) -> None:
        """Remove an image.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant.
        :raises ImageProtected: if the image is protected.
        """
        name, store = await self._owned(caller, image_id)
        if (await self._images.ask(name, caller, lambda: store.record(image_id))).is_protected:
            raise ImageProtected(image_id)
        await self._images.ask(name, caller, lambda: store.remove(image_id))

    async def fill(self, caller: Caller, image_id: str, body: Body) -> None:
        """Fill a queued image with bytes.  After a failure, the image is queued again.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant.
        :raises ImageConflict: if the image is not queued.
        :raises bootvol.errors.InvalidRequest: if the record states no formats.
        :raises bootvol.errors.ImportFailed: if no volume can be made of the bytes.
        :raises bootvol.errors.QuotaExceeded: if the quota has no room for the bytes.
        :raises bootvol.errors.TooManyCalls: if too many uploads run.
        """
        name, store = await self._owned(caller, image_id)
        record = await self._images.ask(name, caller, lambda: store.record(image_id))
        if record.status is not ImageStatus.QUEUED:
            raise ImageConflict(f"Image {image_id} is {record.status}: it takes no data now.")
        if record.disk_format is None or record.container_format is None:
            raise InvalidRequest(
                "Properties disk_format, container_format must be set prior to saving data."
            )
        image = PassingImage(record.disk_format)
        with self._uploads.place(caller.tenant):
            upload = await self._images.ask(
                name, caller, lambda: store.upload(image_id, body.length)
            )
            try:
                await upload.finish(await self._copy(body, upload, image))
            except BaseException:
                await upload.abort()
                raise

    async def _copy(self, body: Body, upload: IImageUpload, image: PassingImage) -> StoredBytes:
        """Copy all bytes.  Meanwhile the connection takes the next bytes."""
        buffer = memoryview(bytearray(_BUFFER))
        while count := await body.read_into(buffer):
            data = buffer[:count]
            await self._threads.run(image.take, data)
            await upload.write(data)
        return await self._threads.run(image.finish)

    async def _find(self, caller: Caller, image_id: str) -> tuple[str, ImageRecord] | None:
        """Return an image's store and record; None if no store has an image for the caller."""
        for name, store in self._stores.items():
            try:
                found = await self._images.ask(name, caller, partial(store.record, image_id))
            except ImageNotFound:
                continue
            if found.is_usable_by(caller.tenant):
                return name, found
        return None

    async def _owned(self, caller: Caller, image_id: str) -> tuple[str, IImageStore]:
        """Return the store of an image that belongs to the caller's tenant."""
        found = await self._find(caller, image_id)
        if found is None:
            raise ImageNotFound(image_id)
        name, record = found
        if record.owner != caller.tenant:
            raise Forbidden("You are not permitted to change this image: it has another owner.")
        return name, self._stores[name]


def _checked(new: ImageRecord, former: ImageRecord, *, publishes: bool) -> ImageRecord:
    """Return a new record, if the caller may make it.

    :raises Forbidden: if the record becomes public, and the caller may not make images public.
    """
    if (
        new.visibility is Visibility.PUBLIC
        and former.visibility is not Visibility.PUBLIC
        and not publishes
    ):
        raise Forbidden("You are not authorized to complete publicize_image action.")
    return new
