"""A request to detach during another transition changes nothing; an attachment takes no place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from sqlalchemy import update
from twisted.internet import reactor as loop
from zope.interface import implementer

from bootvol.backends import Backends
from bootvol.errors import AttachmentNotFound, VolumeInUse
from bootvol.interfaces import ICountingBackend, IGuardedBackend
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Attachment, Caller, ConnectionInfo, Volume
from bootvol.service.attachments import Attachments
from bootvol.store import attachments, schema, states, volumes
from bootvol.store.database import Database
from bootvol.testing.faults import Faults, FaultyBackend
from bootvol.testing.memory import MemoryBackend
from bootvol.worker.tasks.attachments import Attach, VolumeAccess

ANN = Caller("ann", "t")


def test_only_what_was_named_is_detached(database: Database) -> None:
    no: Any = None
    service = Attachments(database, False, no)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with database._engine.begin() as db:
        wanted = Volume(0, "v", "t", "u", 1, Status.IN_USE, now, "nova", "b")
        volume = volumes.add(db, wanted)
        attachments.add(db, "t", Attachment(volume.id, "one", "vdb"), None)

    def detach() -> None:
        with database._engine.begin() as db:
            service._mark(db, ANN, "one", volume.id)

    with ThreadPoolExecutor() as pool:
        with database._engine.begin() as db:
            # The worker and two callers act at once in between.
            states.apply_event(db, Kind.VOLUME, volume.id, Event.DETACH)
            db.execute(update(schema.attachments).values(server_id="two"))
            states.apply_event(db, Kind.VOLUME, volume.id, Event.ATTACHED)
            detaching = pool.submit(detach)
            wait([detaching], 0.5)
        with pytest.raises(AttachmentNotFound):
            detaching.result()
    with database._engine.begin() as db:
        assert volumes.get(db, "t", volume.id).status is Status.IN_USE


class Access:
    """Stands for the access to volumes.

    :ivar places: whether the task had its place in the lane, at each check for other users.
    """

    exports = False

    def __init__(self) -> None:
        self.places: list[bool] = []
        self.task: Any = None

    async def is_open(self, volume: Volume) -> bool:
        """See bootvol.worker.tasks.attachments.VolumeAccess."""
        return False

    async def check_unused(self, volume: Volume) -> None:
        """See bootvol.worker.tasks.attachments.VolumeAccess."""
        self.places.append(self.task.lane_place.held)

    async def open(self, claim: object, volume: Volume) -> ConnectionInfo:
        """See bootvol.worker.tasks.attachments.VolumeAccess."""
        return ConnectionInfo("file", "/volume")


class Claim:
    """Stands for a claim on a volume without a server of bootvol."""

    async def in_transaction(self, *_: object) -> tuple[Attachment, None]:
        """See bootvol.worker.claims.Claim."""
        return Attachment(1, "7", "vdb"), None


@ensureDeferred
async def test_a_wait_for_a_program_that_ends_takes_no_place() -> None:
    access: Any = Access()
    claim: Any = Claim()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    volume = Volume(1, "v", "t", "u", 1, Status.ATTACHING, now, "nova", "b")
    task = access.task = Attach(volume, access, None, "d")
    assert await task.work(claim) is Event.ATTACHED
    assert access.places == [False]
    assert task.lane_place.held


@implementer(IGuardedBackend, ICountingBackend)
class Counting(MemoryBackend):
    """A backend that knows of an opener without locks."""

    async def check_unused(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IGuardedBackend.check_unused`."""

    async def check_closed(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.ICountingBackend.check_closed`."""
        raise VolumeInUse(f"Somebody has {volume} open.")


@ensureDeferred
async def test_a_backend_that_counts_openers_decides_about_a_detached_volume(
    database: Database,
) -> None:
    """Break: `src/bootvol/worker/tasks/attachments.py`: `await self._backends.check_closed(` ->
    `await self._backends.check_unused(`
    """
    now = datetime(2026, 1, 1, tzinfo=UTC)
    volume = Volume(1, "v", "t", "u", 1, Status.DETACHING, now, "nova", "b")
    for backend in FaultyBackend(Counting("b", loop), Faults(), loop), Counting("b", loop):
        access = VolumeAccess(database, Backends([backend], loop), None)
        await access.check_unused(volume)
        with pytest.raises(VolumeInUse):
            await access.check_let_go(volume)
    # The other backends tell of locks.
    await VolumeAccess(database, Backends([MemoryBackend("b", loop)], loop), None).check_let_go(
        volume
    )
