"""Operations of callers on volumes. All answers are immediate; a worker does the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import uuid4

import attrs
from sqlalchemy import Connection as Db

from bootvol.backends import Backends
from bootvol.errors import (
    ErrorReport,
    HostAway,
    InvalidRequest,
    NoFittingBackend,
    SnapshotBusy,
    VolumeBusy,
    VolumeNotFound,
)
from bootvol.lifecycle import MAKING, MOVING, REPLACING, Event, IllegalTransition, Kind, Status
from bootvol.model import (
    Caller,
    ConnectionInfo,
    Image,
    Import,
    NewVolume,
    Replacement,
    Snapshot,
    Volume,
    content_of,
)
from bootvol.service import origins
from bootvol.service.images import Images
from bootvol.service.overview import disabled_reason
from bootvol.service.quotas import Quotas, check_metadata
from bootvol.service.server_hosts import of_daemon
from bootvol.service.volume_types import VolumeTypes
from bootvol.store import attachments as attachment_rows
from bootvol.store import daemons, states
from bootvol.store import imports as import_rows
from bootvol.store import replacements as replacement_rows
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

#: The image of a new volume, or None; and its backend, or None for the default.
Prepared = tuple[Image | None, str | None]


class Work(Protocol):
    """Receives notice of new work; in the daemon a :class:`bootvol.worker.worker.Worker`."""

    def wake(self) -> None:
        """Look for new work."""

    def stop_making(self, kind: Kind, number: int) -> None:
        """Stop making a resource, if that goes on here: the work has become pointless."""


class Volumes:
    """The volumes of all tenants, as seen by a caller.

    :param daemon: id of this daemon.
    :param now: returns the current time, as an aware UTC datetime.
    :ivar zone: the availability zone of all volumes.
    """

    def __init__(
        self,
        database: Database,
        images: Images,
        backends: Backends,
        quotas: Quotas,
        types: VolumeTypes,
        daemon: str,
        zone: str,
        work: Work,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._images = images
        self._backends = backends
        self._quotas = quotas
        self._types = types
        self._daemon = daemon
        self.zone = zone
        self._work = work
        self._now = now

    async def create(self, caller: Caller, wanted: NewVolume) -> Volume:
        """Add a volume in status ``creating``; a worker does the rest.

        :raises VolumeTypeNotFound: if the volume type does not exist.
        :raises UnknownBackend: if the type's backend is not configured any more.
        :raises InvalidRequest: if the parts of ``wanted`` contradict each other.
        :raises SnapshotNotFound: if the snapshot does not exist.
        :raises VolumeNotFound: if the volume to copy does not exist.
        :raises ImageNotFound: if the image does not exist.
        :raises ImageLargerThanVolume: if the image is known to be larger than the volume.
        :raises QuotaExceeded: if the tenant's quota is used up.
        """
        image, backend = await self.prepare(caller, wanted)
        added = await self._database.write(self.add, caller, wanted, image, backend)
        self._work.wake()
        return added

    async def prepare(self, caller: Caller, wanted: NewVolume) -> Prepared:
        """Check a request for a volume; return the arguments of :meth:`add` besides ``wanted``.

        :raises bootvol.errors.BootvolError: as :meth:`create`, except for the quota of volumes.
        """
        check_metadata(wanted.metadata)
        backend = None
        if wanted.volume_type:
            backend = await self._types.backend_of(wanted.volume_type, caller.tenant)
        origins.check_one(wanted)
        if wanted.availability_zone not in (None, self.zone):
            raise InvalidRequest(f"The availability zone {wanted.availability_zone} is not known.")
        image = None
        if wanted.image_ref is not None:
            image = await self._images.find(caller, wanted.image_ref)
            origins.check_fits(image, wanted.size_gib or 0)
        return image, backend

    def add(
        self,
        db: Db,
        caller: Caller,
        wanted: NewVolume,
        image: Image | None = None,
        backend: str | None = None,
    ) -> Volume:
        """Add a volume within a transaction, if the tenant's quota allows one more.

        The volume fails at once if the backend does not meet the extra specs of its type.

        :param backend: backend of the new volume; None for the origin's backend, or the default.
        :raises bootvol.errors.BootvolError: as :func:`bootvol.service.origins.found`.
        :raises QuotaExceeded: if the tenant's quota is used up.
        :raises VolumeTypeNotFound: if the volume type does not exist any more.
        """
        volume_rows.lock_tenant_quota(db, caller.tenant)
        self._types.keep(db, wanted.volume_type, caller.tenant)
        snapshot, source = origins.found(db, caller, wanted, self._backends, backend)
        origin, size = snapshot or source, wanted.size_gib or 0
        if origin is not None:
            size, backend = wanted.size_gib or origin.size_gib, backend or origin.backend
        volume_type = wanted.volume_type or (source.volume_type if source else None)
        self._quotas.check_volume(db, caller.tenant, size, volume_type)
        backend = backend or self._backends.default
        volume = Volume(
            id=0,
            name=f"volume-{uuid4()}",
            tenant=caller.tenant,
            user=caller.user,
            size_gib=size,
            status=Status.CREATING,
            created_at=self._now(),
            availability_zone=self.zone,
            backend=backend,
            host=origins.host_of(self._backends, backend, origin),
            image_id=image.id if image else None,
            snapshot_id=snapshot.id if snapshot else None,
            snapshot_uuid=snapshot.uuid if snapshot else None,
            source_id=source.id if source else None,
            source_uuid=source.uuid if source else None,
            volume_type=volume_type,
            display_name=wanted.display_name,
            display_description=wanted.display_description,
            metadata=wanted.metadata,
            bootable=image is not None or (origin is not None and origin.bootable),
            image_metadata=origins.image_metadata(image, origin),
            request_id=caller.request_id,
        )
        added = volume_rows.add(db, volume, image)
        if image is not None:
            import_rows.add(db, added.id, image, content_of(image))
        try:
            self._types.check(db, wanted.volume_type, caller.tenant, backend)
        except NoFittingBackend as error:
            states.apply_event(db, Kind.VOLUME, added.id, Event.FAIL, error.report())
        return added

    async def listed(
        self, caller: Caller, *, bootable: bool = False, limit: int | None = None, offset: int = 0
    ) -> Sequence[Volume]:
        """List the tenant's volumes, ascending by id.

        :param bootable: whether to list bootable volumes only.
        """
        return await self._database.read(
            volume_rows.listed, caller.tenant, bootable=bootable, limit=limit, offset=offset
        )

    async def listed_everywhere(self) -> Sequence[Volume]:
        """List the volumes of all tenants, ascending by id."""
        return await self._database.read(volume_rows.every)

    async def get(self, caller: Caller, volume_id: int, *, bootable: bool = False) -> Volume:
        """Return one volume.

        :raises VolumeNotFound: if the volume does not exist, belongs to another tenant, or is not
            bootable although ``bootable`` is true.
        """
        volume = await self._database.read(volume_rows.get, caller.tenant, volume_id)
        if bootable and volume.image_id is None:
            raise VolumeNotFound(volume_id)
        return volume

    async def change(self, caller: Caller, volume_id: int, values: Mapping[str, Any]) -> Volume:
        """Change a volume in any status; return the volume.

        :param values: new values of ``display_name``, ``display_description``, ``bootable`` and
            ``metadata``, which is replaced as a whole; other values stay.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises QuotaExceeded: if the metadata has too many items.
        """
        check_metadata(values.get("metadata") or {})

        def write(db: Db) -> Volume:
            volume_rows.get(db, caller.tenant, volume_id, lock=True)
            volume_rows.change(db, volume_id, values)
            return volume_rows.get(db, caller.tenant, volume_id)

        return await self._database.write(write)

    async def set_readonly(self, caller: Caller, volume_id: int, readonly: bool) -> None:
        """Set whether servers may only read a volume.

        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if the volume is not available: a server may have it.
        """

        def write(db: Db) -> None:
            found = volume_rows.get(db, caller.tenant, volume_id, lock=True)
            promised = attachment_rows.is_promised(db, volume_id)
            if promised or found.status is not Status.AVAILABLE:
                raise VolumeBusy("Volume status must be available")
            volume_rows.change(db, volume_id, {"readonly": readonly})

        await self._database.write(write)

    async def change_metadata(
        self, caller: Caller, volume_id: int, edit: Callable[[Mapping[str, str]], Mapping[str, str]]
    ) -> Volume:
        """Change a volume's metadata, in any status, in one transaction; return the volume.

        :param edit: returns the new items, from the present ones.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises QuotaExceeded: if the metadata has too many items.
        """

        return await self._database.write(_edit, caller.tenant, volume_id, "metadata", edit)

    async def change_image_metadata(
        self, caller: Caller, volume_id: int, edit: Callable[[Mapping[str, str]], Mapping[str, str]]
    ) -> Volume:
        """Change the known facts about a volume's image, as :meth:`change_metadata`."""
        return await self._database.write(_edit, caller.tenant, volume_id, "image_metadata", edit)

    async def error(self, caller: Caller, volume_id: int) -> ErrorReport | None:
        """Return why a volume failed, was not attached, or has to wait; None if all is well.

        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        """

        def query(db: Db) -> ErrorReport | None:
            volume = volume_rows.get(db, caller.tenant, volume_id)
            made_from = import_rows.find(db, volume_id)
            reason = self._reason(db, volume, made_from)
            if reason is None:
                # The data may come from another backend, or go to another one.
                reason = self._absence_elsewhere(db, volume)
            if reason is None and volume.status in MAKING and made_from is not None:
                reason = made_from.error
            return reason

        return await self._database.read(query)

    def _absence_elsewhere(self, db: Db, volume: Volume) -> ErrorReport | None:
        other: Volume | Snapshot | Replacement | None = None
        if volume.status in REPLACING:
            other = replacement_rows.get(db, volume.id)
        elif volume.status in MAKING and volume.snapshot_id is not None:
            other = snapshot_rows.get(db, volume.tenant, volume.snapshot_id)
        elif volume.status in MAKING and volume.source_id is not None:
            other = volume_rows.get(db, volume.tenant, volume.source_id)
        return None if other is None else absence(db, self._backends, other)

    async def progress(self, caller: Caller, volume_id: int) -> Import:
        """Return the progress of a bootable volume's import.

        :raises VolumeNotFound: as :meth:`get` with ``bootable``.
        """

        def query(db: Db) -> Import:
            found = import_rows.get(db, caller.tenant, volume_id)
            volume = volume_rows.get(db, caller.tenant, volume_id)
            reason = self._reason(db, volume, found) if volume.status in MAKING else None
            # An import that waits for the operator has no position in the queue.
            return found if reason is None else attrs.evolve(found, error=reason, position=None)

        return await self._database.read(query)

    def _reason(self, db: Db, volume: Volume, made_from: Import | None) -> ErrorReport | None:
        """Return why a volume failed, or why no work on it is possible now."""
        reason = volume.error or absence(db, self._backends, volume)
        if reason is None and volume.status in MOVING | {Status.EXTENDING}:
            reason = of_daemon(db, attachment_rows.owner(db, volume.id), self._daemon)
        if reason is None and volume.status is Status.CREATING:
            reason = disabled_reason(db, volume.backend, volume.host)
        if reason is None and made_from is not None and volume.status in MAKING:
            reason = self._images.missing(made_from.image.source)
        return reason

    async def delete(self, caller: Caller, volume_id: int, *, snapshots: bool = False) -> None:
        """Request that a volume be removed, even while other work on it goes on.

        :param snapshots: whether all snapshots of the volume go, too.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if the volume's status does not allow a removal.
        :raises SnapshotBusy: if a snapshot's status does not allow a removal. Then all stay.
        """
        gone = await self._database.write(_mark_deleted, caller.tenant, volume_id, snapshots)
        self._work.stop_making(Kind.VOLUME, volume_id)
        for snapshot_id in gone:
            self._work.stop_making(Kind.SNAPSHOT, snapshot_id)
        self._work.wake()

    async def connection(self, caller: Caller, volume_id: int) -> ConnectionInfo:
        """Return how to reach a volume, for an operator or hypervisor.

        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if the volume's status allows no connection, or not yet.
        :raises VolumeElsewhere: if only another host reaches the volume.
        """
        volume = await self.get(caller, volume_id)
        if volume.status not in (Status.AVAILABLE, Status.IN_USE):
            raise VolumeBusy("Volume status must be available or in-use")
        served = await self._database.read(attachment_rows.reach, volume.id)
        return served or await self._backends.connection(volume)


