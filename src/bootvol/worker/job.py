"""A job: runs a task under a claim, keeps the claim, and records the result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection as Db
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bootvol.backends import Backends
from bootvol.clocks import sleep
from bootvol.errors import (
    BackendFailed,
    BackendInterrupted,
    BootvolError,
    DatabaseRefused,
    DatabaseUnavailable,
    ErrorReport,
    NoSpace,
    WrongStore,
    reason,
)
from bootvol.event_log import whose
from bootvol.lifecycle import Event
from bootvol.shortage import Shortage, short_of
from bootvol.store import claims
from bootvol.store.claims import LEASE
from bootvol.store.database import Database
from bootvol.threads import Shared
from bootvol.worker.claims import ClaimLost
from bootvol.worker.tasks.task import Task

#: Seconds before an unavailable database is asked again.
PAUSE: Final = 1.0
#: Errors that say nothing about the task, and the limit of restarts because of these errors only.
_OF_OTHERS: Final = (DatabaseUnavailable, BackendInterrupted)
MOST_FAILURES: Final = 10

P = ParamSpec("P")
T = TypeVar("T")


class Job:
    """The work on one task.

    :param holder: name of the claim.
    :param asked: time of the request for the claim, by ``clock``. The daemon
        counts the lease from this time; the database counts from a later time. So the daemon never
        takes a lease for longer than the database does.
    :param failures: how often the task has ended without any result, because of the database or
        because the backend interrupted the work.
    :param backends: the backends, of which the job suspends those with a wrong store.
    :param shortage: waits for a resource that the daemon is short of.
    :ivar holder: name of the claim.
    :ivar failed: whether the task has ended in this way once more.
    :ivar ended: fires when the work and its claim have ended in any way.
    """

    _log = Logger()

    def __init__(
        self,
        holder: str,
        task: Task,
        asked: float,
        failures: int,
        database: Database,
        backends: Backends,
        shortage: Shortage,
        clock: IReactorTime,
    ) -> None:
        self.task = task
        self.ended: Shared[None] = Shared()
        self.holder = holder
        self.failed = False
        self._failures = failures
        self._database = database
        self._backends = backends
        self._shortage = shortage
        self._clock = clock
        self._cancelled = False
        self._settling = False
        self._lost = False
        self._refused: DatabaseRefused | None = None
        self._running: Deferred[None] | None = None
        # Stop when the lease expires, even if the database has not answered yet.
        self._expiry = (
            None
            if self._database.is_sqlite
            else self._clock.callLater(self._left(asked), self.cancel)
        )

    def start(self) -> None:
        """Begin the work."""
        self._running = Deferred.fromCoroutine(self._run())
        if self._cancelled:
            self._running.cancel()
        self._running.addBoth(self.ended.finish)

    def cancel(self) -> None:
        """Stop the work, and release everything as it is."""
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
        except (CancelledError, ClaimLost):
            pass
        except _OF_OTHERS:
            self.failed = True
            await self._rest(min(LEASE, PAUSE * 2**self._failures))
        except Exception:
            self._log.failure("could not settle {task}", task=self)
            await self._rest(LEASE)
        if not settled:
            await self._let_go()
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        if not self._cancelled:
            await self._after()

    async def _let_go(self) -> None:
        """End the claim, so that the work can go on; if the claim is lost, remove what is left."""
        self._settling = True
        released = False
        while not released:
            # The job is cancelled only once, and the claim has to be released all the same.
            with suppress(CancelledError):
                released = await self._released()
                if not released:
                    await self._pause(PAUSE)

    async def _released(self) -> bool:
        """Try to end the claim; return False if the database should be asked again."""
        try:
            if not await self._database.write_without_invalidation(
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

    async def _rest(self, seconds: float) -> None:
        """Wait before the work begins again: an immediate retry would most likely fail again."""
        if not self._cancelled:
            self.task.lane_place.leave()
            with suppress(CancelledError):
                await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        await sleep(self._clock, seconds)

    async def _insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Call ``write`` until the database takes the write, or until the lease ends."""
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
        except BackendFailed as error:
            self._log.warn("could not tidy up after {task}: {error}", task=self, error=error)
        except Exception:
            self._log.failure("could not tidy up after {task}", task=self)

    async def _attempt(self) -> None:
        try:
            event = await self._with_all_it_needs(lambda: self.task.work(self))
        except ClaimLost:
            raise
        except Exception as error:
            # A plugin may raise CancelledError for its own reasons, or another error because of the
            # job's cancellation.
            if self._cancelled:
                raise CancelledError from error
            if isinstance(error, WrongStore) and self.task.stores:
                # Nothing was changed in that store: the work goes on when the right store is back.
                # The error does not tell which store is wrong. The backends with a right store are
                # resumed at once.
                self._suspend(error)
                raise ClaimLost from error
            if isinstance(error, _OF_OTHERS) and self._failures < MOST_FAILURES:
                if isinstance(error, BackendInterrupted):
                    self._log.warn("{task} begins again: {error}", task=self, error=error)
                raise
            await self._fail(self._refused or error)
        else:
            try:
                await self._settle(event)
            except DatabaseRefused as error:
                await self._fail(error)

    async def _with_all_it_needs(self, work: Callable[[], Awaitable[Event]]) -> Event:
        """Run ``work``, and retry while the daemon is short of a resource that the work needs."""
        while True:
            try:
                return await work()
            except Exception as error:
                what = None if self._cancelled else short_of(error)
                if what is None:
                    raise
            await self.task.lane_place.rest(self._shortage.wait(what))

    async def _fail(self, error: Exception) -> None:
        """Undo the task as far as possible, and record the reason."""
        if isinstance(error, DatabaseRefused):
            self._refused = error
        # A job whose claim has run out must not touch a volume that another job is making by now.
        # Its failure says nothing: the other job may have succeeded.  But a database on the same
        # full disk takes nothing before the undoing.  Then the daemon's own clock decides.
        if not (isinstance(error, NoSpace) and self._is_leased()):
            try:
                await self.heartbeat()
            except ClaimLost:
                raise
            except Exception:
                if not self._lost:
                    self._tell(error)
                raise
        self._tell(error)
        event = Event.FAIL
        try:
            event = await self._insist(lambda: self._with_all_it_needs(self.task.undo))
        except CancelledError:
            raise
        except BackendFailed as failed:
            self._log.warn("{task} is not undone: {error}", task=self, error=failed)
        except Exception:
            self._log.failure("{task} is not undone", task=self)
        await self._settle(event, reason(error))

    def _suspend(self, error: WrongStore) -> None:
        stores = self.task.stores
        if len(stores) > 1:
            # One of the backends may be sound: name an error only after its own answer.
            self._log.warn("{task} waits for the right stores: {error}", task=self, error=error)
        for name in stores:
            self._backends.suspend(name, error if len(stores) == 1 else None)

    def _tell(self, error: Exception) -> None:
        """Log why the task has failed."""
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
                Failure(error),
                task=self,
                whose=whose(self.task.tenant, self.task.request_id),
            )

    def renewed(self, asked: float, *, held: bool) -> None:
        """Note the database's answer about the claim.

        :param asked: time of the request, by the job's clock.
        :param held: whether the claim holds and the work is wanted; if not, the work stops.
        """
        if not held:
            # The job itself may have ended the claim first.
            if not self._settling:
                self._lost = True
                self.cancel()
        elif self._expiry is not None and self._expiry.active():
            # The lease counts from the request, however late the answer is.
            self._expiry.reset(self._left(asked))

    def refuse(self, error: DatabaseRefused) -> None:
        """Have the work fail, since the database refuses its progress."""
        if not self._settling and self._refused is None:
            self._refused = error
            if self._running is not None:
                self._running.cancel()

    def columns(self) -> dict[str, object]:
        """Return the current progress; nothing if the database refuses the progress."""
        return {} if self._refused else self.task.columns()

    @property
    def lease(self) -> claims.Lease:
        """The claim of the job while it works."""
        return claims.Lease(self.holder, self.task.kind, self.task.id, self.task.statuses)

    async def heartbeat(self) -> None:
        """Renew the lease, and record the progress.

        :raises ClaimLost: if the lease no longer exists.
        """

        async def write() -> float:
            asked = self._clock.seconds()
            # Threads of the database must not read the state of the task.
            await self._database.write_without_invalidation(self._renewed, self.columns())
            return asked

        self.renewed(await self._insist(write), held=True)

    def _is_leased(self) -> bool:
        """Return whether the lease lasts by the daemon's own clock.  On SQLite no lease ends."""
        if self._expiry is None:
            return True
        return self._expiry.active() and self._expiry.getTime() > self._clock.seconds()

    def _left(self, asked: float) -> float:
        """Return the remaining seconds of a lease that was asked for at the time ``asked``."""
        return max(0.0, asked + LEASE - self._clock.seconds())

    async def in_transaction(
        self, query: Callable[Concatenate[Db, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``query(connection, …)`` in a transaction that commits only while the claim holds.

        :raises ClaimLost: if the claim does not hold.
        """

        def held(db: Db) -> T:
            self._renewed(db, {})
            return query(db, *args, **kwargs)

        return await self._insist(lambda: self._database.write(held))

    async def _settle(self, event: Event, error: ErrorReport | None = None) -> None:
        """Record the event, and end the claim."""

        def settled(db: Db, columns: dict[str, object]) -> None:
            self._renewed(db, columns)
            claims.release(db, self.holder, self.task.kind, self.task.id)
            self.task.settle(db, event, error)

        self._settling = True
        self.task.ending(failed=error is not None)
        columns = self.columns()
        await self._insist(lambda: self._database.write(settled, columns))

    def _renewed(self, db: Db, columns: dict[str, object]) -> None:
        if not claims.renew(db, self.lease):
            raise ClaimLost
        if columns:
            self.task.record(db, columns)

    def __str__(self) -> str:
        where = f" on backend {self.task.backend}" if self.task.backend else ""
        return f"{type(self.task).__name__} of {self.task.kind} {self.task.id}{where}"
