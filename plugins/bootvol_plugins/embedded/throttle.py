"""A throttle of failed logins.  After some free failures the delay doubles each time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import attrs

from bootvol.errors import TooManyLogins

#: Number of failures of one user from one address that cause no delay.
FREE: Final = 5
#: Longest delay in seconds.
LONGEST: Final = 300.0
#: Seconds without a failure until earlier failures are forgotten.
FORGIVEN: Final = 900.0
#: Number of remembered keys.  Beyond this number, the key with the fewest failures is dropped.
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

    If the keys are too many, a new key takes the place and the count of the key with the fewest
    failures.  So nobody makes the throttle forget many failures of one user by a few failures of
    each of many others (A. Metwally, D. Agrawal, A. El Abbadi: Efficient computation of frequent
    and top-k elements in data streams, ICDT 2005).

    :param seconds: returns the time in seconds.
    :param free: number of failures that cause no delay.
    """

    def __init__(self, seconds: Callable[[], float], free: int = FREE) -> None:
        self._seconds = seconds
        self._free = free
        #: The keys in the order of their last failures.
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()

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
        earlier = self._failures.pop(key, None) or self._replaced(now)
        count = earlier.count if earlier and now - earlier.last < FORGIVEN else 0
        self._failures[key] = _Failures(count + 1, now)

    def succeeded(self, key: bytes) -> None:
        """Forget all failures of a key."""
        self._failures.pop(key, None)

    def _replaced(self, now: float) -> _Failures | None:
        """Make room for a new key; return the failures that now count for the new key."""
        if len(self._failures) < MOST:
            return None
        if now - next(iter(self._failures.values())).last >= FORGIVEN:
            return self._failures.popitem(last=False)[1]
        fewest = min(self._failures, key=lambda each: self._failures[each].count)
        return self._failures.pop(fewest)
