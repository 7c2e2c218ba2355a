"""Tries an import again after failures that may pass."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol.clocks import sleep
from bootvol.errors import (
    BootvolError,
    DigestMismatch,
    ImageCorrupt,
    ImageNotFound,
    ImportFailed,
    NotADisk,
    SourceRefused,
)
from bootvol.event_log import whose
from bootvol.model import Phase
from bootvol.shortage import short_of
from bootvol.sparing import FewLines
from bootvol.worker.shortcuts import Filling

#: The first and the longest pause before a retry, in seconds. Pauses roughly double.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
#: Errors that may be temporary once a part of the image has been received: a proxy sends its own
#: page, one of several mirrors lacks the image, or a server refuses a client that asks too often.
_MAY_PASS: Final = (ImageNotFound, NotADisk, SourceRefused)


T = TypeVar("T")

_log = Logger()


async def retried(
    attempt: Callable[[], Awaitable[T]],
    filling: Filling,
    retries: int,
    clock: IReactorTime,
    lines: FewLines,
) -> T:
    """Fetch an image, with further attempts after failures that may pass.

    :param attempt: fetches the image, or continues where the attempt before broke off.
    :param filling: the import.
    :param retries: limit of successive attempts without new bytes, and limit of attempts that start
        over.
    :param lines: the limit for log lines about failed attempts.
    :returns: the result of the successful attempt.
    :raises bootvol.errors.ImportFailed: the error of the last attempt.
    """
    progress = filling.progress
    tries = Tries(retries)
    begun = doubted = False
    for number in count(1):
        start = progress.reached
        begun = begun or progress.bytes_done > 0
        try:
            return await attempt()
        except (DigestMismatch, ImageCorrupt) as error:
            if (start is None and not progress.mixed) or doubted:
                raise
            # Perhaps the earlier part, or that of another server, was wrong: try once more from the
            # first byte.
            doubted = True
            tries = Tries(retries)
            progress.start_over()
            await progress.forget(filling.heartbeat)
            if lines.admit():
                _tell(filling, number, error, 0.0)
        except (ImportFailed, ImageNotFound) as error:
            may_pass = error.retryable or (begun and isinstance(error, _MAY_PASS))
            if progress.stopping or not may_pass or short_of(error):
                raise
            if not tries.go_on((start or (0, ""))[0], (progress.reached or (0, ""))[0]):
                raise
            # The frames of the traceback hold buffers, which nothing counts during the pause.
            error.with_traceback(None)
            progress.phase, progress.failure = Phase.RETRYING, error.report()
            pause = max(pause_after(tries.fruitless), getattr(error, "retry_after", 0.0))
            if lines.admit():
                _tell(filling, number, error, pause)
            await progress.lane_place.rest(sleep(clock, pause))
    raise AssertionError


def _tell(filling: Filling, number: int, error: BootvolError, pause: float) -> None:
    """Log a failed attempt that another one follows."""
    volume = filling.volume
    _log.warn(
        "attempt {number} to fetch the image of volume {id} ({whose}) failed: {code}: {error}"
        " The next attempt begins after {pause} s",
        number=number,
        id=volume.id,
        whose=whose(volume.tenant, volume.request_id),
        code=error.code,
        error=error.message,
        pause=round(pause),
    )


class Tries:
    """Decides whether to try again.

    :param most: limit of successive tries without new bytes, and limit of tries that start over.
    :ivar fruitless: number of tries since the last one that brought new bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._furthest = self._over = self.fruitless = 0

    def go_on(self, start: int, reached: int) -> bool:
        """Record how far a try has come; return whether to try again.

        :param start: bytes received before the try.
        :param reached: bytes received by now: fewer than ``start`` if the try started over, as for
            another image.
        """
        if reached < start:
            # Later tries are compared with this one: they need not come as far as the earlier copy
            # at once.
            self._over += 1
            self._furthest = 0
        self.fruitless = 0 if reached > self._furthest else self.fruitless + 1
        self._furthest = max(self._furthest, reached)
        return max(self.fruitless, self._over) <= self._most


def pause_after(tries: int) -> float:
    """Return the seconds to wait, with jitter: imports that failed together spread out."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** max(0, tries - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
