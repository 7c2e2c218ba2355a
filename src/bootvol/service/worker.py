"""Brings what is unsettled to an end: claims it, and has a job work on each.

The status of a volume, snapshot or server is the intent.  Imports may take hours, copies of volumes
minutes, and so may zeroing the volumes of backends that hand out old blocks; what guests have a say
in, as long as they like; all else is quick.  Each has a lane with a limit of its own, so that a
removal never waits for a download.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Final
from uuid import uuid4

import attrs
from sqlalchemy import Connection as Db
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from bootvol.lifecycle import MAKING, Kind, Status
from bootvol.model import Server, Snapshot, Volume
from bootvol.service import making
from bootvol.service.attaching import Attach, Detach
from bootvol.service.exporting import restore
from bootvol.service.hosting import BuildServer, EndServer
from bootvol.service.jobs import Job
from bootvol.service.tasks import Task, Tools
from bootvol.store import claims, line, queue
from bootvol.store import imports as import_rows
from bootvol.store import volumes as volume_rows

#: Seconds between looks for work that nobody told of (another daemon that ended).
POLL: Final = 5.0
#: How many quick jobs run at once, how many copies of volumes, how many volumes are zeroed, and how
#: many servers are started or ended, or have a disk plugged in or out: that is waiting mostly.
_QUICK: Final = 4
_COPIES: Final = 2
_ZEROINGS: Final = 2
_HOSTING: Final = 16


@attrs.frozen
class Concurrency:
    """How many imports a worker runs at once.

    :ivar total: all together.
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
        self._lanes = [
            _Lane(self._claim_import, imports.total, self.wake),
            _Lane(lambda: self._claim(queue.claim_copy), _COPIES, self.wake),
            _Lane(lambda: self._claim(queue.claim_zeroing), _ZEROINGS, self.wake),
            _Lane(lambda: self._claim(queue.claim_hosting), _HOSTING, self.wake),
            _Lane(lambda: self._claim(queue.claim_quick), _QUICK, self.wake),
        ]
        self._begun: Deferred[None] = succeed(None)
        self._ready = False
        self._polling = LoopingCall(self.wake)
        self._polling.clock = tools.clock

    def startService(self) -> None:
        """Begin to claim work."""
        super().startService()
        self._begun = Deferred.fromCoroutine(self._begin())

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
        await self._begun
        await gatherResults([lane.idle() for lane in self._lanes])
        await gatherResults([job.ended for job in self._jobs])

    async def _begin(self) -> None:
        """Put right what another run of the daemon had no time to, and begin to claim work."""
        try:
            await self._restore()
            self._polling.start(POLL)
            for name in self._tools.backends.names:
                await self._tools.goldens.tidy(name)
        except CancelledError:
            pass
        except Exception:
            self._log.failure("cannot tidy up")

    async def _restore(self) -> None:
        """Let exports be as they should: without that no work may begin, so it is tried again."""
        while not self._ready:
            try:
                await restore(self._tools)
                self._ready = True
            except CancelledError:
                raise
            except Exception:
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

    async def _claim_import(self) -> Job | None:
        """Claim the next import and start it; None if there is none."""
        imports = [job.task for job in self._jobs if job.task.source is not None]
        holder = self._holder(_full(self._limits.backends, [task.backend for task in imports]))
        full = _full(self._limits.sources, [task.source for task in imports])
        asked = self._tools.clock.seconds()
        found = await self._tools.database.write_unseen(_claimed_import, holder, full)
        if found is None:
            return None
        return self._start(holder, making.MakeFromImage(*found, self._tools), asked)

    async def _claim(
        self, query: Callable[[Db, claims.Holder], queue.Subject | None]
    ) -> Job | None:
        """Claim what else there is to do and start on it; None if there is nothing."""
        holder = self._holder()
        asked = self._tools.clock.seconds()
        found = await self._tools.database.write_unseen(query, holder)
        return None if found is None else self._start(holder, _task(found, self._tools), asked)

    def _holder(self, full: Collection[str] = ()) -> claims.Holder:
        """Return a new holder, which may not work on the backends that are ``full``."""
        backends = self._tools.backends
        busy: dict[Kind, list[int]] = {kind: [] for kind in Kind}
        for job in self._jobs:
            busy[job.task.kind].append(job.task.id)
        return claims.Holder(
            name=f"{self._tools.daemon}/{uuid4().hex[:12]}",
            daemon=self._tools.daemon,
            backends=set(backends.names).difference(full),
            zeroed=[
                name
                for name in backends.names
                if not backends.named(name).capabilities.reads_zero_when_new
            ],
            busy=busy,
            serves=self._tools.hypervisor is not None,
        )

    def _start(self, holder: claims.Holder, task: Task, asked: float) -> Job:
        job = Job(holder.name, task, asked)
        self._jobs.add(job)

        def ended(_result: None) -> None:
            self._jobs.discard(job)

        job.ended.addBoth(ended)
        if not self.running:
            job.cancel()
        job.start()
        return job


def _claimed_import(
    db: Db, holder: claims.Holder, full: Collection[str]
) -> tuple[Volume, str] | None:
    """Claim the next import; return its volume and its source; None if there is none."""
    row = line.claim(db, holder, full)
    task = import_rows.find(db, row.id) if row is not None else None
    return (volume_rows.of_row(row), task.image.source) if row is not None and task else None


def _task(subject: queue.Subject, tools: Tools) -> Task:
    """Return what is to be done with a volume, snapshot or server, by its status."""
    removed = subject.status is Status.DELETING
    if isinstance(subject, Server):
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
    """Claims one kind of work while there is some and the limit is not reached.

    :param claim: starts a job if there is work.
    :param limit: how many jobs at once.
    :param wake_all: called when a job has ended: even its own volume may be work again, for
        another lane (an import that was cancelled is to be removed).
    """

    _log = Logger()

    def __init__(
        self,
        claim: Callable[[], Coroutine[Any, Any, Job | None]],
        limit: int,
        wake_all: Callable[[], None],
    ) -> None:
        self._claim = claim
        self._free = limit
        self._wake_all = wake_all
        self._looking = False
        self._look_ended: Deferred[None] = succeed(None)
        self._again = False

    def wake(self) -> None:
        """Look for work now, or once more if a look is under way."""
        self._again = True
        if not self._looking:
            self._looking = True
            self._look_ended = Deferred.fromCoroutine(self._look())

    def idle(self) -> Deferred[None]:
        """Return a Deferred that fires when no look is under way."""
        return self._look_ended

    async def _look(self) -> None:
        try:
            while self._again and self._free:
                self._again = False
                job = await self._claim()
                if job is not None:
                    self._free -= 1
                    self._again = True
                    job.ended.addBoth(self._job_ended)
        except Exception:
            self._log.failure("cannot look for work")
        finally:
            self._looking = False

    def _job_ended(self, _result: None) -> None:
        self._free += 1
        self._wake_all()
