"""The common base of the tasks that make volumes and snapshots, and remove them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from sqlalchemy import Connection as Db
from twisted.internet.interfaces import IReactorTime

from bootvol.backends import Backends
from bootvol.errors import (
    BackendFailed,
    ErrorReport,
    NoSpace,
    VolumeInUse,
    VolumeMissing,
    WrongStore,
)
from bootvol.imaging.target import VolumeTarget
from bootvol.interfaces import IBlockBackend
from bootvol.lifecycle import MAKING, Event, Kind, Status
from bootvol.model import ConnectionInfo, Snapshot, Volume
from bootvol.store import holds, states, strays
from bootvol.store.database import Database
from bootvol.worker.claims import Claim
from bootvol.worker.clone_or_copy import Origin, clone_or_copy
from bootvol.worker.copier import Copier
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.progress import Progress
from bootvol.worker.tasks.task import Task


class Storage:
    """The backends, as tasks on volumes and snapshots use them.

    :param daemon: id of this daemon.
    """

    def __init__(
        self, backends: Backends, database: Database, image_cache: ImageCache, daemon: str
    ) -> None:
        self._backends = backends
        self._database = database
        self._image_cache = image_cache
        self._daemon = daemon

    def backend(self, name: str) -> IBlockBackend:
        """Return a backend by name.

        :raises BackendFailed: if the operator has removed the backend from the configuration.
        """
        return self._backends.named(name)

    async def connection(self, volume: Volume) -> ConnectionInfo:
        """Return how hypervisors reach a volume: see :meth:`.Backends.connection`."""
        return await self._backends.connection(volume)

    async def check_unused(self, backend: str, name: str) -> None:
        """Check that nobody has a volume open: see :meth:`.Backends.check_unused`."""
        await self._backends.check_unused(backend, name)

    async def delete_lost(self, backend: str, name: str) -> None:
        """Delete the volume of a lost claim, unless somebody needs the volume."""
        if await self._database.write_without_invalidation(strays.is_mine, name, self._daemon):
            # If the deletion fails now, the name stays a stray, which is deleted later.
            with suppress(BackendFailed):
                await self.backend(backend).delete(name)
                await self._database.write_without_invalidation(strays.forget, name)

    async def delete_stray(self, backend: str, name: str) -> None:
        """Delete data that this task has left behind; if that fails, the sweeper tries later."""
        await self.backend(backend).delete(name)
        await self._database.write_without_invalidation(strays.forget, name)

    async def with_room(self, backend: str, make: Callable[[], Awaitable[None]]) -> None:
        """Call ``make``, and call it again if the removal of cached images has made room.

        :raises NoSpace: if the backend has no room all the same.
        """
        try:
            await make()
        except NoSpace as error:
            # Requested volumes have priority over the cache.
            if error.never_fits or not await self._image_cache.make_room(backend):
                raise
            await make()


class OnBackendTask(Task):
    """A task on one named volume of a backend."""

    def __init__(self, subject: Volume | Snapshot, storage: Storage) -> None:
        super().__init__(subject.id, subject.tenant)
        self.storage = storage
        self._name = subject.name
        self._size = subject.size_bytes
        self._backend = subject.backend

    @property
    def backend(self) -> str | None:
        """The backend's name."""
        return self._backend

    @property
    def backend_plugin(self) -> IBlockBackend:
        """The backend.

        :raises BackendFailed: if the operator has removed the backend from the configuration.
        """
        return self.storage.backend(self._backend)

    async def remove(self) -> None:
        """Give all space back."""
        await self.backend_plugin.delete(self._name)

    async def missing(self) -> VolumeMissing | None:
        """Return an error if the backend knows that the data does not exist.

        :raises WrongStore: if the store is not the right one.
        """
        try:
            await self.backend_plugin.connection(self._name)
        except VolumeMissing as error:
            return error
        except WrongStore:
            raise
        except BackendFailed:
            # The volume may be damaged. The removal itself tells whether the backend works.
            return None
        return None

    async def spared(self, event: Event) -> Event:
        """Return the event for data that a failed task has not changed.

        A backend that does not answer says nothing about the data, and a volume in error could not
        be used when the backend answers again.

        :returns: ``event``, unless the data is known to be missing.
        """
        with suppress(WrongStore):
            if await self.missing() is not None:
                return Event.FAIL
        return event

    async def lost(self) -> None:
        """See :meth:`Task.lost`."""
        await self.storage.delete_lost(self._backend, self._name)


class Making(OnBackendTask):
    """Makes a volume or snapshot; gives its space back after a failure."""

    statuses = MAKING

    def __init__(self, subject: Volume | Snapshot, storage: Storage, clock: IReactorTime) -> None:
        super().__init__(subject, storage)
        self.request_id = subject.request_id
        self._progress = Progress(clock.seconds(), lane_place=self.lane_place)

    def mark(self) -> object:
        """See :meth:`Task.mark`."""
        return self._progress.mark()

    async def undo(self) -> Event:
        """Give the space back."""
        await self.remove()
        return Event.FAIL

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """Record the event; reserve a new volume for the server that is to get it."""
        super().settle(db, event, error)
        if event is Event.COMPLETE and self.kind is Kind.VOLUME:
            holds.after_making(db, self.id)

    async def copy_from(self, copier: Copier, backend: str, source: str, size: int) -> None:
        """Clone or copy another volume, of ``size`` bytes, to the new one."""
        origin = Origin(self.storage.backend(backend), source, size)
        target = VolumeTarget(self.backend_plugin, self._name, self._size)

        async def make() -> None:
            # An earlier attempt may have left anything.
            await self.remove()
            await clone_or_copy(copier, origin, target, self._progress)

        await self.storage.with_room(self._backend, make)

    async def copy_volume(self, copier: Copier, volume: Volume, clock: IReactorTime) -> None:
        """Clone or copy a volume as of one moment; nothing removes or attaches it meanwhile.

        :raises BackendFailed: if the volume is in use, and no clone is possible.
        """
        backend = self.storage.backend(volume.backend)
        clones = backend is self.backend_plugin and backend.capabilities.clones
        if volume.status is Status.IN_USE and not clones:
            # The volume has been attached since the request.
            raise BackendFailed(
                "The volume is in use, and its backend cannot copy a volume in use."
            )
        if volume.status is Status.AVAILABLE:
            # For an available volume, no caller has declared that writers may exist.
            # The check may wait for a program to end, while other copies go on.
            check = self.storage.check_unused(volume.backend, volume.name)
            await self.lane_place.rest_if_long(check, clock)
        await self.copy_from(copier, volume.backend, volume.name, volume.size_bytes)


class Removing(OnBackendTask):
    """Removes a volume or snapshot."""

    statuses = frozenset({Status.DELETING})

    async def work(self, claim: Claim) -> Event:
        """Give the space back.

        :raises VolumeMissing: if the data should be on the backend, and is not: until now, nobody
            has begun to remove it.
        """
        if await claim.in_transaction(states.is_finished, self.kind, self.id):
            missing = await self.missing()
            await claim.in_transaction(states.begin_removal, self.kind, self.id)
            if missing is not None:
                raise missing
        try:
            await self.remove()
        except VolumeInUse:
            if not await claim.in_transaction(strays.may_be_open, self._name):
                raise
            # A daemon that lost its claim may have the volume open, and no guest. The name then is
            # a stray; strays are deleted later.
        return Event.VANISH
