"""The log names a failure of work that the daemon repeats once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent
from zope.interface import implementer

from bootvol.backends import Backends
from bootvol.errors import WrongStore
from bootvol.interfaces import IIdentifiedBackend
from bootvol.store.waiting import Waiting
from bootvol.worker.heartbeat import RENEWAL, Heartbeats
from bootvol.worker.job import Job
from bootvol.worker.lanes import Lane
from bootvol.worker.shares import Limit, Rules, Shares
from bootvol.worker.stores import POLL, Stores


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    """The lines of the log."""
    with capturedLogs() as lines:
        yield lines


def texts(logged: Sequence[LogEvent]) -> list[str]:
    """Return the lines of the log; a failure with its reason."""
    return [
        formatEvent(each)
        + (
            f": {each['log_failure'].getErrorMessage()}"
            if each["log_level"] is LogLevel.critical
            else ""
        )
        for each in logged
    ]


class Database:
    """A database whose answers the test sets; None for an answer without any claim."""

    def __init__(self) -> None:
        self.fault: str | None = None

    is_sqlite = False

    async def write_without_invalidation(self, *_: object, **__: object) -> object:
        """See :class:`bootvol.store.database.Database`."""
        if self.fault is not None:
            raise RuntimeError(self.fault)
        return SimpleNamespace(lost=[], renewed=[], refused={})


def test_claims_that_are_not_renewed_are_logged_once(logged: Sequence[LogEvent]) -> None:
    """The log tells each fault once, then that claims are renewed, and a later fault anew.

    Break: `src/bootvol/worker/repeating.py`: `if self._told != what:` -> `if True:`
    """
    database, clock = Database(), Clock()
    job: Any = SimpleNamespace(holder="a", lease=None, task=None, columns=dict)
    beats = Heartbeats(database, clock, lambda: [job])  # type: ignore[arg-type]
    beats.start()
    for fault in ("first", "other", None, "other"):
        database.fault = fault
        clock.pump([RENEWAL] * 5)
    beats.stop()
    assert texts(logged) == [
        "claims are not renewed: first",
        "claims are not renewed: other",
        "claims are renewed again",
        "claims are not renewed: other",
    ]


@implementer(IIdentifiedBackend)
class Defective:
    """A backend with a defect, until the test mends the backend."""

    name = "b"
    defect: str | None = "a defect"

    async def identity(self) -> str:
        """See :class:`bootvol.interfaces.IIdentifiedBackend`."""
        if self.defect:
            raise RuntimeError(self.defect)
        raise WrongStore("Another disk.")

    def expect(self, identity: str) -> None:
        """See :class:`bootvol.interfaces.IIdentifiedBackend`."""


def test_a_store_that_fails_is_logged_once(logged: Sequence[LogEvent]) -> None:
    """Break: `src/bootvol/worker/stores.py`: `self._faults[name].failed(error)` ->
    `self._log.failure("backend {name} is suspended", name=name)`
    """
    backend, clock, database = Defective(), Clock(), Database()
    backends = Backends([backend], clock)  # type: ignore[list-item]
    more: Any = {}, {}, None, clock, lambda: None
    asked = Stores(database, backends, "d", *more, serves=False)  # type: ignore[arg-type]
    asked.startService()
    database.fault = "no table"
    clock.pump([POLL] * 3)
    backend.defect = None
    database.fault = None
    clock.pump([POLL] * 3)
    asked.stopService()
    assert texts(logged) == [
        "backend b is suspended: a defect",
        "other daemons are not told that this one runs: no table",
        "other daemons are told again that this one runs",
        "backend b is suspended: Another disk.",
    ]


def test_a_search_for_work_that_fails_is_logged_once(logged: Sequence[LogEvent]) -> None:
    """A lane that fails at each search is in the log once; the end of the fault, too."""
    fails = True

    async def claim(_shares: Shares) -> tuple[Job | None, Collection[Waiting]]:
        if fails:
            raise RuntimeError("no such status")
        return None, ()

    rules = Rules(lambda _: [Limit((None,), 1)])
    lane = Lane(rules, claim, lambda: None, lambda: True, Clock())
    for _ in range(5):
        lane.wake()
    fails = False
    lane.wake()
    lane.wake()
    assert texts(logged) == [
        "cannot look for work: no such status",
        "can look for work again",
    ]
