"""Exports after a restart of the daemon, or of its machine."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from bootvol.errors import BootvolError, DatabaseUnavailable
from bootvol.lifecycle import Status
from bootvol.service.attaching import EXPORTABLE
from bootvol.service.tasks import Tools
from bootvol.store import attachments as attachment_rows

_log = Logger()


async def restore(tools: Tools) -> None:
    """Serve what is attached, and nothing else; while no task attaches or detaches anything.

    What is on its way to or from a server is left to the task that moves it.  A failure concerns
    one volume only.
    """
    if tools.exports is None:
        return
    attached = await tools.database.read(attachment_rows.served, tools.daemon)
    for volume in attached:
        if volume.status is Status.IN_USE:
            try:
                lies = await tools.backends.connection(volume)
                if lies.kind in EXPORTABLE:
                    served = await tools.exports.open(volume.name, lies)
                    # Another address than it was, if nothing was known of it any more.
                    await tools.database.write(attachment_rows.reached, volume.id, served)
            except (CancelledError, DatabaseUnavailable):
                raise
            except Exception:
                _log.failure("volume {id} cannot be served again", id=volume.id)
    for name in set(await tools.exports.names()).difference(volume.name for volume in attached):
        try:
            await tools.exports.close(name)
        except BootvolError:
            _log.failure("{name} is served still", name=name)
