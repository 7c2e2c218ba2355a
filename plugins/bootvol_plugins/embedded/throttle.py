"""A throttle of failed logins.  After some free failures the delay doubles each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
from cachetools import FIFOCache

from bootvol.errors import TooManyLogins

#: Number of failures of one user from one address that cause no delay.
FREE: Final = 5
#: Longest delay in seconds.
LONGEST: Final = 300.0
#: Seconds without a failure until earlier failures are forgotten.
FORGIVEN: Final = 900.0
#: Number of remembered keys.  Beyond this number, the key with the oldest failure is dropped.
MOST: Final = 10_000


@attrs.frozen
class _Failures:
    count: int
    last: float

    def until(self, free: int) -> float:
        """Return the time from which the next try is allowed."""
        beyond = self.count - free
        return self.last + (min(LONGEST, 2.0 ** min(beyond, 16)) if beyond >= 0 else 0.0)


class Throttle:
    """A counter of failures by key.

    :param seconds: returns the time in seconds.
    :param free: number of failures that cause no delay.
    """

    def __init__(self, seconds: Callable[[], float], free: int = FREE) -> None:
        self._seconds = seconds
        self._free = free
        self._failures: FIFOCache[bytes, _Failures] = FIFOCache(MOST)

    def check(self, key: bytes) -> None:
        """Return if the next try is allowed now.

        :raises TooManyLogins: if the next try must wait.
        """
        failures = self._failures.get(key)
        wait = failures.until(self._free) - self._seconds() if failures else 0.0
        if wait > 0:
            raise TooManyLogins(wait)

    def failed(self, key: bytes) -> None:
        """Count a failure."""
        now = self._seconds()
        earlier = self._failures.get(key)
        count = earlier.count if earlier and now - earlier.last < FORGIVEN else 0
        self._failures[key] = _Failures(count + 1, now)

    def succeeded(self, key: bytes) -> None:
        """Forget all failures of a key."""
        self._failures.pop(key, None)
