"""Requests to replace the data of volumes. All answers are immediate; a worker does the work."""

from __future__ import annotations

from collections.abc import Collection
from uuid import uuid4

from sqlalchemy import Connection as Db

from bootvol.backends import Backends
from bootvol.errors import (
    InvalidRequest,
    MoveNeeded,
    NotLatestSnapshot,
    RevertConflict,
    UnknownBackend,
    VolumeBusy,
    VolumeHasSnapshots,
)
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Caller, Image, Replacement, Volume, content_of
from bootvol.service import origins
from bootvol.service.images import Images
from bootvol.service.quotas import Quotas
from bootvol.service.volume_types import VolumeTypes
from bootvol.service.volumes import Work
from bootvol.store import attachments as attachment_rows
from bootvol.store import imports as import_rows
from bootvol.store import overview, states
from bootvol.store import replacements as replacement_rows
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database


class Replacements:
    """Fills volumes again, from snapshots or images, and moves volumes to other backends."""

    def __init__(
        self,
        database: Database,
        backends: Backends,
        quotas: Quotas,
        types: VolumeTypes,
        images: Images,
        work: Work,
    ) -> None:
        self._database = database
        self._backends = backends
        self._quotas = quotas
        self._types = types
        self._images = images
        self._work = work

    async def revert(self, caller: Caller, volume_id: int, snapshot_uuid: str | None) -> None:
        """Request that a volume get the data of its latest snapshot; until then ``reverting``.

        :param snapshot_uuid: the snapshot, which must be the latest one.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises NotLatestSnapshot: if the volume's latest snapshot is another one, or none.
        :raises InvalidRequest: if the volume has grown since the snapshot.
        :raises RevertConflict: if the volume or the snapshot is not available.
        """
        await self._database.write(self._revert, caller, volume_id, snapshot_uuid)
        self._work.wake()

    def _revert(self, db: Db, caller: Caller, volume_id: int, snapshot_uuid: str | None) -> None:
        volume = volume_rows.get(db, caller.tenant, volume_id, lock=True)
        latest = snapshot_rows.latest(db, caller.tenant, volume_id)
        if latest is None or latest.uuid != snapshot_uuid:
            raise NotLatestSnapshot(exists=latest is not None)
        if latest.size_gib != volume.size_gib:
            raise InvalidRequest("The size of the volume is not that of the snapshot.")
        if not _is_free(db, volume) or latest.status is not Status.AVAILABLE:
            raise RevertConflict
        states.apply_event(db, Kind.VOLUME, volume_id, Event.REVERT)
        states.apply_event(db, Kind.SNAPSHOT, latest.id, Event.COPY_BACK)
        new = Replacement(volume_id, _name(), volume.backend, volume.host, latest.id)
        replacement_rows.add(db, new)

    async def retype(
        self, caller: Caller, volume_id: int, volume_type: str | None, *, moves: bool
    ) -> None:
        """Give a volume another type.

        If the type states another backend, the volume is ``retyping`` until its data are there.

        :param volume_type: name of the type; None for no type.
        :param moves: whether the volume may move to another backend.
        :raises VolumeTypeNotFound: if the type does not exist.
        :raises UnknownBackend: if the type's backend is not configured any more.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises NoFittingBackend: if the backend does not meet the type's extra specs.
        :raises MoveNeeded: if the volume has to move, and may not.
        :raises QuotaExceeded: if the tenant's quota of the type is used up.
        :raises VolumeBusy: if the volume has the type already, or if its status or its snapshots
            do not allow the request.
        """
        backend = None
        if volume_type is not None:
            backend = await self._types.stated_backend(volume_type, caller.tenant)

        def write(db: Db) -> None:
            volume_rows.lock_tenant_quota(db, caller.tenant)
            self._types.keep(db, volume_type, caller.tenant)
            volume = volume_rows.get(db, caller.tenant, volume_id, lock=True)
            if volume.volume_type == volume_type:
                raise VolumeBusy("The volume has this type already")
            self._quotas.check_retype(db, volume, volume_type)
            self._types.check(db, volume_type, caller.tenant, backend or volume.backend)
            if backend is None or backend == volume.backend:
                if volume.status not in (Status.AVAILABLE, Status.IN_USE):
                    raise VolumeBusy("Volume status must be available or in-use")
                volume_rows.change(db, volume_id, {"volume_type": volume_type})
                return
            if not moves:
                raise MoveNeeded
            self._move(db, volume, backend, Event.RETYPE, retypes=True, volume_type=volume_type)

        await self._database.write(write)
        self._work.wake()

    async def migrate(
        self, caller: Caller, volume_id: int, backend: str, hosts: Collection[str]
    ) -> None:
        """Move a volume to another backend; until then the volume is in ``maintenance``.

        :param hosts: the hosts that the caller allows for the data; an empty one for all hosts.
        :raises UnknownBackend: if the backend is not configured, or if the data would come to
            another host than the allowed ones.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if the volume's status or its snapshots do not allow the request, or if
            the backend has the volume already.
        """
        if backend not in self._backends.names:
            raise UnknownBackend(f"The backend {backend} is not configured.")

        def write(db: Db) -> None:
            volume = volume_rows.get(db, caller.tenant, volume_id, lock=True)
            if origins.host_of(self._backends, backend, volume) not in hosts:
                raise UnknownBackend(f"The volume cannot move to the backend {backend} there.")
            if volume.backend == backend:
                raise VolumeBusy(f"The volume lies on the backend {backend} already")
            self._move(db, volume, backend, Event.MIGRATE)

        await self._database.write(write)
        self._work.wake()

    async def reimage(
        self, caller: Caller, volume_id: int, image_ref: str, *, reserved: bool
    ) -> None:
        """Fill a volume with an image again; until then the volume is ``downloading``.

        The former data are lost at once.

        :param reserved: whether the volume may be reserved for a server.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises ImageNotFound: if the image does not exist.
        :raises ImageLargerThanVolume: if the image is known to be larger than the volume.
        :raises VolumeBusy: if the volume's status does not allow the request, or while a copy of
            the volume is made.
        """
        image = await self._images.find(caller, image_ref)
        await self._database.write(self._reimage, caller, volume_id, image, reserved)
        self._work.wake()

    def _reimage(
        self, db: Db, caller: Caller, volume_id: int, image: Image, reserved: bool
    ) -> None:
        volume = volume_rows.get(db, caller.tenant, volume_id, lock=True)
        origins.check_fits(image, volume.size_gib)
        allowed = {Status.AVAILABLE, Status.ERROR, *([Status.RESERVED] if reserved else [])}
        ours = attachment_rows.find(db, volume_id) is not None
        copied = snapshot_rows.are_made(db, volume_id) or volume_rows.is_copied(db, volume_id)
        # The disk of a failed take-over is not bootvol's to write to.
        if volume.status not in allowed or ours or copied or volume.place is not None:
            raise VolumeBusy("Volume status must be available or error")
        # The import makes the volume anew, under the same name.
        replacement_rows.expect_image(db, volume_id)
        import_rows.remove(db, volume_id)
        import_rows.add(db, volume_id, image, content_of(image))
        facts = dict(origins.image_metadata(image, None))
        new = {"image_id": image.id, "bootable": True, "image_metadata": facts}
        volume_rows.change(db, volume_id, new)
        states.apply_event(db, Kind.VOLUME, volume_id, Event.REIMAGE)

    def _move(
        self,
        db: Db,
        volume: Volume,
        backend: str,
        event: Event,
        *,
        retypes: bool = False,
        volume_type: str | None = None,
    ) -> None:
        """Begin to move a locked volume."""
        if not _is_free(db, volume):
            raise VolumeBusy("Volume status must be available")
        if snapshot_rows.latest(db, volume.tenant, volume.id) is not None:
            raise VolumeHasSnapshots
        states.apply_event(db, Kind.VOLUME, volume.id, event)
        host = origins.host_of(self._backends, backend, volume)
        if host and (backend, host) not in overview.known_stores(db):
            # No daemon of that host could do the work.
            raise UnknownBackend(f"The host of the volume has no backend {backend}.")
        new = Replacement(
            volume.id, _name(), backend, host, retypes=retypes, volume_type=volume_type
        )
        replacement_rows.add(db, new)


def _is_free(db: Db, volume: Volume) -> bool:
    """Return whether a locked volume is available, and promised to no server."""
    promised = attachment_rows.is_promised(db, volume.id)
    return volume.status is Status.AVAILABLE and not promised


def _name() -> str:
    return f"volume-{uuid4()}"
