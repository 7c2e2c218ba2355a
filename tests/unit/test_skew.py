"""The log reports a difference between this machine's clock and the database's, and its end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from bootvol.store.database import Database
from bootvol.worker.clock_skew import SkewWatch


@pytest.fixture
def running(database: Database) -> Iterator[Database]:
    """A database of either kind, ready for transactions."""
    database.start()
    yield database
    database.stop()


@ensureDeferred
async def test_a_difference_is_told_once(running: Database) -> None:
    if running.is_sqlite:
        clock = Clock()
        SkewWatch(running, clock, time.time).startService()
        assert not clock.getDelayedCalls(), "there is nothing to compare with"
        return
    offsets = [0.0]
    watch = SkewWatch(running, Clock(), lambda: time.time() + offsets[-1])
    told: list[str] = []
    for offset in (0.0, 0.5, -3600.0, -3600.0, 0.0, 0.0, 7200.0):
        offsets.append(offset)
        with capturedLogs() as logged:
            await watch.look()
        told += [
            f"{each['seconds']:.0f} {each['where']}" if "where" in each else "agree"
            for each in logged
        ]
    assert told == ["3600 behind", "agree", "7200 ahead of"]


@ensureDeferred
async def test_a_clock_that_is_set_while_it_is_looked_at_harms_nothing(running: Database) -> None:
    readings = iter([time.time(), time.time() - 3600])
    watch = SkewWatch(running, Clock(), lambda: next(readings))
    if not running.is_sqlite:
        with capturedLogs() as logged:
            await watch.look()
        assert not logged
