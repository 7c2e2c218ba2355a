"""Brings what is unsettled to an end: claims it, and has a job work on each.

The status of a volume, snapshot or server is the intent.  Imports may take hours, copies of volumes
minutes, and so may zeroing the volumes of backends that hand out old blocks; what guests have a say
in, as long as they like; all else is quick.  Each has a lane with limits of its own, so that a
removal never waits for a download.

A backend or a source may hang: a call to it may never return, and neither does the job that waits
for the call.  So each lane counts the jobs of each backend apart, and counts no job that has made
no progress for :data:`STALL` seconds: other backends and sources get their turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import attrs
from sqlalchemy import Connection as Db
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from bootvol.errors import DatabaseUnavailable
from bootvol.lifecycle import MAKING, POWERING, Kind, Status
from bootvol.model import Server, Snapshot, Volume
from bootvol.service import making, starting
from bootvol.service.attaching import Attach, Detach
from bootvol.service.exporting import restore
from bootvol.service.hosting import BuildServer, EndServer, PowerServer
from bootvol.service.jobs import Job
from bootvol.service.keeper import Keeper
from bootvol.service.tasks import Task, Tools
from bootvol.store import claims, line, queue
from bootvol.store import imports as import_rows
from bootvol.store import volumes as volume_rows
from bootvol.threads import Shared

#: Seconds between looks for work that nobody told of (another daemon that ended).
POLL: Final = 5.0
#: Seconds without progress after which an import or a copy does not count as running any more.
STALL: Final = 10.0
#: How many quick jobs run at once on a backend, how many copies of volumes, how many volumes are
#: zeroed, and how many have a disk plugged in or out.  The last is the limit of servers that are
#: started or ended, too: that is waiting mostly.
_QUICK: Final = 4
_COPIES: Final = 2
_ZEROINGS: Final = 2
_HOSTING: Final = 16
#: A backend has at most so many times the limit of a lane, counting what makes no progress.
_STALLED: Final = 4


@attrs.frozen
class Concurrency:
    """How many imports a worker runs at once.

    :ivar total: all together that make progress, and in any case those from one source onto one
        backend.
    :ivar backends: onto a backend, by its name; one that is not there has no limit of its own.
    :ivar sources: from a source, likewise.
    """

    total: int
    backends: Mapping[str, int] = attrs.Factory(dict)
    sources: Mapping[str, int] = attrs.Factory(dict)


class Worker(Service):
    """Works on whatever the database says is unsettled, until it is stopped.

    :param imports: how many imports run at once, in this worker.
    """

    _log = Logger()

    def __init__(self, imports: Concurrency, tools: Tools) -> None:
        self._tools = tools
        self._limits = imports
        self._jobs: set[Job] = set()
        self._marks: dict[Job, tuple[object, float]] = {}
        self._lanes = [
            _Lane(self._claim_import, self.wake),
            _Lane(self._claiming(queue.claim_copy, _COPIES), self.wake),
            _Lane(self._claiming(queue.claim_zeroing, _ZEROINGS), self.wake),
            _Lane(self._claiming(queue.claim_hosting, _HOSTING), self.wake),
            _Lane(self._claiming(queue.claim_quick, _QUICK), self.wake),
        ]
        self._begun = Shared(succeed(None))
        self._ready = False
        self._keeper = Keeper(tools.database, tools.clock, lambda: self._jobs)
        #: How often what is unsettled has failed for the database's sake, in a row.
        self._failures: Counter[tuple[Kind, int]] = Counter()
        self._polling = LoopingCall(self.wake)
        self._polling.clock = tools.clock

    def startService(self) -> None:
        """Begin to claim work."""
        super().startService()
        self._keeper.start()
        self._begun = Shared(Deferred.fromCoroutine(self._begin()))

    def stopService(self) -> Deferred[None]:
        """Stop all work and let go of it, so that it can go on elsewhere or later."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._polling.running:
            self._polling.stop()
        self._begun.cancel()
        for job in list(self._jobs):
            job.cancel()
        await self._begun.wait()
        await gatherResults([lane.idle() for lane in self._lanes])
        await gatherResults([job.ended.wait() for job in self._jobs])
        self._keeper.stop()
        self._tools.shortage.stop()

    async def _begin(self) -> None:
        """Put right what another run of the daemon had no time to, and begin to claim work."""
        try:
            telling = Deferred.fromCoroutine(self._tell())
            await self._restore()
            self._polling.start(POLL)
            # At once: one that hangs hinders no other.
            names = self._tools.backends.usable
            tidying = [Deferred.fromCoroutine(self._tidy(name)) for name in names]
            await gatherResults([telling, *tidying])
        except CancelledError:
            pass

    async def _tell(self) -> None:
        try:
            await starting.tell(self._tools)
        except (CancelledError, DatabaseUnavailable):
            pass
        except Exception:
            self._log.failure("it cannot be told what there is to go on with")

    async def _tidy(self, backend: str) -> None:
        try:
            await self._tools.goldens.tidy(backend)
        except (CancelledError, DatabaseUnavailable):
            pass
        except Exception:
            self._log.failure("cannot tidy up on backend {name}", name=backend)

    async def _restore(self) -> None:
        """Let exports be as they should: without that no work may begin, so it is tried again."""
        while not self._ready:
            try:
                await restore(self._tools)
                self._ready = True
            except CancelledError:
                raise
            except Exception as error:
                if not isinstance(error, DatabaseUnavailable):
                    self._log.failure("no work begins, since the exports are not in order")
                await deferLater(self._tools.clock, POLL, lambda: None)

    def wake(self) -> None:
        """See whether there is work."""
        if self.running and self._ready:
            for lane in self._lanes:
                lane.wake()

    def stop_making(self, kind: Kind, number: int) -> None:
        """Stop making something if that goes on here; its status then says what is next."""
        for job in list(self._jobs):
            task = job.task
            if (task.kind, task.id) == (kind, number) and not MAKING.isdisjoint(task.statuses):
                job.cancel()

    def left(self) -> Sequence[str]:
        """Return what the jobs that have not ended are called, for people."""
        return sorted(str(job) for job in self._jobs)

    async def _claim_import(self, running: Collection[Job]) -> Job | None:
        """Claim the next import and start it; None if there is none, or no more may run."""
        limits, tasks = self._limits, [job.task for job in running]
        if len(self._lively(running)) >= limits.total:
            return None
        holder = self._holder(_full(limits.backends, [task.backend for task in tasks]))
        pairs = Counter((task.backend or "", task.source or "") for task in tasks)
        full = [pair for pair, count in pairs.items() if count >= limits.total]
        sources = set(self._tools.sources) - _full(limits.sources, [task.source for task in tasks])
        asked = self._tools.clock.seconds()
        found = await self._tools.database.write_unseen(_claimed_import, holder, sources, full)
        if found is None:
            return None
        return self._start(holder, making.MakeFromImage(*found, self._tools), asked)

    def _claiming(
        self, query: Callable[[Db, claims.Holder], queue.Subject | None], limit: int
    ) -> Callable[[Collection[Job]], Coroutine[Any, Any, Job | None]]:
        """Return what claims one kind of work and starts on it.

        :param limit: how many jobs there may be on each backend at once.
        """

        async def claim(running: Collection[Job]) -> Job | None:
            often = Counter(job.task.backend for job in self._lively(running))
            # However many of them make no progress, there is an end.
            often |= Counter(
                {
                    name: count // _STALLED
                    for name, count in Counter(job.task.backend for job in running).items()
                }
            )
            holder = self._holder({name for name, count in often.items() if count >= limit})
            asked = self._tools.clock.seconds()
            found = await self._tools.database.write_unseen(query, holder)
            return None if found is None else self._start(holder, _task(found, self._tools), asked)

        return claim

    def _lively(self, jobs: Collection[Job]) -> Collection[Job]:
        """Return the jobs that have made progress of late, and those that cannot tell."""
        now = self._tools.clock.seconds()
        for job in jobs:
            mark = job.task.mark()
            if job not in self._marks or self._marks[job][0] != mark:
                self._marks[job] = mark, now
        return [
            job for job in jobs if self._marks[job][0] is None or now - self._marks[job][1] < STALL
        ]

    def _holder(self, full: Collection[str | None] = ()) -> claims.Holder:
        """Return a new holder.

        :param full: the backends that no more work may be done on; None stands for servers.
        """
        backends = self._tools.backends
        busy: dict[Kind, list[int]] = {kind: [] for kind in Kind}
        for job in self._jobs:
            busy[job.task.kind].append(job.task.id)
        return claims.Holder(
            name=f"{self._tools.daemon}/{uuid4().hex[:12]}",
            daemon=self._tools.daemon,
            backends=set(backends.usable).difference(full),
            zeroed=[
                name
                for name in backends.usable
                if name not in full and not backends.named(name).capabilities.reads_zero_when_new
            ],
            busy=busy,
            serves=self._tools.hypervisor is not None and None not in full,
        )

    def _start(self, holder: claims.Holder, task: Task, asked: float) -> Job:
        what = task.kind, task.id
        job = Job(holder.name, task, asked, self._failures[what])
        self._jobs.add(job)

        def ended(_result: None) -> None:
            if job.failed:
                self._failures[what] += 1
            else:
                del self._failures[what]
            self._jobs.discard(job)
            self._marks.pop(job, None)

        job.ended.wait().addBoth(ended)
        if not self.running:
            job.cancel()
        job.start()
        return job


