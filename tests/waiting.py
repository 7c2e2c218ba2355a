"""The time limits of all tests, in one place.

No test measures speed.  A limit only ends a test that hangs, so each limit is generous.  On a busy
machine, the environment variable ``PATIENCE`` multiplies all limits: ``PATIENCE=3 make test``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from inspect import iscoroutine
from typing import Any, Final, TypeVar, overload

from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater

_PATIENCE: Final = float(os.environ.get("PATIENCE", "1"))

#: Seconds for one step: an answer, a volume, the start or the end of a process.
LIMIT: Final = int(180 * _PATIENCE)
#: Seconds for many steps: the boot of a guest, a contract suite, a whole machine.
LONG_LIMIT: Final = int(900 * _PATIENCE)
#: Seconds between two questions.
_PAUSE: Final = 0.02

T = TypeVar("T")


@overload
async def until(
    ask: Callable[[], Coroutine[Any, Any, T]],
    accept: Callable[[T], object] = ...,
    seconds: float = ...,
) -> T: ...


@overload
async def until(
    ask: Callable[[], T], accept: Callable[[T], object] = ..., seconds: float = ...
) -> T: ...


async def until(
    ask: Callable[[], Any], accept: Callable[[Any], object] = bool, seconds: float = LIMIT
) -> Any:
    """Call a function until its result is accepted, and return that result.

    The reactor runs meanwhile.

    :param ask: returns a result, or a coroutine of a result.
    :param accept: whether a result ends the waiting; without it, a true result does.
    :raises AssertionError: if no result is accepted in time; the last result is in the message.
    """
    reactor: Any = _reactor
    end = time.monotonic() + seconds
    while True:
        result = ask()
        if iscoroutine(result):
            result = await result
        if accept(result):
            return result
        assert time.monotonic() < end, f"not within {seconds:g} seconds; last: {result!r}"
        await deferLater(reactor, _PAUSE, lambda: None)


def block_until(
    ask: Callable[[], T], accept: Callable[[T], object] = bool, seconds: float = LIMIT
) -> T:
    """Do as :func:`until`, without a reactor: the thread blocks meanwhile.

    :raises AssertionError: if no result is accepted in time; the last result is in the message.
    """
    end = time.monotonic() + seconds
    while not accept(result := ask()):
        assert time.monotonic() < end, f"not within {seconds:g} seconds; last: {result!r}"
        time.sleep(_PAUSE)
    return result
