"""Transfers of volumes from one tenant to another, who shows a key."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest

from sqlalchemy import Connection as Db

from bootvol.errors import SnapshotBusy, TransferKeyWrong, VolumeBusy, without_query
from bootvol.lifecycle import Event, IllegalTransition, Kind, Status
from bootvol.model import Caller, Transfer, new_uuid
from bootvol.service.quotas import Quotas
from bootvol.store import attachments as attachment_rows
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import states
from bootvol.store import transfers as transfer_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database


class Transfers:
    """The transfers of all tenants, as seen by a caller.

    :param now: returns the current time, as an aware UTC datetime.
    """

    def __init__(self, database: Database, quotas: Quotas, now: Callable[[], datetime]) -> None:
        self._database = database
        self._quotas = quotas
        self._now = now

    async def offer(
        self, caller: Caller, volume_id: int, name: str | None, *, no_snapshots: bool = False
    ) -> tuple[Transfer, str]:
        """Offer an available volume; return the offer, and the key for the taker.

        Only this answer has the key.

        :param no_snapshots: whether the volume's snapshots stay with the caller's tenant.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if the volume is not available.
        """
        # As long as Cinder's.
        key = secrets.token_hex(8)
        return await self._database.write(
            self._offer, caller, volume_id, name, key, no_snapshots
        ), key

    def _offer(
        self,
        db: Db,
        caller: Caller,
        volume_id: int,
        name: str | None,
        key: str,
        no_snapshots: bool,
    ) -> Transfer:
        volume = volume_rows.get(db, caller.tenant, volume_id, lock=True)
        if attachment_rows.is_promised(db, volume_id):
            raise VolumeBusy("status must be available")
        try:
            states.apply_event(db, Kind.VOLUME, volume_id, Event.OFFER)
        except IllegalTransition:
            raise VolumeBusy("status must be available") from None
        uuid = new_uuid()
        offered = Transfer(
            uuid,
            volume_id,
            volume.uuid,
            caller.tenant,
            name,
            _hash(uuid, key),
            self._now(),
            no_snapshots,
        )
        transfer_rows.add(db, offered)
        return offered

    async def listed(self, caller: Caller) -> Sequence[Transfer]:
        """List the offers of the caller's tenant."""
        return await self._database.read(transfer_rows.listed, caller.tenant)

    async def get(self, caller: Caller, uuid: str) -> Transfer:
        """Return an offer of the caller's tenant.

        :raises TransferNotFound: if the tenant has no such offer.
        """
        return await self._database.read(transfer_rows.get, uuid, caller.tenant)

    async def withdraw(self, caller: Caller, uuid: str) -> None:
        """Take an offer back; the volume is available again.

        :raises TransferNotFound: if the caller's tenant has no such offer.
        """

        def write(db: Db) -> None:
            found = transfer_rows.get(db, uuid, caller.tenant)
            transfer_rows.remove(db, uuid)
            # A volume that has failed meanwhile stays in error.
            with suppress(IllegalTransition):
                states.apply_event(db, Kind.VOLUME, found.volume_id, Event.SETTLE)

        await self._database.write(write)

    async def accept(self, caller: Caller, uuid: str, key: str) -> Transfer:
        """Take a volume, with its snapshots if offered, for the caller's tenant.

        :raises TransferNotFound: if there is no such offer.
        :raises TransferKeyWrong: if the key is not the offer's.
        :raises VolumeBusy: if the volume has failed since the offer, or if another volume is being
            made from the volume.
        :raises SnapshotBusy: if a snapshot of the volume is not available, or if another volume is
            being made from a snapshot.
        :raises QuotaExceeded: if the quota of the caller's tenant is used up.
        """
        return await self._database.write(self._accept, caller, uuid, key)

    def _accept(self, db: Db, caller: Caller, uuid: str, key: str) -> Transfer:
        volume_rows.lock_tenant_quota(db, caller.tenant)
        found = transfer_rows.get(db, uuid)
        if not compare_digest(found.key_hash, _hash(uuid, key)):
            raise TransferKeyWrong
        volume = volume_rows.get(db, found.tenant, found.volume_id, lock=True)
        snapshots = [
            snapshot_rows.get(db, found.tenant, number, lock=True)
            for number in snapshot_rows.of_volume(db, found.tenant, volume.id)
            if not found.no_snapshots
        ]
        if any(each.status is not Status.AVAILABLE for each in snapshots):
            raise SnapshotBusy("Snapshot status must be available")
        if snapshot_rows.are_made(db, volume.id):
            raise SnapshotBusy("Snapshot status must be available")
        if volume_rows.is_copied(db, volume.id):
            raise VolumeBusy("another volume is being made from the volume")
        if any(snapshot_rows.is_copied(db, each.id) for each in snapshots):
            # That volume stays with the giver, and could not read another tenant's snapshot.
            raise SnapshotBusy("a volume is being made from a snapshot of the volume")
        if found.tenant != caller.tenant:
            self._quotas.check_volume(db, caller.tenant, volume.size_gib, volume.volume_type)
        transfer_rows.remove(db, uuid)
        try:
            states.apply_event(db, Kind.VOLUME, volume.id, Event.SETTLE)
        except IllegalTransition:
            raise VolumeBusy("status must be available") from None
        owner = {"tenant": caller.tenant, "user": caller.user}
        # A query in the image's URL may hold a secret of the giver.
        image = None if volume.image_id is None else without_query(volume.image_id)
        volume_rows.change(db, volume.id, {**owner, "image_id": image})
        for each in snapshots:
            # Each is counted beside those that have come already, and the volume.
            if found.tenant != caller.tenant:
                self._quotas.check_snapshot(db, caller.tenant, each.size_gib, volume.volume_type)
            snapshot_rows.change(db, each.id, owner)
        return found


def _hash(uuid: str, key: str) -> str:
    """Return the hash of a key, which is random and so needs no slow hash."""
    return sha256(f"{uuid} {key}".encode()).hexdigest()
