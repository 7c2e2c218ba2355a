"""A lane: one kind of work, with a limited number of running jobs, shared fairly among tenants."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from itertools import count
from typing import Final, Protocol

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol.errors import DatabaseUnavailable
from bootvol.lifecycle import Kind
from bootvol.store.asker import as_daemon
from bootvol.store.waiting import Waiting
from bootvol.threads import Shared
from bootvol.worker.lane_place import LanePlace
from bootvol.worker.repeating import Repeating
from bootvol.worker.shares import Rules, Shares, Standing

#: Seconds without progress after which a job no longer counts as running.
STALL: Final = 10.0
#: Seconds that a job keeps its place while another tenant's job waits without a place. The speed of
#: a job is measured over the same time.
TURN: Final = 300.0
#: Seconds in which a job should give way after it was asked to.
_ANSWER: Final = 5.0
#: Number of tenants whose last turn is remembered.
_REMEMBERED: Final = 1000


class Work(Protocol):
    """The work of a job in a lane: see :class:`bootvol.worker.tasks.task.Task`."""

    @property
    def kind(self) -> Kind | None:
        """Kind of the object that the work is for; None for images."""

    @property
    def tenant(self) -> str:
        """The owner of the object."""

    @property
    def backend(self) -> str | None:
        """The backend whose volumes the work is on; None if there is no single backend."""

    @property
    def source(self) -> str | None:
        """The image source that the work takes a place of, or None."""

    @property
    def lane_place(self) -> LanePlace:
        """The job's place in the lane."""

    def mark(self) -> object:
        """Return a value that changes as the work goes on; None if the progress is unknown."""

    def done(self) -> int:
        """Return the bytes received from a slow source; 0 if no source can be slow."""


class LaneJob(Protocol):
    """A job of a lane."""

    @property
    def task(self) -> Work:
        """The work."""

    @property
    def ended(self) -> Shared[None]:
        """The end of the job."""

    def cancel(self) -> None:
        """Stop the work, and release everything as it is."""


#: Claims work that a lane's shares admit, and starts a job; returns the job, if any, and all
#: waiting work.
StartJob = Callable[[Shares], Awaitable[tuple[LaneJob | None, Collection[Waiting]]]]


@attrs.define(eq=False)
class _Entry:
    """A job of a lane.

    :ivar mark: a value that changes as the work goes on, and the time of its last change.
    :ivar done: the received bytes at the last check of the speed, and the time of that check.
    """

    number: int
    job: LaneJob
    what: Waiting
    since: float
    mark: tuple[object, float]
    done: tuple[int, float]
    slow: bool = False
    asked_at: float = 0.0
    state: tuple[bool, bool] = (True, False)

    def standing(self, now: float, least: float) -> Standing:
        """Update and return the state of the job.

        :param least: minimum rate of the job in bytes per second.
        """
        lane_place, mark, done = (
            self.job.task.lane_place,
            self.job.task.mark(),
            self.job.task.done(),
        )
        state = lane_place.held, lane_place.wanted
        if state != self.state:
            self.state, self.since, self.done = state, now, (done, now)
            self.slow = lane_place.wanted and self.slow
            # A job that has just been given a place has had no time to make progress.
            self.mark = mark, now
        if mark != self.mark[0]:
            self.mark = mark, now
        if lane_place.held and now - self.done[1] >= TURN:
            before, then = self.done
            self.slow = done - before < least * (now - then)
            self.done = done, now
        return Standing(
            self.number,
            self.what,
            lane_place.held,
            lane_place.wanted,
            mark is None or now - self.mark[1] < STALL,
            self.slow,
            lane_place.asked and now - self.asked_at < _ANSWER,
            self.since,
        )


class Lane:
    """Claims one kind of work while its limits allow more jobs.

    :param rules: the lane's limits.
    :param claim: begins one more job if there is work for one.
    :param wake_all: called when a job has ended. Even the job's own volume may then need work in
        another lane: for example, a cancelled import has to be removed.
    :param runs: tells whether work may begin.
    :param clock: the reactor.
    :param least: rate in bytes per second below which a job is slow.
    """

    _log = Logger()

    def __init__(
        self,
        rules: Rules,
        claim: StartJob,
        wake_all: Callable[[], None],
        runs: Callable[[], bool],
        clock: IReactorTime,
        least: float = 0.0,
    ) -> None:
        self._rules = rules
        self._claim = claim
        self._wake_all = wake_all
        self._runs = runs
        self._clock = clock
        self._least = least
        self._entries: dict[int, _Entry] = {}
        self._numbers = count(1)
        self._last: dict[str, int] = {}
        self._searching = Repeating(self._log, "cannot look for work", "can look for work again")
        self._looking = False
        self._look_ended = Shared(succeed(None))
        self._again = False

    def wake(self) -> None:
        """Look for work now, or once more if a search is running."""
        self._again = True
        if not self._looking and self._runs():
            self._looking = True
            # A tenant's call may have woken the lane.
            self._look_ended = Shared(as_daemon(Deferred.fromCoroutine, self._look()))

    def idle(self) -> Deferred[None]:
        """Return a Deferred that fires when no search is running."""
        return self._look_ended.wait()

    def shares(self) -> Shares:
        """Return the tenants' current shares of the lane."""
        now = self._clock.seconds()
        jobs = [each.standing(now, self._least) for each in self._entries.values()]
        return Shares(self._rules, jobs, dict(self._last))

    async def _look(self) -> None:
        try:
            # While no work may begin, each new claim is released at once: the search would never
            # end.
            while self._again and self._runs():
                self._again = False
                await self._go_on()
        except DatabaseUnavailable:
            pass  # The database layer has logged the failure; another search follows.
        except Exception as error:
            self._searching.failed(error)
        else:
            self._searching.succeeded()
        finally:
            self._looking = False

    async def _go_on(self) -> None:
        """Begin a job, give a job its place again, or ask a job to give way."""
        shares = self.shares()
        first = shares.returning()
        job, waiting = await self._claim(shares)
        if job is not None:
            self._add(job)
            self._again = True
        elif first is not None:
            self._let_return(first)
            self._again = True
        else:
            self._make_room(waiting)

    def _let_return(self, first: Standing) -> None:
        entry = self._entries.get(first.number)
        # The job may have ended in the meantime.
        if entry is not None and entry.job.task.lane_place.wanted:
            self._note_turn(first.what.tenant)
            entry.job.task.lane_place.give()

    def _make_room(self, waiting: Collection[Waiting]) -> None:
        """Have another job make way for waiting work, if that is fair."""
        now = self._clock.seconds()
        if (found := self.shares().in_the_way(waiting, now, TURN)) is not None:
            entry = self._entries[found.number]
            entry.asked_at = now
            entry.job.task.lane_place.asked = True
        if (surplus := self.shares().surplus(waiting)) is not None:
            self._entries[surplus.number].job.cancel()

    def _add(self, job: LaneJob) -> None:
        now, number, task = self._clock.seconds(), next(self._numbers), job.task
        what = Waiting(task.kind, task.tenant, task.backend, task.source)
        self._entries[number] = _Entry(
            number, job, what, now, (task.mark(), now), (task.done(), now)
        )
        self._note_turn(task.tenant)
        task.lane_place.enter(self.wake)
        job.ended.wait().addBoth(self._job_ended, number)

    def _note_turn(self, tenant: str) -> None:
        self._last.pop(tenant, None)
        self._last[tenant] = next(self._numbers)
        if len(self._last) > _REMEMBERED:
            del self._last[next(iter(self._last))]

    def _job_ended(self, _result: None, number: int) -> None:
        del self._entries[number]
        self._wake_all()
