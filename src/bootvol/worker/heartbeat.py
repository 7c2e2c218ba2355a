"""Renews the claims of a daemon, and records the progress of its jobs, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

import attrs
from sqlalchemy import Connection as Db
from sqlalchemy.exc import DataError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.errors import DatabaseRefused, DatabaseUnavailable
from bootvol.store import claims
from bootvol.store.database import Database
from bootvol.worker.job import Job
from bootvol.worker.repeating import Repeating
from bootvol.worker.tasks.task import Task

#: Seconds between renewals.
RENEWAL: Final = 0.5


@attrs.frozen
class _Renewal:
    """The results of a renewal.

    :ivar lost: names of the claims that no longer hold.
    :ivar renewed: names of the renewed claims.
    :ivar refused: errors of the database about the progress of jobs, by the names of their claims.
    """

    lost: Collection[str]
    renewed: Collection[str]
    refused: Mapping[str, DatabaseRefused]


class Heartbeats:
    """Renews the claims of jobs until it is stopped.

    :param jobs: returns the jobs that have not ended.
    """

    _log = Logger()

    def __init__(
        self, database: Database, clock: IReactorTime, jobs: Callable[[], Collection[Job]]
    ) -> None:
        self._database = database
        self._clock = clock
        self._jobs = jobs
        self._renewing = Repeating(self._log, "claims are not renewed", "claims are renewed again")
        self._ticking = LoopingCall(lambda: Deferred.fromCoroutine(self._tick()))
        self._ticking.clock = clock

    def start(self) -> None:
        """Begin to renew claims."""
        self._ticking.start(RENEWAL, now=False)

    def stop(self) -> None:
        """Stop renewing claims."""
        if self._ticking.running:
            self._ticking.stop()

    async def _tick(self) -> None:
        try:
            await self._renew()
        except DatabaseUnavailable:
            pass  # The database layer has logged the failure.
        except Exception as error:
            self._renewing.failed(error)
        else:
            self._renewing.succeeded()

    async def _renew(self) -> None:
        jobs = {job.holder: job for job in self._jobs()}
        if not jobs:
            return
        asked = self._clock.seconds()
        held = [job.lease for job in jobs.values()]
        # Threads of the database must not read the state of tasks.
        progress = {name: (job.task, job.columns()) for name, job in jobs.items()}
        try:
            kept = await self._database.write_without_invalidation(_renew, held, progress)
        except DatabaseRefused:
            kept = await self._database.write_without_invalidation(_renew_each, held, progress)
        for name in kept.lost:
            jobs[name].renewed(asked, held=False)
        for name in kept.renewed:
            jobs[name].renewed(asked, held=True)
        for name, error in kept.refused.items():
            jobs[name].refuse(error)


_Progress = Mapping[str, tuple[Task, dict[str, object]]]


def _renew(db: Db, held: Collection[claims.Lease], progress: _Progress) -> _Renewal:
    """Renew claims, and record the progress of the jobs whose claims hold."""
    lost, renewed = claims.renew_all(db, held)
    for each in renewed:
        _record(db, *progress[each.holder])
    return _Renewal([each.holder for each in lost], [each.holder for each in renewed], {})


def _renew_each(db: Db, held: Collection[claims.Lease], progress: _Progress) -> _Renewal:
    """Do as :func:`_keep`, but record each job's progress apart, to find refused values."""
    kept = _renew(db, held, {each.holder: (progress[each.holder][0], {}) for each in held})
    refused = {}
    for name in kept.renewed:
        try:
            with db.begin_nested():
                _record(db, *progress[name])
        except DataError as error:
            refused[name] = DatabaseRefused()
            refused[name].__cause__ = error
    return attrs.evolve(kept, refused=refused)


def _record(db: Db, task: Task, columns: dict[str, object]) -> None:
    if columns:
        task.record(db, columns)
