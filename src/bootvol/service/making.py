"""Tasks that make volumes and snapshots, and remove them.

A snapshot is a hidden volume that holds the same bytes as its volume: a clone if the backend
clones, else a copy. Afterwards volume and snapshot are independent, so either may be deleted first
(specification, section 5.7).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection as Db
from twisted.logger import Logger

from bootvol.errors import BackendFailed, ErrorReport, ImportFailed, NoSpace, VolumeInUse
from bootvol.interfaces import IBlockBackend
from bootvol.lifecycle import MAKING, Event, Kind, Status
from bootvol.model import Import, Phase, Snapshot, Volume
from bootvol.service.duplicates import Origin, duplicate
from bootvol.service.held import Held
from bootvol.service.places import OnBackend
from bootvol.service.progress import Progress
from bootvol.service.tasks import Task, Tools, whose
from bootvol.store import imports as import_rows
from bootvol.store import line, states, strays
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows


class _OnBackend(Task):
    """A task on one named volume of a backend."""

    def __init__(self, subject: Volume | Snapshot, tools: Tools) -> None:
        super().__init__(subject.id, tools, subject.tenant)
        self._name = subject.name
        self._size = subject.size_bytes
        self._backend = subject.backend

    @property
    def backend(self) -> str | None:
        """The backend's name."""
        return self._backend

    @property
    def place(self) -> IBlockBackend:
        """The backend.

        :raises BackendFailed: if the operator has removed the backend from the configuration.
        """
        return self.tools.backends.named(self._backend)

    async def remove(self) -> None:
        """Give all space back."""
        await self.place.delete(self._name)

    async def lost(self) -> None:
        """See :meth:`Task.lost`."""
        database = self.tools.database
        if await database.write_unseen(strays.is_mine, self._name, self.tools.daemon):
            # If the deletion fails now, the name stays a stray, which is deleted later.
            with suppress(BackendFailed):
                await self.place.delete(self._name)
                await database.write_unseen(strays.forget, self._name)


class Making(_OnBackend):
    """Makes a volume or snapshot; gives its space back after a failure."""

    statuses = MAKING

    def __init__(self, subject: Volume | Snapshot, tools: Tools) -> None:
        super().__init__(subject, tools)
        self.request_id = subject.request_id
        self._progress = Progress(tools.clock.seconds(), turn=self.turn)

    def mark(self) -> object:
        """See :meth:`Task.mark`."""
        return self._progress.mark()

    async def undo(self) -> Event:
        """Give the space back."""
        await self.remove()
        return Event.FAIL

    async def with_room(self, make: Callable[[], Awaitable[None]]) -> None:
        """Call ``make``, and call it again if the removal of golden volumes has made room.

        :raises NoSpace: if the backend has no room all the same.
        """
        try:
            await make()
        except NoSpace:
            # Requested volumes have priority over the cache.
            if not await self.tools.goldens.make_room(self._backend):
                raise
            await make()

    async def duplicate(self, backend: str, source: str, size: int) -> None:
        """Copy another volume, of ``size`` bytes, to the new one."""
        origin = Origin(self.tools.backends.named(backend), source, size)
        place = OnBackend(self.place, self._name, self._size)

        async def make() -> None:
            # An earlier attempt may have left anything.
            await self.remove()
            await duplicate(self.tools.copier, origin, place, self._progress)

        await self.with_room(make)


class Removing(_OnBackend):
    """Removes a volume or snapshot."""

    statuses = frozenset({Status.DELETING})

    async def work(self, claim: Held) -> Event:
        """Give the space back."""
        try:
            await self.remove()
        except VolumeInUse:
            if not await claim.note(strays.may_be_open, self._name):
                raise
            # A daemon that lost its claim may have the volume open, and no guest. The name then is
            # a stray; strays are deleted later.
        return Event.VANISH


class MakeBlank(Making):
    """Makes a volume of zeros."""

    kind = Kind.VOLUME

    def mark(self) -> None:
        """See :meth:`Task.mark`: backends do not report the progress of zeroing."""

    async def work(self, claim: Held) -> Event:
        """Allocate the volume, and zero its old blocks."""
        await self.with_room(lambda: self.place.allocate(self._name, self._size))
        if not self.place.capabilities.reads_zero_when_new:
            writer = await self.place.open_writer(self._name)
            try:
                await writer.zero(0, self._size)
                await writer.flush()
            finally:
                await writer.close()
        return Event.COMPLETE


