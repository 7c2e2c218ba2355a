"""Brings unsettled volumes to an end: claims them, works on them, and says what became of them.

A volume's status is the intent.  ``creating`` and ``downloading`` with an image are imports, of
which few run at once; ``creating`` without an image and ``deleting`` are quick.  Each kind has a
lane with a limit of its own, so that a removal never waits for a download.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from sqlalchemy import Connection as Db
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.errors import BootvolError, ErrorReport, VolumeNotFound, reason
from bootvol.lifecycle import Event, IllegalTransition, Status
from bootvol.model import Import, Phase, Volume
from bootvol.service.backends import Backends
from bootvol.service.imports import Importer, Progress
from bootvol.store import claims
from bootvol.store import imports as import_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

#: Seconds a claim lasts unless it is renewed, and seconds between renewals.
LEASE: Final = 30.0
RENEWAL: Final = 0.5
#: Seconds between looks for work that nobody told of (another daemon that ended).
POLL: Final = 5.0
#: How many quick jobs run at once.
_QUICK: Final = 4


class Job:
    """The work on one claimed volume.

    :ivar progress: of an import; None for quick work.
    :ivar lease_until: seconds since 1970.
    """

    def __init__(self, volume: Volume, progress: Progress | None, lease_until: float) -> None:
        self.volume = volume
        self.progress = progress
        self.lease_until = lease_until
        self.ended: Deferred[None] = Deferred()
        self._task: Deferred[None] | None = None
        self._cancelled = False

    def start(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Begin; :attr:`ended` fires when the work has ended in whatever way."""
        self._task = Deferred.fromCoroutine(work)
        if self._cancelled:
            self._task.cancel()
        self._task.chainDeferred(self.ended)

    def cancel(self) -> None:
        """Stop the work; once only, since a second time would cut its cleaning-up short."""
        if not self._cancelled:
            self._cancelled = True
            if self._task is not None:
                self._task.cancel()


