"""Turns at the database: tenants take them one after the other, and none keeps the last place."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred

P = ParamSpec("P")
T = TypeVar("T")

#: The tenant whose call runs; None is the daemon's own work.  Each coroutine that Twisted runs has
#: a context of its own, a copy of the one that it was started in (PEP 567).
ASKER: Final[ContextVar[str | None]] = ContextVar("asker", default=None)


def as_daemon(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a call as the daemon's own work, whatever tenant's call it is made in."""
    return Context().run(call, *args, **kwargs)


class Turns:
    """Places at the database, and the line for them.

    Each tenant has a line of its own.  The next place goes to the line whose last turn is longest
    ago.  No tenant holds the last place, where there are several: another tenant's call begins at
    once, or as soon as one of many places is free.

    All methods belong to the reactor's thread.

    :param size: how many places there are.
    """

    def __init__(self, size: int) -> None:
        self._free = size
        self._most = max(1, size - 1)
        self._held: Counter[str | None] = Counter()
        #: By whose they are; first the line that had its last turn the longest ago.
        self._lines: dict[str | None, deque[Deferred[None]]] = {}

    def acquire(self, asker: str | None) -> Deferred[None]:
        """Return what fires when the asker has a place; cancelled, it leaves the line.

        :param asker: a tenant; None is the daemon, which may hold all places.
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
