"""Exports after a restart of the daemon or of its machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol.backends import Backends
from bootvol.errors import BackendSilent, BootvolError, DatabaseUnavailable, WrongStore
from bootvol.exports.exports import Exports
from bootvol.lifecycle import Status
from bootvol.model import Volume
from bootvol.questions import Questions
from bootvol.store import attachments as attachment_rows
from bootvol.store.database import Database
from bootvol.threads import StillRunning
from bootvol.worker.tasks.attachments import EXPORTABLE

#: Seconds to wait for exports after a restart: longer than two servers may take, one that ends
#: and one that begins.
SERVING: Final = 90.0


class ExportRecovery:
    """Serves attached volumes again.

    :param daemon: id that marks attachments as this daemon's.
    :param exports: None if hypervisors open volumes directly: then nothing has to be served.
    """

    _log = Logger()

    def __init__(
        self,
        daemon: str,
        database: Database,
        backends: Backends,
        exports: Exports | None,
        clock: IReactorTime,
    ) -> None:
        self._daemon = daemon
        self._database = database
        self._backends = backends
        self._exports = exports
        self._questions = Questions(clock, SERVING)

    async def restore(self) -> None:
        """Serve all attached volumes, and no others.

        Call while no task attaches or detaches volumes. A volume on its way to or from a server is
        left to the task that moves the volume. A volume on a backend that may do no work yet is
        left to :meth:`restore_on`. A failure concerns one volume only.
        """
        if self._exports is None:
            return
        attached = await self._database.read(attachment_rows.served, self._daemon)
        for backend in self._backends.usable:
            try:
                await self._restore(self._exports, backend, attached)
            except (BackendSilent, WrongStore) as error:
                # These two errors concern the whole backend. Its volumes are served when the
                # backend is resumed.
                self._backends.suspend(backend, error)
        for name in set(await self._exports.names()).difference(each.name for each in attached):
            try:
                await self._exports.close(name)
            except BootvolError:
                self._log.failure("{name} is served still", name=name)

    async def restore_on(self, backend: str) -> None:
        """Serve a backend's attached volumes.

        Call while no task attaches or detaches these volumes.

        :raises BackendSilent: if the backend does not answer in time.
        :raises WrongStore: if the backend's store is another one.
        """
        if self._exports is not None:
            attached = await self._database.read(attachment_rows.served, self._daemon)
            await self._restore(self._exports, backend, attached)

    async def _restore(self, exports: Exports, backend: str, attached: Sequence[Volume]) -> None:
        for volume in attached:
            here = volume.backend == backend and self._backends.reaches(volume.host)
            if not here or volume.status is not Status.IN_USE:
                continue
            try:
                lies = await self._backends.connection(volume)
                if lies.kind in EXPORTABLE:
                    opening = partial(exports.open, volume.name, lies)
                    served = await self._questions.ask(volume.name, opening)
                    # The address differs from the former one if no record of the export was left.
                    await self._database.write(attachment_rows.reached, volume.id, served)
            except StillRunning:
                # Nothing else waits for this call. The call is not begun again before it has ended.
                raise BackendSilent(backend) from None
            except (CancelledError, DatabaseUnavailable, BackendSilent, WrongStore):
                raise
            except Exception:
                self._log.failure("volume {id} cannot be served again", id=volume.id)