class Worker(Service):
    """Works on whatever the database says is unsettled, until it is stopped.

    :param worker_id: what its claims are known by; the same again after a restart.
    :param imports: how many imports run at once.
    :param clock: tells the time, which other daemons on the same database must roughly share.
    """

    _log = Logger()

    def __init__(
        self,
        worker_id: str,
        database: Database,
        backends: Backends,
        importer: Importer,
        imports: int,
        clock: IReactorTime,
    ) -> None:
        self._database = database
        self._backends = backends
        self._importer = importer
        self._clock = clock
        self._id = worker_id
        self._jobs: set[Job] = set()
        self._lanes = [_Lane(self, True, imports), _Lane(self, False, _QUICK)]
        self._polling = LoopingCall(self.wake)
        self._polling.clock = clock

    def startService(self) -> None:
        """Begin to claim work."""
        super().startService()
        self._polling.start(POLL)

    async def stop(self) -> None:
        """Stop all work and let go of it, so that it can go on elsewhere or later."""
        super().stopService()
        if self._polling.running:
            self._polling.stop()
        for job in self._jobs:
            job.cancel()
        await gatherResults([lane.idle() for lane in self._lanes])
        await gatherResults([job.ended for job in self._jobs])

    def stopService(self) -> Deferred[None]:
        """As :meth:`stop`, for Twisted."""
        return Deferred.fromCoroutine(self.stop())

    def wake(self) -> None:
        """See whether there is work."""
        for lane in self._lanes:
            lane.wake()

    def stop_import(self, volume_id: int) -> None:
        """Stop working on a volume if it is here; its status then says what is next."""
        for job in self._jobs:
            if job.volume.id == volume_id and job.volume.status is not Status.DELETING:
                job.cancel()

    # --- claiming ------------------------------------------------------------------------------

    async def claim(self, bootable: bool) -> Job | None:
        """Claim a volume of one kind and start working on it; None if there is none."""
        now = self._clock.seconds()
        volume = await self._database.write(
            claims.claim, self._id, bootable=bootable, now=now, until=now + LEASE
        )
        if volume is None:
            return None
        job = Job(volume, Progress(now) if bootable else None, now + LEASE)
        self._jobs.add(job)
        if not self.running:
            job.cancel()
        job.start(self._work(job))
        return job

    async def _work(self, job: Job) -> None:
        """Do a job, and in any case end its claim."""
        renewing = LoopingCall(lambda: Deferred.fromCoroutine(self._renew(job)))
        renewing.clock = self._clock
        renewing.start(RENEWAL, now=False)
        try:
            try:
                await self._attempt(job)
            except CancelledError:
                await self._database.write(claims.release, self._id, job.volume.id)
        except Exception:
            # The claim stays until it runs out; then the work is tried again.
            self._log.failure("could not settle volume {id}", id=job.volume.id)
        finally:
            renewing.stop()
            self._jobs.discard(job)

    async def _attempt(self, job: Job) -> None:
        volume = job.volume
        try:
            if volume.status is Status.DELETING:
                await self._backends.named(volume.backend).delete(volume.name)
                event = Event.VANISH
            else:
                await self._make(job)
                event = Event.COMPLETE
        except CancelledError:
            raise
        except Exception as error:
            await self._fail(job, error)
        else:
            await self._settle(job, event)

    async def _make(self, job: Job) -> None:
        if job.progress is None:
            backend = self._backends.named(job.volume.backend)
            await backend.allocate(job.volume.name, job.volume.size_bytes)
            return
        task = await self._database.write(self._begin, job.volume.id)
        if task is not None:
            await self._importer.run(job.volume, task, job.progress)

    async def _fail(self, job: Job, error: Exception) -> None:
        """Give back the space of what could not be made, and keep the reason."""
        if not isinstance(error, BootvolError):
            self._log.failure("work on volume {id} failed", id=job.volume.id)
        if job.volume.status is not Status.DELETING:
            try:
                await self._backends.named(job.volume.backend).delete(job.volume.name)
            except BootvolError:
                self._log.failure("space of volume {id} is not given back", id=job.volume.id)
        await self._settle(job, Event.FAIL, reason(error))

    # --- what is written down ------------------------------------------------------------------

    async def _renew(self, job: Job) -> None:
        """Renew a job's lease and write its progress down; stop the job if it lost its point."""
        now = self._clock.seconds()
        columns = job.progress.columns(now) if job.progress else {}
        try:
            kept = await self._database.write(self._note, job.volume, now + LEASE, columns)
        except Exception:
            self._log.failure("the claim on volume {id} is not renewed", id=job.volume.id)
            kept = self._clock.seconds() < job.lease_until
        else:
            job.lease_until = now + LEASE
        if not kept:
            job.cancel()

    def _note(self, db: Db, volume: Volume, until: float, columns: dict[str, Any]) -> bool:
        removal = volume.status is Status.DELETING
        wanted = {Status.DELETING} if removal else {Status.CREATING, Status.DOWNLOADING}
        kept = claims.renew(db, self._id, volume.id, wanted, until)
        if kept:
            import_rows.record(db, volume.id, **columns)
        return kept

    def _begin(self, db: Db, volume_id: int) -> Import | None:
        """Note that an import starts; None if the volume is wanted otherwise by now."""
        if not claims.held(db, self._id, volume_id):
            return None
        try:
            volume_rows.happen(db, volume_id, Event.DOWNLOAD)
        except IllegalTransition:
            return None
        import_rows.begin(db, volume_id)
        return import_rows.find(db, volume_id)

    async def _settle(self, job: Job, event: Event, error: ErrorReport | None = None) -> None:
        columns: dict[str, Any] = {}
        if job.progress is not None:
            job.progress.phase = Phase.FAILED if error else Phase.DONE
            columns = job.progress.columns(self._clock.seconds())
        await self._database.write(self._ended, job.volume.id, event, error, columns)

    def _ended(
        self,
        db: Db,
        volume_id: int,
        event: Event,
        error: ErrorReport | None,
        columns: dict[str, Any],
    ) -> None:
        if not claims.held(db, self._id, volume_id):
            return
        claims.release(db, self._id, volume_id)
        try:
            volume_rows.happen(db, volume_id, event, error)
        except (IllegalTransition, VolumeNotFound):
            return  # deleted meanwhile: the next claim removes it
        import_rows.record(db, volume_id, **columns)


class _Lane:
    """Claims one kind of work while there is some and the limit is not reached."""

    def __init__(self, worker: Worker, bootable: bool, limit: int) -> None:
        self._worker = worker
        self._bootable = bootable
        self._free = limit
        self._looking: Deferred[None] | None = None
        self._again = False

    def wake(self) -> None:
        """Look for work now, or once more if a look is under way."""
        self._again = True
        if self._looking is None and self._free and self._worker.running:
            self._looking = Deferred.fromCoroutine(self._look())

    def idle(self) -> Deferred[None]:
        """Return a Deferred that fires when no look is under way."""
        done: Deferred[None] = Deferred()
        if self._looking is None:
            done.callback(None)
        else:
            self._looking.addBoth(done.callback)
        return done

    async def _look(self) -> None:
        try:
            while self._again and self._free and self._worker.running:
                self._again = False
                job = await self._worker.claim(self._bootable)
                if job is not None:
                    self._free -= 1
                    self._again = True
                    job.ended.addCallback(self._ended)
        except Exception:
            Worker._log.failure("cannot look for work")
        finally:
            self._looking = None

    def _ended(self, _result: None) -> None:
        self._free += 1
        # Even its own volume may be work again: an import that was cancelled is to be removed.
        self._worker.wake()
