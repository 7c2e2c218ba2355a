"""Turns at something scarce: those who ask take turns, and nobody keeps the last place."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class Turns:
    """Places, and the lines for them.

    Each asker (a tenant, an address) has a line of its own.  The next place goes to the line whose
    last turn is longest ago.  No asker holds the last place, where there are several.

    All methods belong to the reactor's thread.

    :param size: how many places there are.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._most = max(1, size - 1)
        self._held: Counter[str | None] = Counter()
        #: By whose they are; first the line that had its last turn the longest ago.
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
        """Return what fires when the asker has a place; cancelled, it leaves the line.

        :param asker: None is the daemon itself, which may hold all places.
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
    """Lets one thing of a kind begin in each turn of the reactor, since it takes some of its time.

    Askers take turns, so that whoever begins many things holds up others for one of them.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._turns = Turns(1)

    def turn(self, asker: str) -> Deferred[None]:
        """Return what fires when the asker's turn begins; cancelled, it leaves the line."""
        return self._turns.acquire(asker).addCallback(self._begun, asker)

    def _begun(self, _: None, asker: str) -> None:
        self._clock.callLater(0, self._turns.release, asker)