def absence(
    db: Db, backends: Backends, data: Volume | Snapshot | Replacement
) -> ErrorReport | None:
    """Return why no daemon works on some data now; None without a known reason."""
    if backends.reaches(data.host):
        return backends.missing(data.backend)
    return None if daemons.runs_on(db, data.host) else HostAway(data.host).report()


def _edit(
    db: Db,
    tenant: str,
    volume_id: int,
    column: str,
    edit: Callable[[Mapping[str, str]], Mapping[str, str]],
) -> Volume:
    """Change a column with texts by name; return the volume."""
    items = edit(getattr(volume_rows.get(db, tenant, volume_id, lock=True), column))
    check_metadata(items)
    volume_rows.change(db, volume_id, {column: dict(items)})
    return volume_rows.get(db, tenant, volume_id)


def _mark_deleted(db: Db, tenant: str, volume_id: int, snapshots: bool) -> Sequence[int]:
    """Mark a volume as deleted, and its snapshots if wanted; return the snapshots' ids."""
    volume_rows.get(db, tenant, volume_id, lock=True)
    if attachment_rows.is_promised(db, volume_id):
        raise VolumeBusy
    try:
        states.apply_event(db, Kind.VOLUME, volume_id, Event.DELETE)
    except IllegalTransition:
        raise VolumeBusy from None
    gone = snapshot_rows.of_volume(db, tenant, volume_id) if snapshots else ()
    for snapshot_id in gone:
        try:
            states.apply_event(db, Kind.SNAPSHOT, snapshot_id, Event.DELETE)
        except IllegalTransition:
            raise SnapshotBusy from None
    return gone
