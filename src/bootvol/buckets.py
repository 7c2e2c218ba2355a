"""A leaky bucket, which limits a rate."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime


class Bucket:
    """A bucket whose content leaks by one second each second.

    A caller adds what its call costs, in seconds.  The bucket may become fuller than its capacity:
    then the caller waits, or is refused before.

    :param capacity: content in seconds up to which nobody has to wait.
    :param clock: the reactor.  If the clock is set back, the bucket leaks nothing meanwhile.
    """

    def __init__(self, capacity: float, clock: IReactorTime) -> None:
        self._capacity = capacity
        self._clock = clock
        self._level = 0.0
        self._seen = clock.seconds()

    def add(self, cost: float) -> float:
        """Add a cost in seconds; return the seconds to wait, 0 or less for none."""
        self._level = self._leaked() + cost
        return self._level - self._capacity

    def wait(self, cost: float = 0.0) -> float:
        """Return the seconds until a cost fits, 0 or less if the cost fits now."""
        self._level = self._leaked()
        return self._level + cost - self._capacity

    def _leaked(self) -> float:
        now = self._clock.seconds()
        passed, self._seen = max(0.0, now - self._seen), now
        return max(0.0, self._level - passed)
