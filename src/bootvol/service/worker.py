"""Brings unsettled volumes to an end: claims them, and has a job work on each.

A volume's status is the intent.  ``creating`` and ``downloading`` with an image are imports, of
which few run at once; ``creating`` without an image and ``deleting`` are quick.  Each kind has a
lane with a limit of its own, so that a removal never waits for a download.
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
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.lifecycle import Status
from bootvol.model import Volume
from bootvol.service.jobs import LEASE, Job, Tools
from bootvol.store import claims
from bootvol.store import imports as import_rows

#: Seconds between looks for work that nobody told of (another daemon that ended).
POLL: Final = 5.0
#: How many quick jobs run at once.
_QUICK: Final = 4


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

    :param worker_id: what its claims are known by; the same again after a restart.
    :param imports: how many imports run at once, in this worker.
    :param tools: its clock tells the time, which other daemons on the same database must roughly
        share.
    """

    _log = Logger()

    def __init__(self, worker_id: str, imports: Concurrency, tools: Tools) -> None:
        self._id = worker_id
        self._tools = tools
        self._limits = imports
        # What goes on; with each import its source, with anything else None.
        self._jobs: dict[Job, str | None] = {}
        self._lanes = [
            _Lane(lambda: self._claim(True), imports.total, self.wake),
            _Lane(lambda: self._claim(False), _QUICK, self.wake),
        ]
        self._tidied: Deferred[None] = succeed(None)
        self._polling = LoopingCall(self.wake)
        self._polling.clock = tools.clock

    def startService(self) -> None:
        """Begin to claim work."""
        super().startService()
        self._polling.start(POLL)
        self._tidied = Deferred.fromCoroutine(self._tidy())

    def stopService(self) -> Deferred[None]:
        """Stop all work and let go of it, so that it can go on elsewhere or later."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._polling.running:
            self._polling.stop()
        self._tidied.cancel()
        for job in list(self._jobs):
            job.cancel()
        await self._tidied
        await gatherResults([lane.idle() for lane in self._lanes])
        await gatherResults([job.ended for job in self._jobs])

    async def _tidy(self) -> None:
        """Remove what another run of the daemon had no time to remove."""
        try:
            for name in self._tools.backends.names:
                await self._tools.goldens.tidy(name)
        except CancelledError:
            pass
        except Exception:
            self._log.failure("cannot tidy up")

    def wake(self) -> None:
        """See whether there is work."""
        if self.running:
            for lane in self._lanes:
                lane.wake()

    def stop_import(self, volume_id: int) -> None:
        """Stop making a volume if that goes on here; its status then says what is next."""
        for job in list(self._jobs):
            if job.volume.id == volume_id and job.volume.status is not Status.DELETING:
                job.cancel()

    async def _claim(self, bootable: bool) -> Job | None:
        """Claim a volume of one kind and start working on it; None if there is none."""
        now = self._tools.clock.seconds()
        until = now + LEASE
        holder = f"{self._id}/{uuid4().hex[:12]}"
        backends = set(self._tools.backends.names)
        full: set[str] = set()
        if bootable:
            imports = {job: source for job, source in self._jobs.items() if source is not None}
            backends -= _full(self._limits.backends, [job.volume.backend for job in imports])
            full = _full(self._limits.sources, imports.values())
        claimed = await self._tools.database.write(
            _claimed,
            holder,
            bootable=bootable,
            backends=backends,
            full=full,
            busy=[job.volume.id for job in self._jobs],
            now=now,
            until=until,
        )
        if claimed is None:
            return None
        volume, source = claimed
        job = Job(holder, volume, until, self._tools)

        def ended(_result: None) -> None:
            del self._jobs[job]

        self._jobs[job] = source
        job.ended.addBoth(ended)
        if not self.running:
            job.cancel()
        job.start()
        return job


def _claimed(db: Db, /, holder: str, **wanted: Any) -> tuple[Volume, str | None] | None:
    """Claim a volume; return it, and if it is to be imported, the source; None if there is none."""
    volume = claims.claim(db, holder, **wanted)
    if volume is None:
        return None
    task = import_rows.find(db, volume.id) if wanted["bootable"] else None
    return volume, task.image.source if task is not None else None


def _full(limits: Mapping[str, int], running: Collection[str]) -> set[str]:
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
