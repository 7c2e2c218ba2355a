"""What a job does, and what it works with.  Each kind of work is a :class:`Task` of its own."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import attrs
from sqlalchemy import Connection as Db
from twisted.internet.interfaces import IReactorTime

from bootvol.errors import ErrorReport
from bootvol.exports.exports import Exports
from bootvol.interfaces import IHypervisor
from bootvol.lifecycle import Event, Kind, Status
from bootvol.service.backends import Backends
from bootvol.service.goldens import Goldens
from bootvol.service.held import Held
from bootvol.service.imports import Importer
from bootvol.service.places import Copier
from bootvol.service.questions import Questions
from bootvol.service.turns import Turn
from bootvol.shortage import Shortage
from bootvol.store import states
from bootvol.store.database import Database

#: Seconds after which a volume that is to be served after a restart is no longer waited for: longer
#: than two servers may take, one that ends and one that begins.
SERVING: Final = 90.0


@attrs.frozen
class Tools:
    """What tasks work with.

    :ivar daemon: the name by which servers and exports are this daemon's.
    :ivar sources: the names of the configured image sources.
    :ivar hypervisor: None where servers are run elsewhere.
    :ivar zone: the availability zone of everything here.
    :ivar exports: None where hypervisors open volumes where they lie.
    :ivar serving: bounds the wait for exports after a restart.
    """

    daemon: str
    database: Database
    backends: Backends
    copier: Copier
    importer: Importer
    goldens: Goldens
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
    """What is to be done with one volume, snapshot or server.

    :ivar kind: what it is.
    :ivar id: its id.
    :ivar tenant: whose it is.
    :ivar statuses: those in which this is what is wanted of it; the claim ends with any other.
    :ivar request_id: the id of the request that asked for this; empty where no row has that.
    :ivar turn: its place in its lane.
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
        """The image source that it takes a place of; None if it is no import."""
        return None

    @property
    def backend(self) -> str | None:
        """The backend whose volumes it works on, if it is that of one."""
        return None

    @property
    def stores(self) -> Collection[str]:
        """The backends whose volumes it reads or writes, as far as they are known."""
        return [] if self.backend is None else [self.backend]

    def mark(self) -> object:
        """Return something that changes as the work goes on; None where that cannot be told."""
        return None

    def done(self) -> int:
        """Return how many bytes a slow source has brought; 0 where none can be slow."""
        return 0

    async def work(self, claim: Held) -> Event:
        """Do it; return what has happened by that.

        When it raises or is cancelled, nothing is open and nothing goes on.
        """
        raise NotImplementedError

    async def undo(self) -> Event:
        """After a failure, put right what can be; return what has happened in the end.

        Whatever it raises is logged, and counts as :attr:`Event.FAIL`.
        """
        return Event.FAIL

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """Write down what has happened; in the transaction that ends the claim."""
        states.happen(db, self.kind, self.id, event, error)

    def stop(self) -> None:
        """It is being cancelled: whatever fails now, do not try it again."""

    def ending(self, *, failed: bool) -> None:
        """It has ended; what :meth:`columns` returns now is the last of it."""

    def columns(self) -> dict[str, Any]:
        """Return the progress as it is now; what :meth:`record` writes down."""
        return {}

    def record(self, db: Db, columns: dict[str, Any]) -> None:
        """Write progress down, which no volume or snapshot shows; in another thread."""

    async def lost(self) -> None:
        """The claim was lost: take away what only this one was making, and nobody needs."""

    async def after(self) -> None:
        """Look after what others may have been waiting for; it has been settled already."""


def whose(tenant: str, request_id: str) -> str:
    """Return a tenant, and the request that asked where that is known, for the log."""
    return f"tenant {tenant}, asked for by {request_id}" if request_id else f"tenant {tenant}"
