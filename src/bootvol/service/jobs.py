"""The work on one claimed volume: do what its status asks for, and write down what became of it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

import attrs
from sqlalchemy import Connection as Db
from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.errors import BootvolError, ErrorReport, NoSpace, reason
from bootvol.lifecycle import MAKING, Event, Status
from bootvol.model import Import, Phase, Volume
from bootvol.service.backends import Backends
from bootvol.service.goldens import Goldens
from bootvol.service.imports import Importer
from bootvol.service.progress import Progress
from bootvol.store import claims
from bootvol.store import imports as import_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

#: Seconds a claim lasts unless it is renewed, and seconds between renewals.
LEASE: Final = 30.0
RENEWAL: Final = 0.5


@attrs.frozen
class Tools:
    """What every job works with."""

    database: Database
    backends: Backends
    importer: Importer
    goldens: Goldens
    clock: IReactorTime


class Unwanted(Exception):
    """The claim was lost, or the volume is wanted otherwise by now: stop, and change nothing."""


class Job:
    """The work on one claimed volume.

    :param holder: the name of the claim.
    :param until: seconds since 1970 when its lease ends.
    :ivar ended: fires when the work has ended in whatever way, and the claim with it.
    """

    _log = Logger()

    def __init__(self, holder: str, volume: Volume, until: float, tools: Tools) -> None:
        self.volume = volume
        self.ended: Deferred[None] = Deferred()
        self._holder = holder
        self._tools = tools
        self._removal = volume.status is Status.DELETING
        # What the claim is for; with any other status the volume is wanted otherwise.
        self._wanted = MAKING if not self._removal else {Status.DELETING}
        imported = volume.image_id is not None and not self._removal
        self._progress = Progress(tools.clock.seconds()) if imported else None
        self._cancelled = False
        self._task: Deferred[None] | None = None
        # However long the database takes to say so: without a lease there is no right to go on.
        self._expiry = tools.clock.callLater(max(0.0, until - tools.clock.seconds()), self.cancel)

    def start(self) -> None:
        """Begin."""
        self._task = Deferred.fromCoroutine(self._run())
        if self._cancelled:
            self._task.cancel()
        self._task.chainDeferred(self.ended)

    def cancel(self) -> None:
        """Stop the work, and let go of the volume as it is."""
        if not self._cancelled:
            self._cancelled = True
            if self._progress is not None:
                self._progress.stopping = True
            if self._task is not None:
                self._task.cancel()

    async def _run(self) -> None:
        renewing = LoopingCall(lambda: Deferred.fromCoroutine(self._renew()))
        renewing.clock = self._tools.clock
        renewing.start(RENEWAL, now=False)
        try:
            try:
                await self._attempt()
            except (CancelledError, Unwanted):
                await self._write(claims.release, self._holder, self.volume.id)
        except Exception:
            # The claim stays until it runs out; then the work is tried again.
            self._log.failure("could not settle volume {id}", id=self.volume.id)
        finally:
            renewing.stop()
            if self._expiry.active():
                self._expiry.cancel()
        if self.volume.image_id is not None and not self._cancelled:
            await self._tidy()

    async def _tidy(self) -> None:
        """Remove what other imports waited for, if it is of no use any more; it may wait, too."""
        try:
            await self._tools.goldens.tidy(self.volume.backend)
        except CancelledError:
            pass
        except Exception:
            self._log.failure("could not tidy up after volume {id}", id=self.volume.id)

    async def _attempt(self) -> None:
        try:
            event = await (self._remove() if self._removal else self._make())
        except (Unwanted, SQLAlchemyError):
            # Of the second kind none says anything of the volume: the work is tried again.
            raise
        except Exception as error:
            # A plugin may raise CancelledError for reasons of its own, or something else for ours.
            if self._cancelled:
                raise CancelledError from error
            await self._fail(error)
        else:
            await self._settle(event)

    async def _remove(self) -> Event:
        backend = self._tools.backends.named(self.volume.backend)
        await self._tools.goldens.let_go(self.volume.id)
        await backend.delete(self.volume.name)
        return Event.VANISH

    async def _make(self) -> Event:
        if self._progress is None:
            backend = self._tools.backends.named(self.volume.backend)
            try:
                await backend.allocate(self.volume.name, self.volume.size_bytes)
            except NoSpace:
                if not await self._tools.goldens.make_room(self.volume.backend, self.volume.id):
                    raise
                await backend.allocate(self.volume.name, self.volume.size_bytes)
        else:
            task = await self._write(self._begin, self._expiry.getTime())
            await self._tools.importer.run(self.volume, task, self._progress, self._keep)
        return Event.COMPLETE

    async def _fail(self, error: Exception) -> None:
        """Give back the space of what could not be made, and keep the reason."""
        if not isinstance(error, BootvolError):
            self._log.failure("work on volume {id} failed", id=self.volume.id)
        # Whose claim has run out must not touch what another is making by now.
        await self._keep()
        if not self._removal:
            try:
                await self._remove()
            except CancelledError:
                raise
            except Exception:
                self._log.failure("space of volume {id} is not given back", id=self.volume.id)
        await self._settle(Event.FAIL, reason(error))

    async def _renew(self) -> None:
        """Renew the lease and write the progress down; stop the work if it lost its point."""
        try:
            await self._keep()
        except Unwanted:
            self.cancel()
        except Exception:
            self._log.failure("the claim on volume {id} is not renewed", id=self.volume.id)

    async def _keep(self) -> None:
        """Renew the lease and write the progress down.

        :raises Unwanted: there is no lease any more.
        """
        until = self._tools.clock.seconds() + LEASE
        await self._write(self._renewed, until, self._columns())
        if self._expiry.active():
            # The lease began when it was asked for, however late the answer is.
            self._expiry.reset(max(0.0, until - self._tools.clock.seconds()))

    def _columns(self) -> dict[str, Any]:
        """Return the progress as it is now: it must not be read in the database's threads."""
        return self._progress.columns(self._tools.clock.seconds()) if self._progress else {}

    async def _settle(self, event: Event, error: ErrorReport | None = None) -> None:
        """Note what became of the volume, and end the claim."""
        if self._progress is not None:
            self._progress.phase = Phase.FAILED if error else Phase.DONE
        until = self._expiry.getTime()
        await self._write(self._settled, until, event, error, self._columns())

    # --- transactions ----------------------------------------------------------------------------

    def _write(self, query: Any, *args: Any) -> Coroutine[Any, Any, Any]:
        return self._tools.database.write(query, *args)

    def _renewed(self, db: Db, until: float, columns: dict[str, Any]) -> None:
        if not claims.renew(db, self._holder, self.volume.id, self._wanted, until):
            raise Unwanted
        if columns:
            import_rows.record(db, self.volume.id, **columns)

    def _begin(self, db: Db, until: float) -> Import:
        """Note that an import starts; return it as it stands."""
        self._renewed(db, until, {})
        volume_rows.happen(db, self.volume.id, Event.DOWNLOAD)
        return import_rows.begin(db, self.volume.id)

    def _settled(
        self,
        db: Db,
        until: float,
        event: Event,
        error: ErrorReport | None,
        columns: dict[str, Any],
    ) -> None:
        self._renewed(db, until, columns)
        claims.release(db, self._holder, self.volume.id)
        volume_rows.happen(db, self.volume.id, event, error)
