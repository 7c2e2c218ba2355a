"""Brings unsettled volumes to an end: claims them, and has a job work on each.

A volume's status is the intent.  ``creating`` and ``downloading`` with an image are imports, of
which few run at once; ``creating`` without an image and ``deleting`` are quick.  Each kind has a
lane with a limit of its own, so that a removal never waits for a download.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final
from uuid import uuid4

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.lifecycle import Status
from bootvol.service.jobs import LEASE, Job, Tools
from bootvol.store import claims

#: Seconds between looks for work that nobody told of (another daemon that ended).
POLL: Final = 5.0
#: How many quick jobs run at once.
_QUICK: Final = 4


class Worker(Service):
    """Works on whatever the database says is unsettled, until it is stopped.

    :param worker_id: what its claims are known by; the same again after a restart.
    :param imports: how many imports run at once.
    :param tools: its clock tells the time, which other daemons on the same database must roughly
        share.
    """

    def __init__(self, worker_id: str, imports: int, tools: Tools) -> None:
        self._id = worker_id
        self._tools = tools
        self._jobs: set[Job] = set()
        self._lanes = [
            _Lane(lambda: self._claim(True), imports, self.wake),
            _Lane(lambda: self._claim(False), _QUICK, self.wake),
        ]
        self._polling = LoopingCall(self.wake)
        self._polling.clock = tools.clock

    def startService(self) -> None:
        """Begin to claim work."""
        super().startService()
        self._polling.start(POLL)

    def stopService(self) -> Deferred[None]:
        """Stop all work and let go of it, so that it can go on elsewhere or later."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._polling.running:
            self._polling.stop()
        for job in list(self._jobs):
            job.cancel()
        await gatherResults([lane.idle() for lane in self._lanes])
        await gatherResults([job.ended for job in self._jobs])

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
        volume = await self._tools.database.write(
            claims.claim,
            holder,
            bootable=bootable,
            backends=list(self._tools.backends.names),
            busy=[job.volume.id for job in self._jobs],
            now=now,
            until=until,
        )
        if volume is None:
            return None
        job = Job(holder, volume, until, self._tools)
        self._jobs.add(job)
        job.ended.addCallback(lambda _: self._jobs.discard(job))
        if not self.running:
            job.cancel()
        job.start()
        return job


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
                    job.ended.addCallback(self._job_ended)
        except Exception:
            self._log.failure("cannot look for work")
        finally:
            self._looking = False

    def _job_ended(self, _result: None) -> None:
        self._free += 1
        self._wake_all()
