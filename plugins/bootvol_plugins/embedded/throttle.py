"""Slows down who guesses: at first not at all, then each time for twice as long."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import attrs

from bootvol.errors import TooManyLogins

#: So many failures of one user from one address cost nothing.
FREE: Final = 5
#: Seconds of the longest delay.
LONGEST: Final = 300.0
#: Seconds without a failure after which nothing is held against anybody.
FORGIVEN: Final = 900.0
#: How many keys are remembered; of more, the one whose last failure is the longest ago is not.
MOST: Final = 10_000


@attrs.frozen
class _Failures:
    count: int
    last: float

    def until(self, free: int) -> float:
        """Return when the next try is allowed."""
        beyond = self.count - free
        return self.last + (min(LONGEST, 2.0 ** min(beyond, 16)) if beyond >= 0 else 0.0)


class Throttle:
    """Counts failures by key.

    :param seconds: tells the time, in seconds.
    :param free: so many failures cost nothing.
    """

    def __init__(self, seconds: Callable[[], float], free: int = FREE) -> None:
        self._seconds = seconds
        self._free = free
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()

    def check(self, key: bytes) -> None:
        """Return if a try is allowed by now.

        :raises TooManyLogins: not yet.
        """
        failures = self._failures.get(key)
        wait = failures.until(self._free) - self._seconds() if failures else 0.0
        if wait > 0:
            raise TooManyLogins(wait)

    def failed(self, key: bytes) -> None:
        """Count a failure."""
        now = self._seconds()
        earlier = self._failures.pop(key, None)
        count = earlier.count if earlier and now - earlier.last < FORGIVEN else 0
        self._failures[key] = _Failures(count + 1, now)
        if len(self._failures) > MOST:
            self._failures.popitem(last=False)

    def succeeded(self, key: bytes) -> None:
        """Hold nothing against it any more."""
        self._failures.pop(key, None)
