"""Calls in flight: how many may wait at once for something slow, and who gets the places.

A call that waits holds a connection and memory.  So everything that calls wait for has a bounded
number of places, and whoever holds many leaves the rest to others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred

from bootvol.errors import TooManyCalls

T = TypeVar("T")


@attrs.frozen
class Bounds:
    """How many calls may be in flight at once, at least one of each kind.

    :ivar strangers: calls that wait for what tells who asks.
    :ivar tenants: calls of known callers, of all tenants together.
    :ivar dependency: of these, calls that wait for one source of images, or for the hypervisor.
    """

    strangers: int
    tenants: int
    dependency: int

    @classmethod
    def of(cls, connections: int) -> Bounds:
        """Return the bounds that leave an eighth of the connections to new clients.

        :param connections: how many the API may have at once.
        """
        return cls(
            strangers=max(1, connections // 8),
            tenants=max(1, connections * 3 // 4),
            dependency=max(1, connections // 4),
        )


class InFlight:
    """The places of calls that wait for the same.

    A key (an address, a tenant) takes another place only while it holds fewer places than are
    free.  So one key alone holds half of all at most, the last free place goes only to a key that
    holds none, and keys that keep asking come to equal parts, with one such part free (A. K.
    Choudhury, E. L. Hahne: Dynamic queue length thresholds for shared-memory packet switches,
    IEEE/ACM Transactions on Networking 6.2, 1998).

    All methods belong to the reactor's thread.

    :param most: how many places there are.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._held: Counter[Hashable] = Counter()

    @property
    def free(self) -> int:
        """How many places nobody holds."""
        return self._free

    def held_by(self, key: Hashable) -> int:
        """Return how many places a key holds."""
        return self._held[key]

    @contextmanager
    def place(self, key: Hashable) -> Iterator[None]:
        """Hold a place until the block ends.

        :raises TooManyCalls: the key has to leave the free places to others.
        """
        self._take(key)
        try:
            yield
        finally:
            self._give_back(key)

    def hold(self, key: Hashable, call: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """Make a call that holds a place until its end, even if nobody waits for that any more.

        :raises TooManyCalls: as above; the call is not made.
        """
        self._take(key)
        return Deferred.fromCoroutine(call()).addBoth(self._ended, key)

    def through(self, key: Hashable, running: Deferred[T]) -> Deferred[T]:
        """Let something under way hold a place until it has ended; return it.

        What has ended already needs no place.

        :raises TooManyCalls: as above; ``running`` is cancelled then.
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
            # Looking a key up has made no entry.
            raise TooManyCalls
        self._held[key] += 1
        self._free -= 1

    def _ended(self, result: Any, key: Hashable) -> Any:
        self._give_back(key)
        return result

    def _give_back(self, key: Hashable) -> None:
        self._held[key] -= 1
        self._free += 1
        if not self._held[key]:
            del self._held[key]