class MakeFromImage(Making):
    """Makes a bootable volume: an import."""

    _log = Logger()
    kind = Kind.VOLUME

    def __init__(self, volume: Volume, source: str, tools: Tools) -> None:
        super().__init__(volume, tools)
        self._volume = volume
        self._source = source
        self._failed_for_all = False
        #: Id, tenant and request of each volume that waited for the same image, and failed too.
        self._failed_too: Sequence[tuple[int, str, str]] = ()

    @property
    def source(self) -> str | None:
        """The image's source."""
        return self._source

    def done(self) -> int:
        """See :meth:`Task.done`."""
        return self._progress.bytes_done

    async def work(self, claim: Held) -> Event:
        """Copy the image."""
        task = await claim.note(_begin, self.id)
        self._progress.inherited = task.durable_name
        try:
            await self.tools.importer.run(self._volume, task, self._progress, claim)
        except ImportFailed as error:
            self._failed_for_all = error.of_image
            raise
        return Event.COMPLETE

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """See :meth:`Task.settle`."""
        # If each waiting import had to find out by itself, a bad image would be downloaded many
        # times.
        waiting = line.followers(db, self.id) if self._failed_for_all else ()
        super().settle(db, event, error)
        self._failed_too = volume_rows.askers(db, waiting)
        for number in waiting:
            states.happen(db, Kind.VOLUME, number, Event.FAIL, error)
            import_rows.record(db, number, phase=Phase.FAILED)

    async def remove(self) -> None:
        """Give all space back, and give up the golden volume that was begun from the volume."""
        await self.tools.goldens.let_go(self.id)
        await super().remove()

    def stop(self) -> None:
        """See :meth:`Task.stop`."""
        self._progress.stopping = True

    def columns(self) -> dict[str, Any]:
        """See :meth:`Task.columns`."""
        return self._progress.columns(self.tools.clock.seconds())

    def record(self, db: Db, columns: dict[str, Any]) -> None:
        """See :meth:`Task.record`."""
        import_rows.record(db, self.id, **columns)

    def ending(self, *, failed: bool) -> None:
        """See :meth:`Task.ending`."""
        self._progress.phase = Phase.FAILED if failed else Phase.DONE

    async def after(self) -> None:
        """Log the failures of waiting imports, and remove golden volumes of no further use."""
        for number, tenant, request_id in self._failed_too:
            self._log.warn(
                "volume {id} ({whose}) failed as volume {first} did",
                id=number,
                whose=whose(tenant, request_id),
                first=self.id,
            )
        await self.tools.goldens.tidy(self._backend)


def _begin(db: Db, volume_id: int) -> Import:
    """Note that an import begins; return its current row."""
    states.happen(db, Kind.VOLUME, volume_id, Event.DOWNLOAD)
    return import_rows.begin(db, volume_id)


class MakeFromSnapshot(Making):
    """Makes a volume that holds the bytes of a snapshot."""

    kind = Kind.VOLUME

    def __init__(self, volume: Volume, tools: Tools) -> None:
        super().__init__(volume, tools)
        self._snapshot_id = volume.snapshot_id or 0
        self._origin = volume.backend

    @property
    def stores(self) -> Collection[str]:
        """See :attr:`Task.stores`."""
        return {self._backend, self._origin}

    async def work(self, claim: Held) -> Event:
        """Clone or copy the snapshot, which is not removed meanwhile."""
        found = await self.tools.database.read(snapshot_rows.get, self.tenant, self._snapshot_id)
        self._origin = found.backend
        await self.duplicate(found.backend, found.name, found.size_bytes)
        return Event.COMPLETE


class RemoveVolume(Removing):
    """Removes a volume."""

    kind = Kind.VOLUME

    def __init__(self, volume: Volume, tools: Tools) -> None:
        super().__init__(volume, tools)
        self._bootable = volume.image_id is not None

    async def remove(self) -> None:
        """Give all space back, and give up the golden volume that was begun from the volume."""
        await self.tools.goldens.let_go(self.id)
        await super().remove()

    async def after(self) -> None:
        """Remove the golden volume that only this volume's import could have wanted."""
        if self._bootable:
            await self.tools.goldens.tidy(self._backend)


class MakeSnapshot(Making):
    """Makes a snapshot; the volume is neither removed nor attached meanwhile."""

    kind = Kind.SNAPSHOT

    def __init__(self, snapshot: Snapshot, tools: Tools) -> None:
        super().__init__(snapshot, tools)
        self._volume_id = snapshot.volume_id

    async def work(self, claim: Held) -> Event:
        """Clone or copy the volume."""
        volume = await self.tools.database.read(volume_rows.get, self.tenant, self._volume_id)
        if volume.status is Status.IN_USE and not self.place.capabilities.clones:
            # The volume has been attached since the snapshot was requested (see Snapshots.create).
            raise BackendFailed("The volume is in use, and its backend cannot copy it so.")
        if volume.status is Status.AVAILABLE:
            # For an available volume, no caller has declared that writers may exist.
            await self.tools.backends.check_unused(volume.backend, volume.name)
        await self.duplicate(volume.backend, volume.name, volume.size_bytes)
        return Event.COMPLETE


class RemoveSnapshot(Removing):
    """Removes a snapshot."""

    kind = Kind.SNAPSHOT