def _claimed_import(
    db: Db, holder: claims.Holder, sources: Collection[str], full: Collection[tuple[str, str]]
) -> tuple[Volume, str] | None:
    """Claim the next import; return its volume and its source; None if there is none."""
    row = line.claim(db, holder, sources, full)
    task = import_rows.find(db, row.id) if row is not None else None
    return (volume_rows.of_row(row), task.image.source) if row is not None and task else None


def _task(subject: queue.Subject, tools: Tools) -> Task:
    """Return what is to be done with a volume, snapshot or server, by its status."""
    removed = subject.status is Status.DELETING
    if isinstance(subject, Server):
        if subject.status in POWERING:
            return PowerServer(subject, tools)
        return EndServer(subject, tools) if removed else BuildServer(subject, tools)
    if isinstance(subject, Snapshot):
        return (making.RemoveSnapshot if removed else making.MakeSnapshot)(subject, tools)
    if subject.status is Status.ATTACHING:
        return Attach(subject, tools)
    if subject.status is Status.DETACHING:
        return Detach(subject, tools)
    if removed:
        return making.RemoveVolume(subject, tools)
    if subject.snapshot_id is not None:
        return making.MakeFromSnapshot(subject, tools)
    return making.MakeBlank(subject, tools)


def _full(limits: Mapping[str, int], running: Collection[str | None]) -> set[str]:
    """Return the names that run as often as they may."""
    often = Counter(running)
    return {name for name, limit in limits.items() if often[name] >= limit}


