"""Exports after a restart of the daemon or of its machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from bootvol.errors import BackendSilent, BootvolError, DatabaseUnavailable, WrongStore
from bootvol.exports.exports import Exports
from bootvol.lifecycle import Status
from bootvol.model import Volume
from bootvol.store import attachments as attachment_rows
from bootvol.threads import StillRunning
from bootvol.worker.tasks.attachments import EXPORTABLE
from bootvol.worker.tasks.task import Tools

_log = Logger()


async def restore(tools: Tools) -> None:
    """Serve all attached volumes, and no others. Call while no task attaches or detaches volumes.

    A volume on its way to or from a server is left to the task that moves the volume. A volume on a
    backend that may do no work yet is left to :func:`restore_on`. A failure concerns one volume
    only.
    """
    if tools.exports is None:
        return
    attached = await tools.database.read(attachment_rows.served, tools.daemon)
    for backend in tools.backends.usable:
        try:
            await _restore(tools, tools.exports, backend, attached)
        except (BackendSilent, WrongStore) as error:
            # These two errors concern the whole backend. Its volumes are served when the backend is
            # resumed.
            tools.backends.suspend(backend, error)
    for name in set(await tools.exports.names()).difference(volume.name for volume in attached):
        try:
            await tools.exports.close(name)
        except BootvolError:
            _log.failure("{name} is served still", name=name)


async def restore_on(tools: Tools, backend: str) -> None:
    """Serve a backend's attached volumes. Call while no task attaches or detaches these volumes.

    :raises BackendSilent: if the backend does not answer in time.
    :raises WrongStore: if the backend's store is another one.
    """
    if tools.exports is not None:
        attached = await tools.database.read(attachment_rows.served, tools.daemon)
        await _restore(tools, tools.exports, backend, attached)


async def _restore(
    tools: Tools, exports: Exports, backend: str, attached: Sequence[Volume]
) -> None:
    for volume in attached:
        if volume.backend != backend or volume.status is not Status.IN_USE:
            continue
        try:
            lies = await tools.backends.connection(volume)
            if lies.kind in EXPORTABLE:
                opening = partial(exports.open, volume.name, lies)
                served = await tools.serving.ask(volume.name, opening)
                # The address differs from the former one if no record of the export was left.
                await tools.database.write(attachment_rows.reached, volume.id, served)
        except StillRunning:
            # Nothing else waits for this call. The call is not begun again before it has ended.
            raise BackendSilent(backend) from None
        except (CancelledError, DatabaseUnavailable, BackendSilent, WrongStore):
            raise
        except Exception:
            _log.failure("volume {id} cannot be served again", id=volume.id)
