"""Claims unsettled work, and starts a job for each claim.

The status of a volume, snapshot or server is the intent. Imports may take hours. Copies of volumes
may take minutes, and so may zeroing volumes of backends that hand out old blocks. Work that guests
influence takes as long as the guests like. All other work is quick. Each kind of work has a lane
with limits of its own, so a removal never waits for a download.

A backend or a source may hang: a call to the plugin, and the job that waits for the call, may never
return. So each lane counts the jobs of each backend apart. A lane does not count a job that has
made no progress for some seconds. So work of other backends and sources can begin.

Tenants share the places of a lane by the rules of :mod:`bootvol.worker.shares`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final
from uuid import uuid4

import attrs
from sqlalchemy import Connection as Db
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.backends import Backends
from bootvol.clocks import sleep
from bootvol.errors import BackendFailed, DatabaseUnavailable
from bootvol.lifecycle import MAKING, Kind
from bootvol.model import Volume
from bootvol.shortage import Shortage
from bootvol.store import claims, import_queue, work_queue
from bootvol.store import imports as import_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database
from bootvol.store.waiting import Order, Waiting
from bootvol.threads import Shared
from bootvol.worker import backlog
from bootvol.worker.export_recovery import ExportRecovery
from bootvol.worker.heartbeat import Heartbeats
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.job import Job
from bootvol.worker.lanes import Lane, StartJob
from bootvol.worker.repeating import Repeating
from bootvol.worker.shares import Limit, Rules, Shares
from bootvol.worker.tasks.factories import TaskFactories
from bootvol.worker.tasks.task import Task

#: Seconds between searches for unannounced work (such as that of another daemon that ended).
POLL: Final = 5.0
#: Limits of running jobs on each backend: quick jobs, copies of volumes, zeroed volumes, and
#: volumes that have a disk plugged in or out. The last limit also holds for servers that are
#: started or ended, which is mostly waiting.
_QUICK: Final = 4
_COPIES: Final = 2
_ZEROINGS: Final = 2
_HOSTING: Final = 16


@attrs.frozen
class Concurrency:
    """Limits of the imports that a worker runs at once.

    :ivar total: limit of all imports that make progress; also the limit of a tenant's hanging
        imports from one source onto one backend.
    :ivar backends: limits of imports onto a backend, by its name; a backend without an entry has no
        limit of its own.
    :ivar sources: limits of imports from a source, likewise.
    :ivar least: minimum rate in bytes per second; an import that is slower for minutes does not
        count in ``total``.
    """

    total: int
    backends: Mapping[str, int] = attrs.Factory(dict)
    sources: Mapping[str, int] = attrs.Factory(dict)
    least: float = 0.0

    def limits(self, what: Waiting) -> Sequence[Limit]:
        """Return the limits that apply to an import."""
        found = [Limit(("all",), self.total)]
        for kind, name, limits in (
            ("backend", what.backend, self.backends),
            ("source", what.source, self.sources),
        ):
            if name is not None and name in limits:
                found.append(Limit((kind, name), limits[name], strict=True))
        return found


class Worker(Service):
    """Does the unsettled work in the database until the worker is stopped.

    :param imports: how many imports run at once in this worker.
    :param daemon: id that marks the claims as this daemon's.
    :param sources: names of the configured image sources.
    :param serves: whether the daemon runs servers.
    """

    _log = Logger()

    def __init__(
        self,
        imports: Concurrency,
        tasks: TaskFactories,
        daemon: str,
        database: Database,
        backends: Backends,
        image_cache: ImageCache,
        exports: ExportRecovery,
        sources: Collection[str],
        clock: IReactorTime,
        *,
        serves: bool,
    ) -> None:
        self._tasks = tasks
        self._daemon = daemon
        self._database = database
        self._backends = backends
        self._image_cache = image_cache
        self._exports = exports
        self._sources = set(sources)
        self._clock = clock
        self._serves = serves
        self._shortage = Shortage(clock)
        self._jobs: set[Job] = set()
        self._lanes = [
            self._lane(Rules(imports.limits, gives_way=True), self._claim_import, imports.least),
            self._lane(_rules(_COPIES, gives_way=True), self._claiming(work_queue.claim_copy)),
            self._lane(_rules(_ZEROINGS), self._claiming(work_queue.claim_zeroing)),
            self._lane(_rules(_HOSTING), self._claiming(work_queue.claim_hosting)),
            self._lane(_rules(_QUICK), self._claiming(work_queue.claim_quick)),
        ]
        self._begun = Shared(succeed(None))
        self._ready = False
        self._heartbeats = Heartbeats(database, clock, lambda: self._jobs)
        #: How often in a row the work on a resource has failed because of the database.
        self._failures: Counter[tuple[Kind, int]] = Counter()
        self._shortening = Repeating(
            self._log,
            "the leases of ended daemons cannot be shortened",
            "the leases of ended daemons can be shortened again",
        )
        self._polling = LoopingCall(lambda: Deferred.fromCoroutine(self._poll()))
        self._polling.clock = clock

    def startService(self) -> None:
        """Begin to claim work."""
        super().startService()
        self._heartbeats.start()
        self._begun = Shared(Deferred.fromCoroutine(self._begin()))

    def stopService(self) -> Deferred[None]:
        """Stop all jobs and release their claims, so that the work can go on elsewhere or later."""
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
        self._heartbeats.stop()
        self._shortage.stop()

    async def _begin(self) -> None:
        """Clean up after an earlier run of the daemon, and begin to claim work."""
        try:
            telling = Deferred.fromCoroutine(self._tell())
            await self._restore()
            self._polling.start(POLL)
            # All backends at the same time: a hanging backend delays no other.
            names = self._backends.usable
            tidying = [Deferred.fromCoroutine(self._tidy(name)) for name in names]
            await gatherResults([telling, *tidying])
        except CancelledError:
            pass

    async def _tell(self) -> None:
        try:
            await backlog.tell(self._database, self._backends, self._sources)
        except (CancelledError, DatabaseUnavailable):
            pass
        except Exception:
            self._log.failure("unfinished work cannot be listed")

    async def _tidy(self, backend: str) -> None:
        try:
            await self._image_cache.tidy(backend)
        except (CancelledError, DatabaseUnavailable):
            pass
        except BackendFailed as error:
            self._log.warn("cannot tidy up on backend {name}: {error}", name=backend, error=error)
        except Exception:
            self._log.failure("cannot tidy up on backend {name}", name=backend)

    async def _restore(self) -> None:
        """Restore the exports; retry until that succeeds, since no work may begin before."""
        restoring = Repeating(
            self._log,
            "no work begins, since the exports are not in order",
            "the exports are in order, and work begins",
        )
        while not self._ready:
            try:
                await self._exports.restore()
                self._ready = True
            except CancelledError:
                raise
            except DatabaseUnavailable:
                pass  # The database layer has logged the failure.
            except Exception as error:
                restoring.failed(error)
            if not self._ready:
                await sleep(self._clock, POLL)
        restoring.succeeded()

    async def _poll(self) -> None:
        self.wake()
        if self._database.is_sqlite:
            return  # No lease ends.
        try:
            await self._database.write_without_invalidation(claims.shorten)
        except DatabaseUnavailable:
            pass  # The database layer has logged the failure; another attempt follows.
        except Exception as error:
            self._shortening.failed(error)
        else:
            self._shortening.succeeded()

    def wake(self) -> None:
        """Look for work in all lanes."""
        if self._may_begin():
            for lane in self._lanes:
                lane.wake()

    def stop_making(self, kind: Kind, number: int) -> None:
        """Stop the job that makes a resource, if one runs here; the status gives the next task."""
        for job in list(self._jobs):
            task = job.task
            if (task.kind, task.id) == (kind, number) and not MAKING.isdisjoint(task.statuses):
                job.cancel()

    def left(self) -> Sequence[str]:
        """Return the names of the jobs that have not ended, for people."""
        return sorted(str(job) for job in self._jobs)

    def _lane(self, rules: Rules, claim: StartJob, least: float = 0.0) -> Lane:
        return Lane(rules, claim, self.wake, self._may_begin, self._clock, least)

    def _may_begin(self) -> bool:
        return bool(self.running) and self._ready

    async def _claim_import(self, shares: Shares) -> tuple[Job | None, Collection[Waiting]]:
        """Claim the next import that may run, if any, and start its job; see :data:`.StartJob`."""
        request, asked = self._claim_request(), self._clock.seconds()
        found, waiting = await self._database.write_without_invalidation(
            _claimed_import, request, self._sources, shares
        )
        if found is None:
            return None, waiting
        return self._start(request, self._tasks.make_from_image(*found), asked), waiting

    def _claiming(
        self,
        query: Callable[
            [Db, claims.ClaimRequest, Order], tuple[work_queue.Subject | None, Collection[Waiting]]
        ],
    ) -> StartJob:
        """Return a function that claims one kind of work and starts its job."""

        async def claim(shares: Shares) -> tuple[Job | None, Collection[Waiting]]:
            request, asked = self._claim_request(), self._clock.seconds()
            found, waiting = await self._database.write_without_invalidation(query, request, shares)
            if found is None:
                return None, waiting
            return self._start(request, self._tasks.task_for(found), asked), waiting

        return claim

    def _claim_request(self) -> claims.ClaimRequest:
        """Return a new holder."""
        backends = self._backends
        busy: dict[Kind, list[int]] = {kind: [] for kind in Kind}
        for job in self._jobs:
            busy[job.task.kind].append(job.task.id)
        return claims.ClaimRequest(
            name=f"{self._daemon}/{uuid4().hex[:12]}",
            daemon=self._daemon,
            backends=set(backends.usable),
            zeroed=[
                name
                for name in backends.usable
                if not backends.named(name).capabilities.reads_zero_when_new
            ],
            busy=busy,
            serves=self._serves,
            host=backends.host,
        )

    def _start(self, request: claims.ClaimRequest, task: Task, asked: float) -> Job:
        what = task.kind, task.id
        job = Job(
            request.name,
            task,
            asked,
            self._failures[what],
            self._database,
            self._backends,
            self._shortage,
            self._clock,
        )
        self._jobs.add(job)

        def ended(_result: None) -> None:
            if job.failed:
                self._failures[what] += 1
            else:
                del self._failures[what]
            self._jobs.discard(job)

        job.ended.wait().addBoth(ended)
        if not self.running:
            job.cancel()
        job.start()
        return job


def _rules(limit: int, *, gives_way: bool = False) -> Rules:
    """Return the rules of a lane that has ``limit`` places on each backend.

    If the lane's jobs cannot give way, one more place is kept for a tenant without a place.
    """
    return Rules(
        lambda what: [Limit(("backend", what.backend), limit)],
        spare=0 if gives_way else 1,
        gives_way=gives_way,
    )


def _claimed_import(
    db: Db, request: claims.ClaimRequest, sources: Collection[str], order: Order
) -> tuple[tuple[Volume, str] | None, Collection[Waiting]]:
    """Claim the next import.

    :returns: the import's volume and source, or None; and all waiting work.
    """
    row, waiting = import_queue.claim(db, request, sources, order)
    task = import_rows.find(db, row.id) if row is not None else None
    found = (volume_rows.of_row(row), task.image.source) if row is not None and task else None
    return found, waiting
