"""Calls in flight: limits of calls that wait for something slow, shared fairly among callers.

A waiting call holds a connection and memory. So each slow resource has a bounded number of places
for waiting calls. A caller with many places has to leave the other places free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from bootvol.errors import TooManyCalls

T = TypeVar("T")


@attrs.frozen
class CallLimits:
    """Limits of calls in flight, at least one of each kind.

    :ivar strangers: calls that wait for the authentication of their caller.
    :ivar tenants: calls of known callers, of all tenants together.
    :ivar dependency: the part of these calls that wait for one image source, or for the hypervisor.
    """

    strangers: int
    tenants: int
    dependency: int

    @classmethod
    def of(cls, connections: int) -> CallLimits:
        """Return the bounds that leave an eighth of the connections to new clients.

        :param connections: limit of the API's connections.
        """
        return cls(
            strangers=max(1, connections // 8),
            tenants=max(1, connections * 3 // 4),
            dependency=max(1, connections // 4),
        )


class InFlight:
    """The places of calls that wait for the same resource.

    A key (an address, a tenant) takes another place only while the key holds fewer places than are
    free. So one key alone holds half of all places at most. The last free place goes only to a key
    without a place. Keys that keep asking get equal parts, and one such part stays free (A. K.
    Choudhury, E. L. Hahne: Dynamic queue length thresholds for shared-memory packet switches,
    IEEE/ACM Transactions on Networking 6.2, 1998).

    Call all methods from the reactor thread only.

    :param most: number of places.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._held: Counter[Hashable] = Counter()

    @property
    def free(self) -> int:
        """The number of free places."""
        return self._free

    def held_by(self, key: Hashable) -> int:
        """Return how many places a key holds."""
        return self._held[key]

    @contextmanager
    def place(self, key: Hashable) -> Iterator[None]:
        """Hold a place until the block ends.

        :raises TooManyCalls: if the key has to leave the free places to others.
        """
        self._take(key)
        try:
            yield
        finally:
            self._give_back(key)

    def hold(
        self, key: Hashable, call: Callable[[], Coroutine[Deferred[object], object, T]]
    ) -> Deferred[T]:
        """Make a call that holds a place until the call ends, even if nobody waits for the result.

        :raises TooManyCalls: if the key has to leave the free places to others; the call is not
            made.
        """
        self._take(key)
        return Deferred.fromCoroutine(call()).addBoth(self._ended, key)

    def through(self, key: Hashable, running: Deferred[T]) -> Deferred[T]:
        """Have a running call hold a place until the call ends; return its Deferred.

        A call that has ended already needs no place.

        :raises TooManyCalls: if the key has to leave the free places to others; ``running`` is
            cancelled.
        """
        if running.called:
            return running
        try:
            self._take(key)
        except TooManyCalls:
            running.addErrback(lambda _cancelled: None)
            running.cancel()
            raise

        return running.addBoth(self._ended, key)

    def _take(self, key: Hashable) -> None:
        if self._held[key] >= self._free:
            # The look-up of a missing key in a Counter adds no entry.
            raise TooManyCalls
        self._held[key] += 1
        self._free -= 1

    def _ended(self, result: T | Failure, key: Hashable) -> T | Failure:
        self._give_back(key)
        return result

    def _give_back(self, key: Hashable) -> None:
        self._held[key] -= 1
        self._free += 1
        if not self._held[key]:
            del self._held[key]
