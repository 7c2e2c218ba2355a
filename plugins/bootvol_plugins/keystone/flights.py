"""One shared call for all who want the same result at the same time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

_T = TypeVar("_T")


@attrs.define(eq=False)
class _Flight(Generic[_T]):
    """A running call, and the Deferreds that wait for its end."""

    errand: Deferred[_T]
    waiting: list[Deferred[_T]]


class Flights(Generic[_T]):
    """Running calls, by key."""

    def __init__(self) -> None:
        self._flights: dict[bytes, _Flight[_T]] = {}

    async def join(
        self, key: bytes, begin: Callable[[], Coroutine[Deferred[object], object, _T]]
    ) -> _T:
        """Return or raise the result of the call with this key.  Begin the call if none runs.

        If a waiter is cancelled, the call goes on for the other waiters.  If the last waiter is
        cancelled, the call is cancelled, too.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(Deferred.fromCoroutine(begin()), [])
            waiter = self._wait(flight)
            flight.errand.addBoth(self._ended, key)
        else:
            waiter = self._wait(flight)
        return await waiter

    def _wait(self, flight: _Flight[_T]) -> Deferred[_T]:
        def leave(waiter: Deferred[_T]) -> None:
            flight.waiting.remove(waiter)
            if not flight.waiting:
                flight.errand.cancel()

        waiter: Deferred[_T] = Deferred(leave)
        flight.waiting.append(waiter)
        return waiter

    def _ended(self, result: _T | Failure, key: bytes) -> None:
        waiting = self._flights.pop(key).waiting
        # One by one: a waiter's callback may cancel another waiter, which then leaves the list.
        while waiting:
            waiting.pop(0).callback(result)
