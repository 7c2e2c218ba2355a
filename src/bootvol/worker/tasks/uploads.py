"""The task that makes an image of a volume."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import AsyncExitStack, suppress
from typing import Final

import attrs
from sqlalchemy import Connection as Db
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol.clocks import sleep
from bootvol.errors import (
    BootvolError,
    ErrorReport,
    ImageNotFound,
    NoImageStore,
    SourceFailed,
    UploadForgotten,
)
from bootvol.imaging.uploads import PassingImage
from bootvol.imaging.volumes import VolumeStream
from bootvol.interfaces import IImageSource, IImageStore, IImageTaker, IImageUpload
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Caller, ImageRecord, ImageStatus, Volume, VolumeUpload
from bootvol.store import volume_uploads as upload_rows
from bootvol.store.database import Database
from bootvol.threads import Threads
from bootvol.worker.claims import Claim
from bootvol.worker.lane_place import YieldingStream
from bootvol.worker.tasks.storage import OnBackendTask, Storage

#: Bytes of an upload in memory.
_BUFFER: Final = 1024 * 1024
#: Seconds between two attempts to remove an image.
_PAUSES: Final = (1, 2, 4, 8, 16, 32)


@attrs.frozen
class Takers:
    """The sources that take images of volumes.

    :ivar source: returns a source by name.
    :ivar callers: the callers with their tokens, by the ids of their images.
    :ivar threads: the threads that hash.
    """

    source: Callable[[str], IImageSource]
    callers: MutableMapping[str, Caller]
    threads: Threads

    async def opened(self, upload: VolumeUpload, size: int) -> IImageUpload | None:
        """Begin to send bytes; return None if the source has all of them already.

        :raises UploadForgotten: if this daemon does not know the token of the caller.
        :raises BootvolError: if the source does not take the bytes.
        """
        source = self.source(upload.source)
        if IImageTaker.providedBy(source):
            caller = self.callers.get(upload.image.id)
            if caller is None:
                raise UploadForgotten
            taking: IImageUpload = await IImageTaker(source).receive(caller, upload.image, size)
            return taking
        store = _store(source)
        record = await _found(store, upload.image)
        if record.status is ImageStatus.ACTIVE:
            return None
        # A daemon that lost its claim may only be stopped, in the middle of its upload.
        storing: IImageUpload = await store.upload(record.id, size, instead=True)
        return storing

    async def give_up(self, upload: VolumeUpload) -> None:
        """Remove the image, unless the image is complete.

        :raises BootvolError: if the image still exists.
        """
        source, image_id = self.source(upload.source), upload.image.id
        if IImageTaker.providedBy(source):
            await IImageTaker(source).give_up(self.callers.get(image_id), image_id)
            return
        store = _store(source)
        with suppress(ImageNotFound):
            if (await store.record(image_id)).status is not ImageStatus.ACTIVE:
                await store.remove(image_id)


def _store(source: IImageSource) -> IImageStore:
    """Return a source as a store of images.

    :raises NoImageStore: if the source takes no images any more.
    """
    if not IImageStore.providedBy(source):
        raise NoImageStore
    return IImageStore(source)


async def _found(store: IImageStore, image: ImageRecord) -> ImageRecord:
    """Return the record of an image; add the record if the request ended before that."""
    try:
        found: ImageRecord = await store.record(image.id)
    except ImageNotFound:
        await store.add(image)
        return image
    return found


class UploadVolume(OnBackendTask):
    """Makes an image of a volume.

    After a failure the image is removed, and the volume is available again.
    """

    _log = Logger()
    kind = Kind.VOLUME
    statuses = frozenset({Status.UPLOADING})

    def __init__(
        self,
        volume: Volume,
        storage: Storage,
        takers: Takers,
        database: Database,
        clock: IReactorTime,
    ) -> None:
        super().__init__(volume, storage)
        self._takers = takers
        self._database = database
        self._clock = clock
        self._sent = 0
        self._image_id: str | None = None
        self._settled = False

    def mark(self) -> object:
        """See :meth:`Task.mark`."""
        return self._sent

    async def work(self, claim: Claim) -> Event:
        """Send the volume's bytes."""
        upload = await self._database.read(upload_rows.get, self.id)
        if upload is None:
            return Event.UPLOADED
        self._sent, self._image_id = 0, upload.image.id
        if upload.is_given_up:
            return await self.undo()
        to = await self._takers.opened(upload, self._size)
        if to is not None:
            try:
                await self._send(to)
            except BaseException:
                await to.abort()
                raise
        return Event.UPLOADED

    async def _send(self, to: IImageUpload) -> None:
        backend, threads = self.backend_plugin, self._takers.threads
        # An image that bootvol would not read as these very bytes is no image of the volume.
        image = PassingImage("raw", packed=False)
        buffer = memoryview(bytearray(_BUFFER))
        async with AsyncExitStack() as stack:
            reader = await backend.open_reader(self._name)
            stack.push_async_callback(reader.close)
            volume = VolumeStream(reader, self._size, backend.capabilities.block_size)
            stream = YieldingStream(volume, self.lane_place, self._clock)
            while count := await stream.read_into(buffer):
                data = buffer[:count]
                await threads.run(image.take, data)
                await to.write(data)
                self._sent += count
            await to.finish(await threads.run(image.finish))

    async def undo(self) -> Event:
        """Remove the image; the volume is as good as before."""
        upload = await self._database.read(upload_rows.get, self.id)
        if upload is not None:
            await self._give_up(upload)
        return Event.UPLOADED

    async def _give_up(self, upload: VolumeUpload) -> None:
        """Remove the image; retry while its source does not answer, but not for ever."""
        for pause in _PAUSES:
            try:
                return await self._takers.give_up(upload)
            except BootvolError as error:
                if not (isinstance(error, SourceFailed) and error.retryable):
                    return self._tell(upload, error)
                await self.lane_place.rest(sleep(self._clock, pause))
        try:
            return await self._takers.give_up(upload)
        except BootvolError as error:
            return self._tell(upload, error)

    def _tell(self, upload: VolumeUpload, error: BootvolError) -> None:
        self._log.warn(
            "image {image} of source {source} stays without its bytes: {error}",
            image=upload.image.id,
            source=upload.source,
            error=error,
        )

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """See :meth:`Task.settle`."""
        super().settle(db, event, error)
        upload_rows.remove(db, self.id)
        self._settled = True

    async def after(self) -> None:
        """Forget the token of the caller."""
        if self._settled and self._image_id is not None:
            self._takers.callers.pop(self._image_id, None)

    async def lost(self) -> None:
        """See :meth:`Task.lost`: the volume stays."""
