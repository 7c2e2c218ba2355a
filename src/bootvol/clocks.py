"""The two clocks: one that only goes on, for everything that lasts, and the one of the calendar.

The calendar's clock (``time.time``) may be set back or forward at any moment.  Twisted's reactor
tells the time by it unless it is told otherwise, so that timers would fire late by as much.
"""

from __future__ import annotations

import time
from typing import Any


def steady() -> float:
    """Return the seconds since the machine started; nobody can set this clock.

    The time that the machine is suspended counts (``CLOCK_BOOTTIME``, see clock_gettime(2)): other
    machines go on meanwhile, and leases of this one run out.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def use_steady_clock(reactor: Any) -> None:
    """Have a reactor time its calls by :func:`steady`; calls that wait already keep their delays.

    ``reactor.seconds()`` tells that time from then on, which is no time of the calendar.

    :param reactor: one of Twisted's own.
    """
    if reactor.seconds is steady:
        return
    change = steady() - reactor.seconds()
    reactor.seconds = steady
    for call in reactor.getDelayedCalls():
        call.seconds = steady
        call.time += change
