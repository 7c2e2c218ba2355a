"""Images of volumes, as callers ask for them. All answers are immediate; a worker does the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final
from uuid import uuid4

from sqlalchemy import Connection as Db
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol.clocks import sleep
from bootvol.errors import (
    BootvolError,
    DatabaseUnavailable,
    Forbidden,
    NoImageStore,
    SourceFailed,
    VolumeBusy,
)
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
from bootvol.threads import Shared

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
#: Seconds before an unavailable database is asked again.
_PAUSE: Final = 1.0

#: Ends a claim: the holder, and the id of the volume.
_End = Callable[[Db, str, int], None]


class VolumeUploads:
    """Makes images of volumes.

    :param sources: the sources by name.  The first one that takes images gets all of them.
    :param callers: the callers with their tokens, by the ids of their images; shared with the
        worker, and never stored.
    :param daemon: id of this daemon.
    :param now: returns the seconds since 1970.
    :param clock: the reactor.
    """

    _log = Logger()

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
        try:
            record = await self._database.write(begin)
        except (DatabaseUnavailable, CancelledError):
            # The rows may be written all the same.
            self._let_go(holder, volume_id, _given_up)
            raise
        adding: Shared[None] | None = None

        async def add() -> None:
            # A cancelled or late question goes on: then the source's last word is known.
            nonlocal adding
            adding = Shared(Deferred.fromCoroutine(_add(source, caller, record)))
            await adding.wait()

        if knows_callers:
            self._callers[record.id] = caller
        try:
            await self._images.ask(name, caller, add)
        except BaseException as error:
            if isinstance(error, BootvolError) and not isinstance(error, SourceFailed):
                # The source has no image.
                with suppress(DatabaseUnavailable):
                    await self._database.write(_undone, holder, volume_id)
                    self._callers.pop(record.id, None)
                    raise
            # The source may have the image, or still be about to add the image.
            self._let_go(holder, volume_id, _given_up, adding)
            raise
        self._let_go(holder, volume_id, _released)
        return await self._database.read(volume_rows.get, caller.tenant, volume_id), record

    def _let_go(
        self, holder: str, volume_id: int, end: _End, adding: Shared[None] | None = None
    ) -> None:
        """End a claim in the background, however long the database fails; then wake the worker.

        On SQLite the claim would otherwise last until the daemon's next start.

        :param end: ends the claim in a transaction.
        :param adding: ends with the source's work on the image; None if there is none.
        """

        async def let_go() -> None:
            if adding is not None:
                with suppress(Exception):
                    await adding.wait()
            while not self._database.ending:
                try:
                    await self._database.write_without_invalidation(end, holder, volume_id)
                except DatabaseUnavailable:
                    await sleep(self._clock, _PAUSE)
                else:
                    self._work.wake()
                    break

        Deferred.fromCoroutine(let_go()).addErrback(
            lambda failed: self._log.failure("could not end the claim on an upload", failed)
        )

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


async def _add(source: IImageSource, caller: Caller, record: ImageRecord) -> None:
    """Add the record of an image to its source."""
    if IImageTaker.providedBy(source):
        await IImageTaker(source).take(caller, record)
    else:
        await IImageStore(source).add(record)


def _released(db: Db, holder: str, volume_id: int) -> None:
    """Leave an upload to a worker."""
    claims.release(db, holder, Kind.VOLUME, volume_id)


def _given_up(db: Db, holder: str, volume_id: int) -> None:
    """Have a worker remove the image, unless a worker has the upload by now."""
    if claims.release(db, holder, Kind.VOLUME, volume_id):
        upload_rows.give_up(db, volume_id)


def _undone(db: Db, holder: str, volume_id: int) -> None:
    """Make a volume available again, unless a worker has the upload by now."""
    if claims.release(db, holder, Kind.VOLUME, volume_id):
        states.apply_event(db, Kind.VOLUME, volume_id, Event.UPLOADED)
        upload_rows.remove(db, volume_id)


def _properties(volume: Volume) -> Mapping[str, str]:
    """Return the properties that the new image inherits from the image of the volume."""
    kept = [each for each in volume.image_metadata.items() if each[0] not in _OF_OLD_IMAGE]
    return dict(kept[:_MOST])
