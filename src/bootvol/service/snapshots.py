"""Operations of callers on snapshots. All answers are immediate; a worker does the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import uuid4

from sqlalchemy import Connection as Db

from bootvol.backends import Backends
from bootvol.errors import ErrorReport, SnapshotBusy, VolumeBusy
from bootvol.lifecycle import Event, IllegalTransition, Kind, Status
from bootvol.model import Caller, NewSnapshot, Snapshot
from bootvol.service.quotas import Quotas, check_metadata
from bootvol.service.volumes import Work, absence
from bootvol.store import attachments as attachment_rows
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import states
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

_NOT_FORCED: Final = (
    "Volume status must be available: the backend makes no snapshots of volumes in use, even with"
    " force"
)


class Snapshots:
    """The snapshots of all tenants, as seen by a caller.

    :param now: returns the current time, as an aware UTC datetime.
    """

    def __init__(
        self,
        database: Database,
        backends: Backends,
        quotas: Quotas,
        work: Work,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._backends = backends
        self._quotas = quotas
        self._work = work
        self._now = now

    async def create(self, caller: Caller, wanted: NewSnapshot) -> Snapshot:
        """Add a snapshot in status ``creating``; a worker does the rest.

        :raises VolumeNotFound: if the volume does not exist.
        :raises VolumeBusy: if the volume's status does not allow a snapshot.
        :raises QuotaExceeded: if the tenant has as many snapshots as allowed, or if the metadata
            has too many items.
        """
        check_metadata(wanted.metadata)
        added = await self._database.write(self._add, caller, wanted)
        self._work.wake()
        return added

    def _add(self, db: Db, caller: Caller, wanted: NewSnapshot) -> Snapshot:
        volume_rows.lock_tenant_quota(db, caller.tenant)
        volume = volume_rows.get(db, caller.tenant, wanted.volume_id, lock=True)
        free = volume.status is Status.AVAILABLE
        promised = free and attachment_rows.is_promised(db, volume.id)
        # Only a backend that clones can capture one moment of a volume that is being written to.
        backend = self._backends.named(volume.backend)
        forced = wanted.force and volume.status is Status.IN_USE
        if forced and not backend.capabilities.clones:
            raise VolumeBusy(_NOT_FORCED)
        if promised or not (free or forced):
            raise VolumeBusy("Volume status must be available")
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
            display_name=wanted.display_name,
            display_description=wanted.display_description,
            metadata=wanted.metadata,
            bootable=volume.bootable,
            image_metadata=volume.image_metadata,
            request_id=caller.request_id,
        )
        return snapshot_rows.add(db, snapshot)

    async def listed(
        self, caller: Caller, *, limit: int | None = None, offset: int = 0
    ) -> Sequence[Snapshot]:
        """List the tenant's snapshots, ascending by id."""
        return await self._database.read(
            snapshot_rows.listed, caller.tenant, limit=limit, offset=offset
        )

    async def listed_everywhere(self) -> Sequence[Snapshot]:
        """List the snapshots of all tenants, ascending by id."""
        return await self._database.read(snapshot_rows.every)

    async def get(self, caller: Caller, snapshot_id: int) -> Snapshot:
        """Return one snapshot.

        :raises SnapshotNotFound: if the snapshot does not exist or belongs to another tenant.
        """
        return await self._database.read(snapshot_rows.get, caller.tenant, snapshot_id)

    async def change(
        self, caller: Caller, snapshot_id: int, values: Mapping[str, object]
    ) -> Snapshot:
        """Change a snapshot in any status; return the snapshot.

        :param values: new values of ``display_name``, ``display_description`` and ``metadata``,
            which is replaced as a whole; other values stay.
        :raises SnapshotNotFound: if the snapshot does not exist or belongs to another tenant.
        :raises QuotaExceeded: if the metadata has too many items.
        """
        metadata = values.get("metadata")
        if isinstance(metadata, Mapping):
            check_metadata(metadata)

        def write(db: Db) -> Snapshot:
            snapshot_rows.get(db, caller.tenant, snapshot_id, lock=True)
            snapshot_rows.change(db, snapshot_id, values)
            return snapshot_rows.get(db, caller.tenant, snapshot_id)

        return await self._database.write(write)

    async def change_metadata(
        self,
        caller: Caller,
        snapshot_id: int,
        edit: Callable[[Mapping[str, str]], Mapping[str, str]],
    ) -> Snapshot:
        """Change a snapshot's metadata, in any status, in one transaction; return the snapshot.

        :param edit: returns the new items, from the present ones.
        :raises SnapshotNotFound: if the snapshot does not exist or belongs to another tenant.
        :raises QuotaExceeded: if the metadata has too many items.
        """

        def write(db: Db) -> Snapshot:
            items = edit(snapshot_rows.get(db, caller.tenant, snapshot_id, lock=True).metadata)
            check_metadata(items)
            snapshot_rows.change(db, snapshot_id, {"metadata": dict(items)})
            return snapshot_rows.get(db, caller.tenant, snapshot_id)

        return await self._database.write(write)

    async def error(self, caller: Caller, snapshot_id: int) -> ErrorReport | None:
        """Return why a snapshot is in ``error`` or has to wait; None if all is well.

        :raises SnapshotNotFound: if the snapshot does not exist or belongs to another tenant.
        """

        def query(db: Db) -> ErrorReport | None:
            found = snapshot_rows.get(db, caller.tenant, snapshot_id)
            return found.error or absence(db, self._backends, found)

        return await self._database.read(query)

    async def delete(self, caller: Caller, snapshot_id: int) -> None:
        """Request that a snapshot be removed, even while it is being made.

        :raises SnapshotNotFound: if the snapshot does not exist or belongs to another tenant.
        :raises SnapshotBusy: if the snapshot's status does not allow a removal.
        """
        await self._database.write(_mark_deleted, caller.tenant, snapshot_id)
        self._work.stop_making(Kind.SNAPSHOT, snapshot_id)
        self._work.wake()


def _mark_deleted(db: Db, tenant: str, snapshot_id: int) -> None:
    snapshot_rows.get(db, tenant, snapshot_id, lock=True)
    try:
        states.apply_event(db, Kind.SNAPSHOT, snapshot_id, Event.DELETE)
    except IllegalTransition:
        raise SnapshotBusy from None
