"""Tasks that make snapshots, and remove them.

A snapshot is a hidden volume that holds the same bytes as its volume: a clone if the backend
clones, else a copy. Afterwards volume and snapshot are independent, so either may be deleted first
(specification, section 5.7).
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from bootvol.lifecycle import Event, Kind
from bootvol.model import Snapshot
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database
from bootvol.worker.claims import Claim
from bootvol.worker.copier import Copier
from bootvol.worker.tasks.storage import Making, Removing, Storage


class MakeSnapshot(Making):
    """Makes a snapshot; the volume is neither removed nor attached meanwhile."""

    kind = Kind.SNAPSHOT

    def __init__(
        self,
        snapshot: Snapshot,
        storage: Storage,
        copier: Copier,
        database: Database,
        clock: IReactorTime,
    ) -> None:
        super().__init__(snapshot, storage, clock)
        self._copier = copier
        self._database = database
        self._clock = clock
        self._volume_id = snapshot.volume_id

    async def work(self, claim: Claim) -> Event:
        """Clone or copy the volume."""
        volume = await self._database.read(volume_rows.get, self.tenant, self._volume_id)
        await self.copy_volume(self._copier, volume, self._clock)
        return Event.COMPLETE


class RemoveSnapshot(Removing):
    """Removes a snapshot."""

    kind = Kind.SNAPSHOT
