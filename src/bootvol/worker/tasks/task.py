"""The tasks of jobs. Each kind of work is a subclass of :class:`Task`."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection as Db

from bootvol.errors import ErrorReport
from bootvol.lifecycle import Event, Kind, Status
from bootvol.store import states
from bootvol.worker.claims import Claim
from bootvol.worker.lane_place import LanePlace


class Task:
    """The work on one volume, snapshot or server.

    :ivar kind: kind of the resource.
    :ivar id: the resource's id.
    :ivar tenant: the owner of the resource.
    :ivar statuses: statuses in which the resource needs this work; the claim ends with any other.
    :ivar request_id: id of the request that asked for the work; empty if the row has no request id.
    :ivar turn: the job's place in its lane.
    """

    kind: Kind
    statuses: Collection[Status]
    request_id = ""

    def __init__(self, number: int, tenant: str) -> None:
        self.id = number
        self.tenant = tenant
        self.lane_place = LanePlace()

    @property
    def source(self) -> str | None:
        """The image source that the task takes a place of; None if the task is no import."""
        return None

    @property
    def backend(self) -> str | None:
        """The backend whose volumes the task works on; None if the task has no single backend."""
        return None

    @property
    def stores(self) -> Collection[str]:
        """The backends whose volumes the task reads or writes, as far as they are known."""
        return [] if self.backend is None else [self.backend]

    def mark(self) -> object:
        """Return a value that changes as the work goes on; None if the progress is unknown."""
        return None

    def done(self) -> int:
        """Return the bytes received from a slow source; 0 if no source can be slow."""
        return 0

    async def work(self, claim: Claim) -> Event:
        """Do the work; return the resulting event.

        When the method raises or is cancelled, nothing is left open or running.
        """
        raise NotImplementedError

    async def undo(self) -> Event:
        """After a failure, restore as much as possible; return the final event.

        Errors that the method raises are logged, and count as :attr:`Event.FAIL`.
        """
        return Event.FAIL

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """Record the event, in the transaction that ends the claim."""
        states.apply_event(db, self.kind, self.id, event, error)

    def stop(self) -> None:
        """Note that the task is being cancelled: do not retry failures from now on."""

    def ending(self, *, failed: bool) -> None:
        """Note that the work has ended: the next result of :meth:`columns` is the last one."""

    def columns(self) -> dict[str, object]:
        """Return the current progress, for :meth:`record`."""
        return {}

    def record(self, db: Db, columns: dict[str, object]) -> None:
        """Write the progress to its columns; no volume or snapshot shows them.

        Runs in a thread of the database.
        """

    async def lost(self) -> None:
        """Remove what only this task was making, and nobody needs, after the loss of the claim."""

    async def after(self) -> None:
        """Do follow-up work that others may wait for; the task has been settled already."""
