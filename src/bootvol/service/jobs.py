"""A task under a claim: does it, keeps the claim, and writes down what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection as Db
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from bootvol.errors import (
    BootvolError,
    DatabaseRefused,
    DatabaseUnavailable,
    ErrorReport,
    WrongStore,
    reason,
)
from bootvol.lifecycle import Event
from bootvol.service.held import Unwanted
from bootvol.service.tasks import Task, whose
from bootvol.shortage import short_of
from bootvol.store import claims
from bootvol.store.claims import LEASE
from bootvol.threads import Shared

#: Seconds after which a database that took nothing is asked again.
PAUSE: Final = 1.0
#: How often a task is begun again that the database always fails of, and nothing else.
MOST_FAILURES: Final = 10

P = ParamSpec("P")
T = TypeVar("T")


class Job:
    """The work on one task.

    :param holder: the name of the claim.
    :param asked: when the claim was asked for, by the clock of ``task``'s tools: what is asked for
        later ends later, so that the daemon never takes a lease for longer than the database does.
    :param failures: how often the task has ended for the database's sake, without any result.
    :ivar holder: the name of the claim.
    :ivar failed: whether it has done so once more.
    :ivar ended: fires when the work has ended in whatever way, and the claim with it.
    """

    _log = Logger()

    def __init__(self, holder: str, task: Task, asked: float, failures: int = 0) -> None:
        self.task = task
        self.ended: Shared[None] = Shared()
        self.holder = holder
        self.failed = False
        self._failures = failures
        self._database = task.tools.database
        self._clock = task.tools.clock
        self._cancelled = False
        self._settling = False
        self._refused: DatabaseRefused | None = None
        self._running: Deferred[None] | None = None
        # However long the database takes to say so: without a lease there is no right to go on.
        self._expiry = (
            None
            if self._database.embedded
            else self._clock.callLater(self._left(asked), self.cancel)
        )

    def start(self) -> None:
        """Begin."""
        self._running = Deferred.fromCoroutine(self._run())
        if self._cancelled:
            self._running.cancel()
        self._running.addBoth(self.ended.finish)

    def cancel(self) -> None:
        """Stop the work, and let go of everything as it is."""
        if not self._cancelled:
            self._cancelled = True
            self.task.stop()
            if self._running is not None:
                self._running.cancel()

    async def _run(self) -> None:
        settled = False
        try:
            await self._attempt()
            settled = True
        except (CancelledError, Unwanted):
            pass
        except DatabaseUnavailable:
            self.failed = True
        except Exception:
            self._log.failure("could not settle {task}", task=self)
            self.task.turn.leave()
            with suppress(CancelledError):
                # At once it would most likely fail again.
                await self._pause(LEASE)
        if not settled:
            await self._let_go()
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        if not self._cancelled:
            await self._after()

    async def _let_go(self) -> None:
        """End the claim, so that the work can go on; if it is lost, take away what is left."""
        self._settling = True
        released = False
        while not released:
            # It is cancelled no more than once, and has to be done all the same.
            with suppress(CancelledError):
                released = await self._released()
                if not released:
                    await self._pause(PAUSE)

    async def _released(self) -> bool:
        """End the claim; False if the database takes nothing, and should be asked again."""
        try:
            if not await self._database.write_unseen(
                claims.release, self.holder, self.task.kind, self.task.id
            ):
                await self.task.lost()
        except DatabaseUnavailable:
            return self._database.ending
        except CancelledError:
            raise
        except Exception:
            self._log.failure("could not let go of {task}", task=self)
        return True

    async def _pause(self, seconds: float) -> None:
        await deferLater(self._clock, seconds, lambda: None)

    async def _insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write, and write again while the database takes nothing: the end of the lease ends it."""
        while True:
            try:
                return await write()
            except DatabaseUnavailable:
                await self._pause(PAUSE)

    async def _after(self) -> None:
        try:
            await self.task.after()
        except (CancelledError, DatabaseUnavailable):
            pass
        except Exception:
            self._log.failure("could not tidy up after {task}", task=self)

    async def _attempt(self) -> None:
        try:
            event = await self._with_all_it_needs(lambda: self.task.work(self))
        except Unwanted:
            raise
        except Exception as error:
            # A plugin may raise CancelledError for reasons of its own, or something else for ours.
            if self._cancelled:
                raise CancelledError from error
            if isinstance(error, WrongStore) and self.task.stores:
                # Nothing was changed there: the work goes on when the right store is back.  Which
                # one is wrong is not said; the others are resumed at once.
                for name in self.task.stores:
                    self.task.tools.backends.suspend(name, error)
                raise Unwanted from error
            if isinstance(error, DatabaseUnavailable) and self._failures < MOST_FAILURES:
                # It says nothing of the task: the work is tried again.
                raise
            await self._fail(self._refused or error)
        else:
            try:
                await self._settle(event)
            except DatabaseRefused as error:
                await self._fail(error)

    async def _with_all_it_needs(self, work: Callable[[], Awaitable[Event]]) -> Event:
        """Do some work, again and again while the daemon is short of what that needs."""
        while True:
            try:
                return await work()
            except Exception as error:
                what = None if self._cancelled else short_of(error)
                if what is None:
                    raise
            await self.task.turn.rest(self.task.tools.shortage.wait(what))

    async def _fail(self, error: Exception) -> None:
        """Put right what can be, and keep the reason."""
        if isinstance(error, DatabaseRefused):
            self._refused = error
        if isinstance(error, BootvolError):
            self._log.warn(
                "{task} ({whose}) failed: {code}: {error}",
                task=self,
                whose=whose(self.task.tenant, self.task.request_id),
                code=error.code,
                error=error.message,
            )
        else:
            self._log.failure(
                "{task} ({whose}) failed",
                task=self,
                whose=whose(self.task.tenant, self.task.request_id),
            )
        # Whose claim has run out must not touch what another is making by now.
        await self.keep()
        event = Event.FAIL
        try:
            event = await self._insist(lambda: self._with_all_it_needs(self.task.undo))
        except CancelledError:
            raise
        except Exception:
            self._log.failure("{task} is not undone", task=self)
        await self._settle(event, reason(error))

    def renewed(self, asked: float, *, held: bool) -> None:
        """Take note of what the database says of the claim.

        :param asked: when it was asked, by the clock of the task's tools.
        :param held: whether the claim holds and the work is wanted; if not, the work stops.
        """
        if not held:
            # What ends the claim may have come first.
            if not self._settling:
                self.cancel()
        elif self._expiry is not None and self._expiry.active():
            # The lease began when it was asked for, however late the answer is.
            self._expiry.reset(self._left(asked))

    def refuse(self, error: DatabaseRefused) -> None:
        """Have the work fail, since the database does not take its progress."""
        if not self._settling and self._refused is None:
            self._refused = error
            if self._running is not None:
                self._running.cancel()

    def columns(self) -> dict[str, Any]:
        """Return the progress as it is now; nothing if the database does not take that."""
        return {} if self._refused else self.task.columns()

    @property
    def claim(self) -> claims.Claim:
        """What it holds, while it works."""
        return claims.Claim(self.holder, self.task.kind, self.task.id, self.task.statuses)

    async def keep(self) -> None:
        """Renew the lease and write the progress down.

        :raises Unwanted: there is no lease any more.
        """

        async def write() -> float:
            asked = self._clock.seconds()
            # What the task holds must not be read in the database's threads.
            await self._database.write_unseen(self._renewed, self.columns())
            return asked

        self.renewed(await self._insist(write), held=True)

    def _left(self, asked: float) -> float:
        """Return the seconds that are left of a lease that was asked for at some time."""
        return max(0.0, asked + LEASE - self._clock.seconds())

    async def note(
        self, query: Callable[Concatenate[Db, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``query(connection, …)`` in a transaction that commits only while the claim holds.

        :raises Unwanted: it does not.
        """

        def held(db: Db) -> T:
            self._renewed(db, {})
            return query(db, *args, **kwargs)

        return await self._insist(lambda: self._database.write(held))

    async def _settle(self, event: Event, error: ErrorReport | None = None) -> None:
        """Write down what happened, and end the claim."""

        def settled(db: Db, columns: dict[str, Any]) -> None:
            self._renewed(db, columns)
            claims.release(db, self.holder, self.task.kind, self.task.id)
            self.task.settle(db, event, error)

        self._settling = True
        self.task.ending(failed=error is not None)
        columns = self.columns()
        await self._insist(lambda: self._database.write(settled, columns))

    def _renewed(self, db: Db, columns: dict[str, Any]) -> None:
        if not claims.renew(db, self.claim):
            raise Unwanted
        if columns:
            self.task.record(db, columns)

    def __str__(self) -> str:
        where = f" on backend {self.task.backend}" if self.task.backend else ""
        return f"{type(self.task).__name__} of {self.task.kind} {self.task.id}{where}"
