"""Images of volumes, as callers ask for them. All answers are immediate; a worker does the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final
from uuid import uuid4

from sqlalchemy import Connection as Db
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bootvol.errors import DatabaseUnavailable, Forbidden, NoImageStore, VolumeBusy
from bootvol.interfaces import IImageSource, IImageStore, IImageTaker
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import (
    Caller,
    ImageRecord,
    NewVolumeImage,
    Visibility,
    Volume,
    VolumeUpload,
    new_uuid,
)
from bootvol.service.images import Images
from bootvol.service.volumes import Work
from bootvol.store import attachments as attachment_rows
from bootvol.store import claims, states
from bootvol.store import volume_uploads as upload_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

#: Facts about the image of a volume that do not hold for another image of the volume.
_OF_OLD_IMAGE: Final = frozenset(
    {
        "checksum",
        "container_format",
        "disk_format",
        "image_id",
        "image_name",
        "min_disk",
        "min_ram",
        "name",
        "signature_verified",
        "size",
    }
)
#: The most properties of an image.
_MOST: Final = 128
#: Seconds between two attempts to end a claim.
_PAUSE: Final = 1.0

_log = Logger()


class VolumeUploads:
    """Makes images of volumes.

    :param sources: the sources by name.  The first one that takes images gets all of them.
    :param callers: the callers with their tokens, by the ids of their images; shared with the
        worker, and never stored.
    :param daemon: id of this daemon.
    :param now: returns the seconds since 1970.
    :param clock: the reactor.
    """

    def __init__(
        self,
        database: Database,
        images: Images,
        sources: Mapping[str, IImageSource],
        callers: dict[str, Caller],
        daemon: str,
        work: Work,
        now: Callable[[], float],
        clock: IReactorTime,
    ) -> None:
        self._database = database
        self._images = images
        self._takers = {
            name: each
            for name, each in sources.items()
            if IImageStore.providedBy(each) or IImageTaker.providedBy(each)
        }
        self._callers = callers
        self._daemon = daemon
        self._work = work
        self._now = now
        self._clock = clock

    async def upload(
        self, caller: Caller, volume_id: int, wanted: NewVolumeImage
    ) -> tuple[Volume, ImageRecord]:
        """Begin to make an image of a volume; the volume is ``uploading`` until then.

        :returns: the volume, and the record of the image.
        :raises NoImageStore: if no source takes images.
        :raises Forbidden: if the image is public, and the caller may not make images public.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if the volume is not available.
        :raises QuotaExceeded: if the quota has no room for the image.
        :raises bootvol.errors.SourceFailed: if the source does not answer.
        """
        if not self._takers:
            raise NoImageStore
        if wanted.visibility is Visibility.PUBLIC and not wanted.publishes:
            raise Forbidden("You are not authorized to complete publicize_image action.")
        name, source = next(iter(self._takers.items()))
        knows_callers = IImageTaker.providedBy(source)
        # While the record is added, the claim keeps the worker away; it ends if this daemon dies.
        holder = f"{self._daemon}/{uuid4().hex[:12]}"
        daemon = self._daemon if knows_callers else None
        begin = partial(self._begin, caller, volume_id, wanted, name, daemon, holder)
        record = await self._database.write(begin)
        try:
            if knows_callers:
                taker = IImageTaker(source)
                self._callers[record.id] = caller
                await self._images.ask(name, caller, lambda: taker.take(caller, record))
            else:
                store = IImageStore(source)
                await self._images.ask(name, caller, lambda: store.add(record))
        except BaseException:
            self._callers.pop(record.id, None)
            await self._end(partial(_give_up, holder=holder, volume_id=volume_id))
            raise
        await self._end(partial(claims.release, holder=holder, kind=Kind.VOLUME, number=volume_id))
        return await self._database.read(volume_rows.get, caller.tenant, volume_id), record

    async def _end(self, end: Callable[[Db], object]) -> None:
        """End the claim, later if the database takes nothing now: on SQLite no claim runs out."""
        try:
            await self._database.write(end)
        except DatabaseUnavailable:
            if not self._database.ending:
                self._clock.callLater(
                    _PAUSE, lambda: Deferred.fromCoroutine(self._end(end)).addErrback(_tell)
                )
        else:
            self._work.wake()

    def _begin(
        self,
        caller: Caller,
        volume_id: int,
        wanted: NewVolumeImage,
        source: str,
        daemon: str | None,
        holder: str,
        db: Db,
    ) -> ImageRecord:
        volume = volume_rows.get(db, caller.tenant, volume_id, lock=True)
        if volume.status is not Status.AVAILABLE or attachment_rows.is_promised(db, volume_id):
            raise VolumeBusy("Volume status must be available")
        states.apply_event(db, Kind.VOLUME, volume_id, Event.UPLOAD)
        claims.hold(db, Kind.VOLUME, volume_id, holder)
        now = self._now()
        record = ImageRecord(
            new_uuid(),
            caller.tenant,
            now,
            now,
            name=wanted.name,
            visibility=wanted.visibility,
            disk_format="raw",
            container_format="bare",
            is_protected=wanted.is_protected,
            properties=_properties(volume),
        )
        upload_rows.add(db, VolumeUpload(volume_id, source, record, daemon))
        return record


def _give_up(db: Db, holder: str, volume_id: int) -> None:
    """Make a volume available again, unless a worker has the upload by now."""
    if claims.release(db, holder, Kind.VOLUME, volume_id):
        states.apply_event(db, Kind.VOLUME, volume_id, Event.UPLOADED)
        upload_rows.remove(db, volume_id)


def _tell(failure: Failure) -> None:
    _log.failure("the claim of an upload cannot be ended", failure)


def _properties(volume: Volume) -> Mapping[str, str]:
    """Return the properties that the new image inherits from the image of the volume."""
    kept = [each for each in volume.image_metadata.items() if each[0] not in _OF_OLD_IMAGE]
    return dict(kept[:_MOST])
