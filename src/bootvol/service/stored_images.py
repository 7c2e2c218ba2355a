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

#: The statuses between which an owner moves an image, by the wish that the image is usable.
_USABLE: Final = {True: ImageStatus.ACTIVE, False: ImageStatus.DEACTIVATED}

#: Returns the new record for the current one.
Change = Callable[[ImageRecord], ImageRecord]


class Body(Protocol):
    """The bytes from a client.

    :ivar length: number of bytes; None if unknown.
    """

    length: int | None

    async def read_into(self, target: memoryview) -> int:
        """Fill ``target``; return the number of bytes, fewer than its length at the end."""


@attrs.frozen
class ImageRights:
    """The rights of a caller beyond the images of the own tenant.

    :ivar publishes: whether the caller may make images public.
    :ivar all_tenants: whether the caller may see and change the images of all tenants, and give
        images to other tenants.
    """

    publishes: bool = False
    all_tenants: bool = False


@attrs.frozen
class StoredImage:
    """A record, with the name of its store."""

    store: str
    record: ImageRecord


class StoredImages:
    """The images in all sources that take images from callers.

    Everybody may see and use an image as :meth:`ImageRecord.is_usable_by` says.  Only callers of
    the owner, and callers with the right to all images, change, fill and remove the image.

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

    @property
    def stores(self) -> Sequence[str]:
        """The names of the sources that take images; new images go to the first."""
        return tuple(self._stores)

    async def records(self, caller: Caller, rights: ImageRights) -> Sequence[StoredImage]:
        """Return the records of all images that the caller may see, except in failed stores."""
        found: list[StoredImage] = []
        for name, store in self._stores.items():
            try:
                all_records = await self._images.ask(name, caller, store.records)
            except SourceFailed:
                # The list of the images reports the failure.
                continue
            found += (
                StoredImage(name, each)
                for each in all_records
                if rights.all_tenants or each.is_usable_by(caller.tenant)
            )
        return found

    async def record(
        self, caller: Caller, image_id: str, rights: ImageRights
    ) -> StoredImage | None:
        """Return the record of an image; None if no store has an image for the caller.

        :raises SourceFailed: if a store does not answer.
        """
        for name, store in self._stores.items():
            try:
                found = await self._images.ask(name, caller, partial(store.record, image_id))
            except ImageNotFound:
                continue
            if rights.all_tenants or found.is_usable_by(caller.tenant):
                return StoredImage(name, found)
        return None

    async def create(self, caller: Caller, described: Change, rights: ImageRights) -> StoredImage:
        """Create the record of an image without bytes.

        :param described: returns the described record for an empty one.
        :raises NoImageStore: if no source takes images.
        :raises Forbidden: if the image is public or of another tenant, and the caller lacks the
            right.
        :raises bootvol.errors.QuotaExceeded: if the quota has no room for a record.
        """
        if not self._stores:
            raise NoImageStore
        name, store = next(iter(self._stores.items()))
        now = self._now()
        empty = ImageRecord(str(uuid4()), caller.tenant, now, now)
        record = _checked(described(empty), empty, rights)
        await self._images.ask(name, caller, lambda: store.add(record))
        return StoredImage(name, record)

    async def change(
        self, caller: Caller, image_id: str, changed: Change, rights: ImageRights
    ) -> StoredImage:
        """Change a record.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant, or the change makes the image
            public or gives the image away, and the caller lacks the right.
        """
        found = await self.owned(caller, image_id, rights)

        def checked(former: ImageRecord) -> ImageRecord:
            _check_owner(former, caller, rights)
            return changed(former)

        return await self.replace(caller, found.store, image_id, checked, rights)

    async def replace(
        self, caller: Caller, name: str, image_id: str, changed: Change, rights: ImageRights
    ) -> StoredImage:
        """Change a record in a store.  The function ``changed`` decides who may do so.

        :raises ImageNotFound: if the store has no such image.
        :raises Forbidden: if the change makes the image public or gives the image away, and the
            caller lacks the right.
        """
        store = self._stores[name]

        def checked(former: ImageRecord) -> ImageRecord:
            new = attrs.evolve(changed(former), updated_at=self._now())
            return _checked(new, former, rights)

        new = await self._images.ask(name, caller, lambda: store.change(image_id, checked))
        return StoredImage(name, new)

    async def set_usable(
        self, caller: Caller, image_id: str, rights: ImageRights, *, usable: bool
    ) -> None:
        """Let the tenants use an active image no more, or let them use the image again.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant, or has no bytes.
        """
        action = "reactivate" if usable else "deactivate"

        def changed(former: ImageRecord) -> ImageRecord:
            if former.status not in _USABLE.values():
                raise Forbidden(f"Not allowed to {action} image in status '{former.status}'.")
            return attrs.evolve(former, status=_USABLE[usable])

        await self.change(caller, image_id, changed, rights)

    async def remove(self, caller: Caller, image_id: str, rights: ImageRights) -> None:
        """Remove an image.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant.
        :raises ImageProtected: if the image is protected.
        """
        found = await self.owned(caller, image_id, rights)
        store = self._stores[found.store]

        def check(record: ImageRecord) -> None:
            _check_owner(record, caller, rights)
            if record.is_protected:
                raise ImageProtected(image_id)

        await self._images.ask(found.store, caller, lambda: store.remove(image_id, check))

    async def fill(
        self,
        caller: Caller,
        image_id: str,
        body: Body,
        rights: ImageRights,
        *,
        staged: bool = False,
    ) -> None:
        """Fill a queued image with bytes.  After a failure, the image is queued again.

        :param staged: whether the image waits as ``uploading`` for the owner's word.
        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant.
        :raises ImageConflict: if the image is not queued.
        :raises bootvol.errors.InvalidRequest: if the record states no formats.
        :raises bootvol.errors.ImportFailed: if no volume can be made of the bytes.
        :raises bootvol.errors.QuotaExceeded: if the quota has no room for the bytes.
        :raises bootvol.errors.TooManyCalls: if too many uploads run.
        """
        found = await self.owned(caller, image_id, rights)
        name, store, record = found.store, self._stores[found.store], found.record
        if record.status is not ImageStatus.QUEUED:
            raise ImageConflict(f"Image {image_id} is {record.status}: it takes no data now.")
        image = PassingImage(stated_format(record))
        with self._uploads.place(caller.tenant):
            upload = await self._images.ask(
                name, caller, lambda: store.upload(image_id, body.length)
            )
            try:
                data = await self._copy(body, upload, image)
                await (upload.stage(data) if staged else upload.finish(data))
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

    async def owned(self, caller: Caller, image_id: str, rights: ImageRights) -> StoredImage:
        """Return an image that the caller may change.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant.
        """
        found = await self.record(caller, image_id, rights)
        if found is None:
            raise ImageNotFound(image_id)
        _check_owner(found.record, caller, rights)
        return found


def _check_owner(record: ImageRecord, caller: Caller, rights: ImageRights) -> None:
    if record.owner != caller.tenant and not rights.all_tenants:
        raise Forbidden("You are not permitted to change this image: it has another owner.")


def stated_format(record: ImageRecord) -> str:
    """Return the disk format that an image needs before its bytes.

    :raises InvalidRequest: if the record states no formats.
    """
    if record.disk_format is None or record.container_format is None:
        raise InvalidRequest(
            "Properties disk_format, container_format must be set prior to saving data."
        )
    return record.disk_format


def _checked(new: ImageRecord, former: ImageRecord, rights: ImageRights) -> ImageRecord:
    """Return a new record, if the caller may make it.

    :raises Forbidden: if the record becomes public or gets another owner, and the caller lacks the
        right.
    """
    if (
        new.visibility is Visibility.PUBLIC
        and former.visibility is not Visibility.PUBLIC
        and not rights.publishes
    ):
        raise Forbidden("You are not authorized to complete publicize_image action.")
    if new.owner != former.owner and not rights.all_tenants:
        raise Forbidden(f"You are not permitted to give images to the owner '{new.owner}'.")
    return new
