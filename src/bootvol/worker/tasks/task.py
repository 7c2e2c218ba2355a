"""The tasks of jobs, and their tools. Each kind of work is a subclass of :class:`Task`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import attrs
from sqlalchemy import Connection as Db
from twisted.internet.interfaces import IReactorTime

from bootvol.backends import Backends
from bootvol.errors import ErrorReport
from bootvol.exports.exports import Exports
from bootvol.interfaces import IHypervisor
from bootvol.lifecycle import Event, Kind, Status
from bootvol.questions import Questions
from bootvol.shortage import Shortage
from bootvol.store import states
from bootvol.store.database import Database
from bootvol.worker.claims import Claim
from bootvol.worker.copier import Copier
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.importer import Importer
from bootvol.worker.turns import Turn

#: Seconds to wait for an export after a restart: longer than two servers may take, one that ends
#: and one that begins.
SERVING: Final = 90.0


@attrs.frozen
class Tools:
    """The objects that tasks work with.

    :ivar daemon: the name that marks servers and exports as this daemon's.
    :ivar sources: names of the configured image sources.
    :ivar hypervisor: None if servers run elsewhere.
    :ivar zone: the availability zone of all volumes and servers.
    :ivar exports: None if hypervisors open volumes directly.
    :ivar serving: bounds the wait for exports after a restart.
    """

    daemon: str
    database: Database
    backends: Backends
    copier: Copier
    importer: Importer
    image_cache: ImageCache
    sources: Collection[str]
    hypervisor: IHypervisor | None
    exports: Exports | None
    clock: IReactorTime
    zone: str = "nova"
    serving: Questions = attrs.Factory(
        lambda tools: Questions(tools.clock, SERVING), takes_self=True
    )
    shortage: Shortage = attrs.Factory(lambda tools: Shortage(tools.clock), takes_self=True)


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

    def __init__(self, number: int, tools: Tools, tenant: str) -> None:
        self.id = number
        self.tools = tools
        self.tenant = tenant
        self.turn = Turn()

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

    def columns(self) -> dict[str, Any]:
        """Return the current progress, for :meth:`record`."""
        return {}

    def record(self, db: Db, columns: dict[str, Any]) -> None:
        """Write the progress to its columns; no volume or snapshot shows them.

        Runs in a thread of the database.
        """

    async def lost(self) -> None:
        """Remove what only this task was making, and nobody needs, after the loss of the claim."""

    async def after(self) -> None:
        """Do follow-up work that others may wait for; the task has been settled already."""


def whose(tenant: str, request_id: str) -> str:
    """Return the tenant, and the request id if known, for the log."""
    return f"tenant {tenant}, asked for by {request_id}" if request_id else f"tenant {tenant}"
