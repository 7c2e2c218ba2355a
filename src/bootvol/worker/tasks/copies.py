"""Tasks that make volumes from snapshots, and from other volumes."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.interfaces import IReactorTime

from bootvol.lifecycle import Event, Kind
from bootvol.model import Volume
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database
from bootvol.worker.claims import Claim
from bootvol.worker.copier import Copier
from bootvol.worker.tasks.storage import Making, Storage


class _MakeFromOther(Making):
    """Makes a volume that holds the bytes of a snapshot or volume, perhaps of another backend."""

    kind = Kind.VOLUME

    def __init__(
        self,
        volume: Volume,
        storage: Storage,
        copier: Copier,
        database: Database,
        clock: IReactorTime,
    ) -> None:
        super().__init__(volume, storage, clock)
        self._copier = copier
        self._database = database
        self._clock = clock
        self._volume = volume
        self._origin = volume.backend

    @property
    def stores(self) -> Collection[str]:
        """See :attr:`Task.stores`."""
        return {self._backend, self._origin}


class MakeFromSnapshot(_MakeFromOther):
    """Makes a volume that holds the bytes of a snapshot."""

    async def work(self, claim: Claim) -> Event:
        """Clone or copy the snapshot, which is not removed meanwhile."""
        number = self._volume.snapshot_id or 0
        found = await self._database.read(snapshot_rows.get, self.tenant, number)
        self._origin = found.backend
        await self.copy_from(self._copier, found.backend, found.name, found.size_bytes)
        return Event.COMPLETE


class MakeFromVolume(_MakeFromOther):
    """Makes a volume that holds the bytes of another volume."""

    async def work(self, claim: Claim) -> Event:
        """Clone or copy the other volume, which is neither removed nor attached meanwhile."""
        number = self._volume.source_id or 0
        found = await self._database.read(volume_rows.get, self.tenant, number)
        self._origin = found.backend
        await self.copy_volume(self._copier, found, self._clock)
        return Event.COMPLETE
