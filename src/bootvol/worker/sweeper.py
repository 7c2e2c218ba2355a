"""Deletes strays: volumes and snapshots under names whose claims were lost.

Each daemon that has the backend deletes strays. A daemon that finds its claim lost deletes its own
unfinished volume at once (:meth:`bootvol.worker.tasks.task.Task.lost`). The sweeper handles the
strays of daemons that never come back, and strays that other volumes needed at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection as Db
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.backends import Backends
from bootvol.errors import BackendFailed, DatabaseUnavailable, WrongStore
from bootvol.store import strays
from bootvol.store.database import Database
from bootvol.worker.repeating import Repeating

#: Seconds between two searches for strays, and between two deletions of the same stray.
LOOK: Final = 60.0
PAUSE: Final = 600.0
#: Seconds for which the deletion of a stray is repeated. A daemon that has neither confirmed its
#: loss nor started again by then is believed to be gone for good.
PATIENCE: Final = 24 * 3600.0


class Sweeper(Service):
    """Deletes strays periodically, and independently on each backend.

    :param clock: times the searches.
    :param now: returns seconds since 1970, in a transaction, by a clock that all daemons share. The
        clock of one machine may be set: by such a clock a stray could seem old as soon as it is
        found.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        backends: Backends,
        clock: IReactorTime,
        now: Callable[[Db], float],
    ) -> None:
        self._database = database
        self._backends = backends
        self._now = now
        self._faults = {
            name: Repeating(
                self._log,
                "strays of backend {name} are not deleted",
                "strays of backend {name} are deleted again",
                name=name,
            )
            for name in backends.names
        }
        self._sweeping: dict[str, Deferred[None]] = {}
        self._looking = LoopingCall(self.look)
        self._looking.clock = clock

    def startService(self) -> None:
        """Search for strays now and periodically."""
        super().startService()
        self._looking.start(LOOK)

    def stopService(self) -> Deferred[None]:
        """Stop; the Deferred fires when all deletions have ended."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        under_way = list(self._sweeping.values())
        for each in under_way:
            each.cancel()
        await gatherResults(under_way)

    def look(self) -> None:
        """Delete the strays of each backend, except where deletions are still running."""
        for name in self._backends.usable:
            if name not in self._sweeping:
                sweeping = Deferred.fromCoroutine(self._sweep(name))
                if not sweeping.called:
                    self._sweeping[name] = sweeping

    async def _sweep(self, backend: str) -> None:
        try:
            found = await self._database.write_without_invalidation(self._due, backend)
            await self._delete(found)
        except (CancelledError, DatabaseUnavailable):
            pass
        except WrongStore as error:
            # Nothing can be deleted there, until the right store is back.
            self._backends.suspend(backend, error)
        except Exception as error:
            self._faults[backend].failed(error)
        else:
            self._faults[backend].succeeded()
        finally:
            self._sweeping.pop(backend, None)

    def _due(self, db: Db, backend: str) -> Sequence[strays.Stray]:
        return strays.due(db, backend, self._backends.host_of(backend), self._now(db), PAUSE)

    def _deleted(self, db: Db, stray: strays.Stray) -> None:
        strays.deleted(db, stray.id, self._now(db) - PATIENCE)

    async def _delete(self, found: Sequence[strays.Stray]) -> None:
        for stray in found:
            try:
                await self._backends.named(stray.backend).delete(stray.name)
            except WrongStore:
                raise
            except BackendFailed as error:
                # The former daemon may still have the volume open.
                self._log.warn(
                    "{name} on backend {backend} was begun by a daemon that lost its claim, and is"
                    " not deleted yet: {error}",
                    name=stray.name,
                    backend=stray.backend,
                    error=error,
                )
            else:
                await self._database.write_without_invalidation(self._deleted, stray)
