"""The daemon's timers follow a clock that nobody can set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import LoopingCall

from bootvol import clocks
from bootvol.clocks import steady, use_steady_clock
from tests.daemons import reactor


class Steady:
    """A steady clock that advances only by the test's calls."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Steady:
    """The test's clock in place of the machine's."""
    clock = Steady()
    monkeypatch.setattr(clocks, "steady", clock)
    return clock


@pytest.fixture
def another_reactor() -> Iterator[Any]:
    """A reactor of the test's own, with the time of the calendar."""
    made: Any = SelectReactor()
    yield made
    for each in made.removeAll():
        each.connectionLost(None)


def test_the_steady_clock_counts_the_time_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {time.CLOCK_MONOTONIC: 10.0, time.CLOCK_BOOTTIME: 3610.0}
    monkeypatch.setattr(time, "clock_gettime", machine.__getitem__)
    assert steady() == 3610.0


@pytest.mark.parametrize("leap", [-7200, 7200])
def test_calls_are_made_in_time_whatever_becomes_of_the_calendar(
    another_reactor: Any, clock: Steady, monkeypatch: pytest.MonkeyPatch, leap: int
) -> None:
    made: list[str] = []
    another_reactor.callLater(5, made.append, "from before")
    use_steady_clock(another_reactor)
    use_steady_clock(another_reactor)
    delayed = another_reactor.callLater(3, made.append, "reset")
    ticking = LoopingCall(made.append, "tick")
    ticking.clock = another_reactor
    ticking.start(4, now=False)
    calendar = time.time
    monkeypatch.setattr(time, "time", lambda: calendar() + leap)
    another_reactor.runUntilCurrent()
    assert made == []
    delayed.reset(7)
    for _ in range(8):
        clock.now += 1
        another_reactor.runUntilCurrent()
    assert made == ["tick", "from before", "reset", "tick"]
    ticking.stop()


def test_tests_run_by_it_too() -> None:
    before = steady()
    assert before <= reactor.seconds() <= steady()
