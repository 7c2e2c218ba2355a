"""The common base of the tasks that make volumes and snapshots, and remove them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from bootvol.errors import BackendFailed, NoSpace, VolumeInUse
from bootvol.imaging.target import VolumeTarget
from bootvol.interfaces import IBlockBackend
from bootvol.lifecycle import MAKING, Event, Status
from bootvol.model import Snapshot, Volume
from bootvol.store import strays
from bootvol.worker.claims import Claim
from bootvol.worker.clone_or_copy import Origin, clone_or_copy
from bootvol.worker.progress import Progress
from bootvol.worker.tasks.task import Task, Tools


class OnBackendTask(Task):
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
        if await database.write_without_invalidation(strays.is_mine, self._name, self.tools.daemon):
            # If the deletion fails now, the name stays a stray, which is deleted later.
            with suppress(BackendFailed):
                await self.place.delete(self._name)
                await database.write_without_invalidation(strays.forget, self._name)


class Making(OnBackendTask):
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
        """Call ``make``, and call it again if the removal of cached images has made room.

        :raises NoSpace: if the backend has no room all the same.
        """
        try:
            await make()
        except NoSpace:
            # Requested volumes have priority over the cache.
            if not await self.tools.image_cache.make_room(self._backend):
                raise
            await make()

    async def clone_or_copy(self, backend: str, source: str, size: int) -> None:
        """Copy another volume, of ``size`` bytes, to the new one."""
        origin = Origin(self.tools.backends.named(backend), source, size)
        place = VolumeTarget(self.place, self._name, self._size)

        async def make() -> None:
            # An earlier attempt may have left anything.
            await self.remove()
            await clone_or_copy(self.tools.copier, origin, place, self._progress)

        await self.with_room(make)


class Removing(OnBackendTask):
    """Removes a volume or snapshot."""

    statuses = frozenset({Status.DELETING})

    async def work(self, claim: Claim) -> Event:
        """Give the space back."""
        try:
            await self.remove()
        except VolumeInUse:
            if not await claim.in_transaction(strays.may_be_open, self._name):
                raise
            # A daemon that lost its claim may have the volume open, and no guest. The name then is
            # a stray; strays are deleted later.
        return Event.VANISH
