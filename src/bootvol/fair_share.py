"""Fair shares of a scarce resource: askers take turns, and no asker keeps the last place."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class Turns:
    """A number of places, with one queue for each asker.

    An asker is a tenant or an address.  The next place goes to the queue whose last turn is longest
    ago.  If there are several places, no asker holds the last one.

    Call all methods from the reactor thread only.

    :param size: number of places.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._most = max(1, size - 1)
        self._held: Counter[str | None] = Counter()
        #: The queues by asker; the queue whose last turn is longest ago comes first.
        self._lines: dict[str | None, deque[Deferred[None]]] = {}

    @asynccontextmanager
    async def turn(self, asker: str | None) -> AsyncIterator[None]:
        """Wait for a place, and hold the place until the block ends."""
        await self.acquire(asker)
        try:
            yield
        finally:
            self.release(asker)

    def acquire(self, asker: str | None) -> Deferred[None]:
        """Return a Deferred that fires when the asker has a place.  A cancel leaves the queue.

        :param asker: the asker; None stands for the daemon itself, which may hold all places.
        """

        def leave(turn: Deferred[None]) -> None:
            self._lines[asker].remove(turn)
            if not self._lines[asker]:
                del self._lines[asker]

        turn: Deferred[None] = Deferred(leave)
        self._lines.setdefault(asker, deque()).append(turn)
        self._give()
        return turn

    def release(self, asker: str | None) -> None:
        """Give a place back."""
        self._free += 1
        self._held[asker] -= 1
        if not self._held[asker]:
            del self._held[asker]
        self._give()

    def _give(self) -> None:
        while self._free and (ready := [each for each in self._lines if self._may_have(each)]):
            asker = ready[0]
            line = self._lines.pop(asker)
            turn = line.popleft()
            if line:
                self._lines[asker] = line
            self._free -= 1
            self._held[asker] += 1
            turn.callback(None)

    def _may_have(self, asker: str | None) -> bool:
        return asker is None or self._held[asker] < self._most


class Paced:
    """A pace for work that takes time of the reactor: one piece begins in each reactor turn.

    Askers take turns, so an asker with much work delays the others by one piece at most.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._turns = Turns(1)

    def turn(self, asker: str) -> Deferred[None]:
        """Return a Deferred that fires when the asker's turn begins.  A cancel leaves the queue."""
        return self._turns.acquire(asker).addCallback(self._begun, asker)

    def _begun(self, _: None, asker: str) -> None:
        self._clock.callLater(0, self._turns.release, asker)