class _Lane:
    """Claims one kind of work while there is some and its limits allow more.

    :param claim: gets the lane's jobs that run; starts one more if there is work for it.
    :param wake_all: called when a job has ended: even its own volume may be work again, for
        another lane (an import that was cancelled is to be removed).
    """

    _log = Logger()

    def __init__(
        self,
        claim: Callable[[Collection[Job]], Coroutine[Any, Any, Job | None]],
        wake_all: Callable[[], None],
    ) -> None:
        self._claim = claim
        self._running: set[Job] = set()
        self._wake_all = wake_all
        self._looking = False
        self._look_ended = Shared(succeed(None))
        self._again = False

    def wake(self) -> None:
        """Look for work now, or once more if a look is under way."""
        self._again = True
        if not self._looking:
            self._looking = True
            self._look_ended = Shared(Deferred.fromCoroutine(self._look()))

    def idle(self) -> Deferred[None]:
        """Return a Deferred that fires when no look is under way."""
        return self._look_ended.wait()

    async def _look(self) -> None:
        try:
            while self._again:
                self._again = False
                job = await self._claim(self._running)
                if job is not None:
                    self._again = True
                    self._running.add(job)
                    job.ended.wait().addBoth(self._job_ended, job)
        except DatabaseUnavailable:
            pass  # The database has told the log; there will be another look.
        except Exception:
            self._log.failure("cannot look for work")
        finally:
            self._looking = False

    def _job_ended(self, _result: None, job: Job) -> None:
        self._running.discard(job)
        self._wake_all()
