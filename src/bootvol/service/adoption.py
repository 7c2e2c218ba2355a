"""Operations of operators who take disks over as volumes and snapshots, and give them up.

All answers are immediate; a worker does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import uuid4

import attrs
from sqlalchemy import Connection as Db

from bootvol.backends import Absent, Backends
from bootvol.errors import BackendSilent, InvalidRequest, SnapshotBusy, VolumeBusy
from bootvol.interfaces import IAdoptingBackend, ISnapshotAdoptingBackend
from bootvol.lifecycle import Event, IllegalTransition, Kind, Status
from bootvol.model import GIB, Adoption, Caller, NewSnapshot, Snapshot, StoredDisk, Volume
from bootvol.service.quotas import Quotas, check_metadata
from bootvol.service.volume_types import VolumeTypes
from bootvol.service.volumes import Work
from bootvol.store import attachments as attachment_rows
from bootvol.store import ids, states
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database


@attrs.frozen
class KnownDisk:
    """A disk in a backend's store, with the object that bootvol knows the disk as.

    :ivar uuid: the uuid of the volume or snapshot; None for all other disks.
    """

    disk: StoredDisk
    uuid: str | None


class Adoptions:
    """The disks in the stores of all backends.

    :param zone: the availability zone of all volumes.
    :param now: returns the current time, as an aware UTC datetime.
    """

    def __init__(
        self,
        database: Database,
        backends: Backends,
        quotas: Quotas,
        types: VolumeTypes,
        zone: str,
        work: Work,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._backends = backends
        self._quotas = quotas
        self._types = types
        self._zone = zone
        self._work = work
        self._now = now

    def reaches(self, backend: str, host: str) -> bool:
        """Return whether this daemon has a backend with the disks of a host.

        :param host: the host whose daemons alone reach the disks; empty if every host's do.
        """
        return backend in self._backends.names and host == self._backends.host_of(backend)

    # --- lists -----------------------------------------------------------------------------------

    async def disks(self, backend: str) -> Sequence[KnownDisk]:
        """List the disks that are volumes, or are not bootvol's, in any order.

        :raises InvalidRequest: if the backend takes no disks over.
        :raises BackendSilent: if the backend does not answer in time.
        :raises bootvol.errors.BackendFailed: if the backend cannot tell.
        """
        asked = self._adopting(backend)
        found = await self._backends.ask(backend, "disks", asked.stored_disks)
        return await self._known(backend, Kind.VOLUME, found)

    async def snapshots(self, backend: str) -> Sequence[KnownDisk]:
        """List the disks that are snapshots, and the snapshots within disks, in any order.

        :raises: see :meth:`disks`.
        """
        asked = self._adopting(backend)
        found = await self._backends.ask(backend, "disks", asked.stored_disks)
        listed = await self._known(backend, Kind.SNAPSHOT, found)
        shown = [each for each in listed if each.uuid is not None or _is_snapshot(each.disk)]
        if ISnapshotAdoptingBackend.providedBy(asked):
            inner = ISnapshotAdoptingBackend(asked).stored_snapshots
            within = await self._backends.ask(backend, "snapshots", inner)
            shown += [KnownDisk(each, None) for each in within]
        return shown

    async def _known(
        self, backend: str, kind: Kind, found: Sequence[StoredDisk]
    ) -> list[KnownDisk]:
        uuids = await self._database.read(ids.by_name, kind, backend)
        return [
            KnownDisk(each, uuids.get(each.volume) if each.volume else None)
            for each in found
            if each.volume is None or each.volume in uuids
        ]

    def _adopting(self, name: str) -> IAdoptingBackend:
        backend = self._backends.named(name)
        if isinstance(backend, Absent):
            raise BackendSilent(name)
        if not IAdoptingBackend.providedBy(backend):
            raise InvalidRequest(f"The backend {name} takes no disks over.")
        return IAdoptingBackend(backend)

    # --- volumes ---------------------------------------------------------------------------------

    async def adopt(self, caller: Caller, wanted: Adoption) -> Volume:
        """Add a volume in status ``creating``; a worker takes the disk over.

        The volume has no size until then.  If the disk cannot be taken over, the volume fails.

        :raises InvalidRequest: if the backend takes no disks over, or the type is for another
            backend.
        :raises VolumeTypeNotFound: if the volume type does not exist.
        :raises NoFittingBackend: if the backend does not meet the type's extra specs.
        :raises QuotaExceeded: if the tenant's quota is used up.
        :raises BackendSilent: if the backend does not answer in time.
        :raises bootvol.errors.BackendFailed: if the backend cannot tell the size of the disk.
        """
        check_metadata(wanted.metadata)
        asked = self._adopting(wanted.backend)
        if wanted.volume_type is not None:
            backend = await self._types.backend_of(wanted.volume_type, caller.tenant)
            if backend != wanted.backend:
                raise InvalidRequest(
                    f"The volume type {wanted.volume_type} is for the backend {backend}."
                )
        found = await self._backends.ask(
            wanted.backend, f"disk {wanted.place}", lambda: asked.stored_disk(wanted.place)
        )
        size = 0 if found is None else -(-found.size // GIB)
        added = await self._database.write(self._add, caller, wanted, size)
        self._work.wake()
        return added

    def _add(self, db: Db, caller: Caller, wanted: Adoption, size_gib: int) -> Volume:
        volume_rows.lock_tenant_quota(db, caller.tenant)
        self._types.check(db, wanted.volume_type, caller.tenant, wanted.backend)
        self._quotas.check_volume(db, caller.tenant, size_gib, wanted.volume_type)
        volume = Volume(
            id=0,
            name=f"volume-{uuid4()}",
            tenant=caller.tenant,
            user=caller.user,
            size_gib=0,
            target_gib=size_gib,
            status=Status.CREATING,
            created_at=self._now(),
            availability_zone=self._zone,
            backend=wanted.backend,
            host=wanted.host,
            place=wanted.place,
            volume_type=wanted.volume_type,
            display_name=wanted.display_name,
            display_description=wanted.display_description,
            metadata=wanted.metadata,
            bootable=wanted.bootable,
            request_id=caller.request_id,
        )
        return volume_rows.add(db, volume)

    async def give_up(self, caller: Caller, volume_id: int) -> None:
        """Request that a volume's row be removed; the data stays on the backend.

        Afterwards the disk has the name ``volume-UUID`` in the store, with the volume's uuid.

        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if the volume is neither available nor in error, or has snapshots.
        :raises InvalidRequest: if the backend cannot give disks up.
        """
        await self._database.write(self._give_up, caller, volume_id)
        self._work.wake()

    def _give_up(self, db: Db, caller: Caller, volume_id: int) -> None:
        volume = volume_rows.get(db, caller.tenant, volume_id, lock=True)
        self._adopting(volume.backend)
        if attachment_rows.is_promised(db, volume_id) or snapshot_rows.exist(db, volume_id):
            raise VolumeBusy
        try:
            states.apply_event(db, Kind.VOLUME, volume_id, Event.GIVE_UP)
        except IllegalTransition:
            raise VolumeBusy from None

    # --- snapshots -------------------------------------------------------------------------------

    async def adopt_snapshot(self, caller: Caller, wanted: NewSnapshot, place: str) -> Snapshot:
        """Add a snapshot in status ``creating``; a worker takes the disk over.

        :param place: name of a snapshot within the volume's disk, or of a disk on the volume's
            backend.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if the volume is neither available nor in use.
        :raises InvalidRequest: if the backend takes no disks over.
        :raises QuotaExceeded: if the tenant's quota is used up.
        """
        check_metadata(wanted.metadata)
        added = await self._database.write(self._add_snapshot, caller, wanted, place)
        self._work.wake()
        return added

    def _add_snapshot(self, db: Db, caller: Caller, wanted: NewSnapshot, place: str) -> Snapshot:
        volume_rows.lock_tenant_quota(db, caller.tenant)
        volume = volume_rows.get(db, caller.tenant, wanted.volume_id, lock=True)
        self._adopting(volume.backend)
        if volume.status not in (Status.AVAILABLE, Status.IN_USE):
            raise VolumeBusy("Volume status must be available or in-use")
        self._quotas.check_snapshot(db, caller.tenant, volume.size_gib, volume.volume_type)
        snapshot = Snapshot(
            id=0,
            name=f"snapshot-{uuid4()}",
            tenant=caller.tenant,
            user=caller.user,
            volume_id=volume.id,
            volume_uuid=volume.uuid,
            size_gib=volume.size_gib,
            status=Status.CREATING,
            created_at=self._now(),
            backend=volume.backend,
            host=volume.host,
            place=place,
            display_name=wanted.display_name,
            display_description=wanted.display_description,
            metadata=wanted.metadata,
            bootable=volume.bootable,
            image_metadata=volume.image_metadata,
            request_id=caller.request_id,
        )
        return snapshot_rows.add(db, snapshot)

    async def give_up_snapshot(self, caller: Caller, snapshot_id: int) -> None:
        """Request that a snapshot's row be removed; the data stays on the backend.

        Afterwards the disk has the name ``snapshot-UUID`` in the store, with the snapshot's uuid.

        :raises SnapshotNotFound: if the snapshot does not exist or belongs to another tenant.
        :raises SnapshotBusy: if the snapshot is neither available nor in error.
        :raises InvalidRequest: if the backend cannot give disks up.
        """
        await self._database.write(self._give_up_snapshot, caller, snapshot_id)
        self._work.wake()

    def _give_up_snapshot(self, db: Db, caller: Caller, snapshot_id: int) -> None:
        snapshot = snapshot_rows.get(db, caller.tenant, snapshot_id, lock=True)
        self._adopting(snapshot.backend)
        try:
            states.apply_event(db, Kind.SNAPSHOT, snapshot_id, Event.GIVE_UP)
        except IllegalTransition:
            raise SnapshotBusy from None


def _is_snapshot(disk: StoredDisk) -> bool:
    """Return whether a disk of nobody is a snapshot: by its origin, or by the name we gave it."""
    return disk.origin is not None or disk.place.lstrip("_").startswith(f"{Kind.SNAPSHOT}-")
