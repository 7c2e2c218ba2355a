"""The task that replaces the data of a volume.

The new data are made under a name of their own, perhaps on another backend. Then, in one
transaction, the volume gets them in place of its former data. So a volume never has a part of each.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection as Db
from twisted.internet.interfaces import IReactorTime

from bootvol.errors import ErrorReport
from bootvol.imaging.target import VolumeTarget
from bootvol.lifecycle import REPLACING, Event, Kind
from bootvol.model import Replacement, Volume
from bootvol.store import replacements as rows
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import states
from bootvol.store.database import Database
from bootvol.worker.claims import Claim
from bootvol.worker.clone_or_copy import Origin
from bootvol.worker.copier import Copier
from bootvol.worker.moving import move
from bootvol.worker.progress import Progress
from bootvol.worker.tasks.storage import OnBackendTask, Storage


class ReplaceData(OnBackendTask):
    """Replaces the data of a volume: by those of a snapshot, or by its own on another backend."""

    kind = Kind.VOLUME
    statuses = REPLACING

    def __init__(
        self,
        volume: Volume,
        storage: Storage,
        copier: Copier,
        database: Database,
        clock: IReactorTime,
    ) -> None:
        super().__init__(volume, storage)
        self._copier = copier
        self._database = database
        self._clock = clock
        self._progress = Progress(clock.seconds(), lane_place=self.lane_place)
        self._new: Replacement | None = None
        #: The backend and the name of the data that nobody needs after the task.
        self._left: tuple[str, str] | None = None

    @property
    def stores(self) -> Collection[str]:
        """See :attr:`Task.stores`."""
        return {self._backend, *([] if self._new is None else [self._new.backend])}

    def mark(self) -> object:
        """See :meth:`Task.mark`."""
        return self._progress.mark()

    async def work(self, claim: Claim) -> Event:
        """Make the new data."""
        new = await claim.in_transaction(rows.get, self.id)
        if new is None:
            return Event.REPLACED
        if self._new is None:
            self._progress.resume = new.checkpoint
        self._new = new
        # Nobody must write to data that go.
        check = self.storage.check_unused(self._backend, self._name)
        await self.lane_place.rest_if_long(check, self._clock)
        origin = await self._origin(new)
        target = VolumeTarget(self.storage.backend(new.backend), new.name, self._size)
        await self.storage.with_room(
            new.backend,
            lambda: move(self._copier, origin, target, self._progress, claim.heartbeat),
        )
        return Event.REPLACED

    async def _origin(self, new: Replacement) -> Origin:
        if new.snapshot_id is None:
            return Origin(self.backend_plugin, self._name, self._size)
        found = await self._database.read(snapshot_rows.get, self.tenant, new.snapshot_id)
        return Origin(self.storage.backend(found.backend), found.name, found.size_bytes)

    async def undo(self) -> Event:
        """Return the event for a volume with its former data, unless they are missing."""
        return await self.spared(Event.REPLACED)

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """See :meth:`Task.settle`; the volume gets the new data now."""
        super().settle(db, event, error)
        # The type may get another name at the same time.
        new = rows.get(db, self.id, lock=True)
        if new is None:
            return
        if error is None:
            rows.complete(db, new)
            self._left = self._backend, self._name
        else:
            rows.give_up(db, new)
            self._left = new.backend, new.name
        if new.snapshot_id is not None:
            states.apply_event(db, Kind.SNAPSHOT, new.snapshot_id, Event.REPLACED)

    def columns(self) -> dict[str, object]:
        """See :meth:`Task.columns`."""
        if self._new is None:
            return {}
        checkpoint = self._progress.checkpoint
        return {
            "durable_bytes": checkpoint.offset if checkpoint else None,
            "durable_digest": checkpoint.digest if checkpoint else None,
            "durable_blank": checkpoint.blank if checkpoint else None,
            "validator": checkpoint.validator if checkpoint else None,
        }

    def record(self, db: Db, columns: dict[str, object]) -> None:
        """See :meth:`Task.record`."""
        rows.record(db, self.id, columns)

    async def lost(self) -> None:
        """See :meth:`Task.lost`: the volume stays."""
        if self._new is not None:
            await self.storage.delete_lost(self._new.backend, self._new.name)

    async def after(self) -> None:
        """Free the space of the data that nobody needs."""
        if self._left is not None:
            await self.storage.delete_stray(*self._left)
