"""Calls of the database: each waits for a turn and a thread, but only up to a time limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from bootvol.errors import DatabaseUnavailable
from bootvol.fair_share import Turns
from bootvol.reactors import IReactor
from bootvol.store.asker import ASKER
from bootvol.store.connections import BrokenOff, Transaction
from bootvol.threads import Shared, Threads

T = TypeVar("T")


class ThreadLane:
    """The threads for one kind of transaction.  A waiting call may leave at any time."""

    def __init__(self, reactor: IReactor, name: str, size: int) -> None:
        self.threads = Threads(reactor, name, size)
        self.turns = Turns(size)


class Call(Generic[T]):
    """A call that waits for its turn, then for a thread, but only up to a time limit.

    :ivar answer: ends with the result, or at the time limit.  After the time limit the thread may
        still be busy.
    """

    def __init__(
        self, lane: ThreadLane, run: Callable[[], T], transaction: Transaction, clock: IReactorTime
    ) -> None:
        self.answer: Shared[T] = Shared()
        self._clock = clock
        self._transaction = transaction
        self._expiry: IDelayedCall | None = None
        self._asker = ASKER.get()
        self._turn = lane.turns.acquire(self._asker)
        self._has_turn = False
        self._turn.addCallbacks(lambda _: self._begin(lane, run), self._answer)

    def limit(self, seconds: float) -> None:
        """Give up after ``seconds`` seconds, or at an earlier limit."""
        if self._expiry is None or self._expiry.getTime() > self._clock.seconds() + seconds:
            self.end()
            self._expiry = self._clock.callLater(seconds, self.give_up)

    def end(self) -> None:
        """Remove the time limit."""
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()

    def give_up(self) -> None:
        """Break off the transaction, and answer that the database is silent."""
        self._transaction.break_off()
        error = DatabaseUnavailable()
        error.__cause__ = BrokenOff()
        self._answer(Failure(error))
        self._cancel()

    def _begin(self, lane: ThreadLane, run: Callable[[], T]) -> None:
        self._has_turn = True
        running = Deferred.fromCoroutine(lane.threads.run(run))
        running.addBoth(self._answer)
        running.addBoth(lambda _: lane.turns.release(self._asker))

    def _answer(self, result: T | Failure) -> None:
        if not self.answer.ended:
            self.answer.finish(result)

    def _cancel(self) -> None:
        """Stop waiting for a turn.  A call that has begun goes on."""
        if not self._has_turn:
            self._turn.cancel()
