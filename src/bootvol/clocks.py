"""The steady clock for durations, and the calendar clock.

The calendar clock (``time.time``) may be set back or forward at any moment.  By default Twisted's
reactor uses the calendar clock.  Timers would then fire late by the same amount.
"""

from __future__ import annotations

import time

from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater


def steady() -> float:
    """Return the seconds since the machine started.  Nobody can set this clock.

    The clock counts the time when the machine is suspended (``CLOCK_BOOTTIME``, see
    clock_gettime(2)).  Other machines go on during that time, and leases of this machine expire.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def sleep(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Return a Deferred that fires after a delay.  Its cancellation ends the delay.

    :param seconds: the delay in seconds.
    """
    return deferLater(clock, seconds)


def use_steady_clock(reactor: ReactorBase) -> None:
    """Make a reactor time its calls by :func:`steady`.  Calls that already wait keep their delays.

    From then on ``reactor.seconds()`` returns that time instead of the calendar time.

    :param reactor: a reactor of Twisted's own.
    """
    if reactor.seconds is steady:
        return
    change = steady() - reactor.seconds()
    setattr(reactor, "seconds", steady)  # noqa: B010 - a method, for mypy
    for call in reactor.getDelayedCalls():
        assert isinstance(call, DelayedCall)  # noqa: S101 - for mypy
        call.seconds = steady
        call.time += change
