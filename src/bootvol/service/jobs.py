"""A task under a claim: does it, keeps the claim, and writes down what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection as Db
from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.errors import BootvolError, ErrorReport, reason
from bootvol.lifecycle import Event
from bootvol.service.held import Unwanted
from bootvol.service.tasks import Task
from bootvol.store import claims
from bootvol.store.claims import LEASE
from bootvol.threads import Shared

#: Seconds between renewals of a claim.
RENEWAL: Final = 0.5

P = ParamSpec("P")
T = TypeVar("T")


class Job:
    """The work on one task.

    :param holder: the name of the claim.
    :param asked: when the claim was asked for, by the clock of ``task``'s tools: what is asked for
        later ends later, so that the daemon never takes a lease for longer than the database does.
    :ivar ended: fires when the work has ended in whatever way, and the claim with it.
    """

    _log = Logger()

    def __init__(self, holder: str, task: Task, asked: float) -> None:
        self.task = task
        self.ended: Shared[None] = Shared()
        self._holder = holder
        self._database = task.tools.database
        self._clock = task.tools.clock
        self._cancelled = False
        self._settling = False
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
        renewing = LoopingCall(lambda: Deferred.fromCoroutine(self._renew()))
        renewing.clock = self._clock
        renewing.start(RENEWAL, now=False)
        try:
            try:
                await self._attempt()
            except (CancelledError, Unwanted):
                if not await self._database.write_unseen(
                    claims.release, self._holder, self.task.kind, self.task.id
                ):
                    await self.task.lost()
        except Exception:
            # The claim stays until it runs out; then the work is tried again.
            self._log.failure("could not settle {task}", task=self)
        finally:
            renewing.stop()
            if self._expiry is not None and self._expiry.active():
                self._expiry.cancel()
        if not self._cancelled:
            await self._after()

    async def _after(self) -> None:
        try:
            await self.task.after()
        except CancelledError:
            pass
        except Exception:
            self._log.failure("could not tidy up after {task}", task=self)

    async def _attempt(self) -> None:
        try:
            event = await self.task.work(self)
        except (Unwanted, SQLAlchemyError):
            # Of the second kind none says anything of the task: the work is tried again.
            raise
        except Exception as error:
            # A plugin may raise CancelledError for reasons of its own, or something else for ours.
            if self._cancelled:
                raise CancelledError from error
            await self._fail(error)
        else:
            await self._settle(event)

    async def _fail(self, error: Exception) -> None:
        """Put right what can be, and keep the reason."""
        if not isinstance(error, BootvolError):
            self._log.failure("{task} failed", task=self)
        # Whose claim has run out must not touch what another is making by now.
        await self.keep()
        event = Event.FAIL
        try:
            event = await self.task.undo()
        except CancelledError:
            raise
        except Exception:
            self._log.failure("{task} is not undone", task=self)
        await self._settle(event, reason(error))

    async def _renew(self) -> None:
        """Renew the lease and write the progress down; stop the work if it lost its point."""
        try:
            await self.keep()
        except Unwanted:
            # What ends the claim may have come first.
            if not self._settling:
                self.cancel()
        except Exception:
            self._log.failure("the claim of {task} is not renewed", task=self)

    async def keep(self) -> None:
        """Renew the lease and write the progress down.

        :raises Unwanted: there is no lease any more.
        """
        asked = self._clock.seconds()
        # What the task holds must not be read in the database's threads.
        await self._database.write_unseen(self._renewed, self.task.columns())
        if self._expiry is not None and self._expiry.active():
            # The lease began when it was asked for, however late the answer is.
            self._expiry.reset(self._left(asked))

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

        return await self._database.write(held)

    async def _settle(self, event: Event, error: ErrorReport | None = None) -> None:
        """Write down what happened, and end the claim."""

        def settled(db: Db, columns: dict[str, Any]) -> None:
            self._renewed(db, columns)
            claims.release(db, self._holder, self.task.kind, self.task.id)
            self.task.settle(db, event, error)

        self._settling = True
        self.task.ending(failed=error is not None)
        await self._database.write(settled, self.task.columns())

    def _renewed(self, db: Db, columns: dict[str, Any]) -> None:
        task = self.task
        if not claims.renew(db, self._holder, task.kind, task.id, task.statuses):
            raise Unwanted
        if columns:
            task.record(db, columns)

    def __str__(self) -> str:
        where = f" on backend {self.task.backend}" if self.task.backend else ""
        return f"{type(self.task).__name__} of {self.task.kind} {self.task.id}{where}"
