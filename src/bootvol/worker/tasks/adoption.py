"""Tasks that take over disks of other programs, and give volumes up.

A row in the making has the place of its disk.  Until the row is settled, a failure or a deletion
gives the disk its former name back: no task deletes a disk that was not taken over to the end.
"""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import Connection as Db
from twisted.internet.interfaces import IReactorTime

from bootvol.errors import BackendFailed, DiskNotAdoptable, ErrorReport
from bootvol.interfaces import IAdoptingBackend, IBlockBackend, ISnapshotAdoptingBackend
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import GIB, Snapshot, Volume
from bootvol.store import ids, states
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database
from bootvol.worker.claims import Claim
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.tasks.storage import Making, Removing, Storage


def adopting(backend: IBlockBackend) -> IAdoptingBackend:
    """Return a backend that takes disks over.

    :raises BackendFailed: if the backend cannot.
    """
    if not IAdoptingBackend.providedBy(backend):
        raise BackendFailed(f"The backend {backend.name} takes no disks over.")
    return IAdoptingBackend(backend)


class _Adopting(Making):
    """Takes over a disk; gives the disk back after a failure."""

    def __init__(
        self,
        subject: Volume | Snapshot,
        most_gib: int,
        storage: Storage,
        database: Database,
        clock: IReactorTime,
    ) -> None:
        super().__init__(subject, storage, clock)
        self.database = database
        self._place = subject.place or ""
        self._most = most_gib * GIB
        self._found = 0

    def mark(self) -> None:
        """See :meth:`Task.mark`: backends do not report the progress of a change of names."""

    async def work(self, claim: Claim) -> Event:
        """Take the disk over.

        :raises DiskNotAdoptable: if the disk is larger than the quota was checked for.
        """
        self._found = await self.adopt(adopting(self.backend_plugin))
        self._check(self._found)
        return Event.COMPLETE

    async def adopt(self, backend: IAdoptingBackend) -> int:
        """Take the disk over; return its size in bytes.

        A disk that is too large is left as it is.
        """
        disk = await backend.stored_disk(self._place)
        if disk is not None and disk.volume is None:
            self._check(disk.size)
        return await backend.adopt(self._place, self._name, GIB)

    def _check(self, size: int) -> None:
        """Check the size of the disk in bytes.

        :raises DiskNotAdoptable: if the disk is larger than the quota was checked for.
        """
        if size > self._most:
            raise DiskNotAdoptable(
                f"The disk has {-(-size // GIB)} GiB, and not {self._most // GIB} GiB as allowed"
                " by the request."
            )

    async def undo(self) -> Event:
        """Give the disk its former name back."""
        await adopting(self.backend_plugin).give_up(self._name, self._place)
        return Event.FAIL

    async def lost(self) -> None:
        """See :meth:`Task.lost`: give the disk back, unless the next claim needs the new name.

        This daemon may have renamed the disk after the end of the row.
        """
        if not await self.database.read(ids.is_kept, self.kind, self._name):
            with suppress(BackendFailed):
                await self.undo()

    def known(self, event: Event) -> dict[str, object]:
        """Return the columns that are known from now on."""
        if event is Event.COMPLETE:
            return {"size_gib": self._found // GIB, "place": None}
        return {}


class AdoptVolume(_Adopting):
    """Takes over a disk as a volume."""

    kind = Kind.VOLUME

    def __init__(
        self, volume: Volume, storage: Storage, database: Database, clock: IReactorTime
    ) -> None:
        super().__init__(volume, volume.target_gib or 0, storage, database, clock)

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """See :meth:`Task.settle`; the size is known now."""
        super().settle(db, event, error)
        volume_rows.change(db, self.id, {"target_gib": None, **self.known(event)})


class AdoptSnapshot(_Adopting):
    """Takes over a snapshot within the disk of its volume, or else a disk, as a snapshot.

    The volume is neither removed nor attached meanwhile.
    """

    kind = Kind.SNAPSHOT

    def __init__(
        self, snapshot: Snapshot, storage: Storage, database: Database, clock: IReactorTime
    ) -> None:
        super().__init__(snapshot, snapshot.size_gib, storage, database, clock)
        self._volume_id = snapshot.volume_id

    async def adopt(self, backend: IAdoptingBackend) -> int:
        """Take the snapshot over; return its size in bytes."""
        if ISnapshotAdoptingBackend.providedBy(backend):
            volume = await self.database.read(volume_rows.get, self.tenant, self._volume_id)
            found = await ISnapshotAdoptingBackend(backend).adopt_snapshot(
                volume.name, self._place, self._name, GIB
            )
            if found is not None:
                return found
        return await super().adopt(backend)

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """See :meth:`Task.settle`; the size is known now."""
        super().settle(db, event, error)
        snapshot_rows.change(db, self.id, self.known(event))


class GiveUp(Removing):
    """Removes a row, and leaves its data on the backend under a name that is not bootvol's."""

    statuses = frozenset({Status.DELETING, Status.GIVING_UP})

    def __init__(
        self, subject: Volume | Snapshot, storage: Storage, image_cache: ImageCache
    ) -> None:
        super().__init__(subject, storage)
        self.kind = Kind.SNAPSHOT if isinstance(subject, Snapshot) else Kind.VOLUME
        self._place = subject.place or f"{self.kind}-{subject.uuid}"
        self._image_cache = image_cache
        self._finished = self._whole = False

    async def work(self, claim: Claim) -> Event:
        """Rename the data.

        :raises VolumeMissing: if the data should be on the backend, and is not.
        """
        self._finished = await claim.in_transaction(states.is_finished, self.kind, self.id)
        if self._finished:
            missing = await self.missing()
            # After a crash the data may have its new name already.
            await claim.in_transaction(states.begin_removal, self.kind, self.id)
            if missing is not None:
                raise missing
        if self.kind is Kind.VOLUME:
            await self._image_cache.let_go(self.id)
        await adopting(self.backend_plugin).give_up(self._name, self._place)
        return Event.VANISH

    async def undo(self) -> Event:
        """Look whether the data is still there under its name."""
        with suppress(BackendFailed):
            await self.backend_plugin.connection(self._name)
            self._whole = self._finished
        return Event.FAIL

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """See :meth:`Task.settle`."""
        super().settle(db, event, error)
        if event is Event.FAIL and self._whole:
            states.end_removal(db, self.kind, self.id)

    async def lost(self) -> None:
        """See :meth:`Task.lost`: the data stays under either name."""
