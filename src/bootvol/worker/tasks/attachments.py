"""Tasks that attach volumes to servers and detach them.

A volume that may still be in use never counts as free. If detaching fails, the volume stays
``in-use``, with the reason, until a later detach succeeds (CVE-2023-2088).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from sqlalchemy import Connection as Db
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from bootvol.backends import Backends
from bootvol.errors import (
    BackendGone,
    BootvolError,
    DatabaseUnavailable,
    ErrorReport,
    ExportFailed,
    NoHypervisor,
    VolumeMissing,
)
from bootvol.exports.exports import Exports
from bootvol.interfaces import IHypervisor
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Attachment, ConnectionInfo, Disk, Server, Volume
from bootvol.store import attachments as attachment_rows
from bootvol.store import servers as server_rows
from bootvol.store.database import Database
from bootvol.worker.claims import Claim
from bootvol.worker.tasks.task import Task

#: Kinds of connections that can be exported. Hypervisors reach volumes of other kinds from
#: anywhere.
EXPORTABLE: Final = frozenset({"file", "block"})


class VolumeAccess:
    """Makes volumes reachable for hypervisors, and ends that.

    :param exports: None if hypervisors open volumes directly.
    """

    def __init__(self, database: Database, backends: Backends, exports: Exports | None) -> None:
        self._database = database
        self._backends = backends
        self._exports = exports
        self.exports = exports is not None

    async def open(self, claim: Claim, volume: Volume) -> ConnectionInfo:
        """Return how hypervisors reach a volume; export the volume first if so configured.

        :raises bootvol.errors.BackendFailed: if the volume does not exist.
        :raises bootvol.errors.ExportFailed: if the volume cannot be exported.
        """
        lies = await self._backends.connection(volume)
        if self._exports is None or lies.kind not in EXPORTABLE:
            return lies
        served = await self._exports.open(volume.name, lies)
        await claim.in_transaction(attachment_rows.reached, volume.id, served)
        return served

    async def close(self, volume: Volume) -> None:
        """Ensure that nobody can reach a volume any more; idempotent.

        :raises ExportFailed: if the volume may still be reachable.
        """
        if self._exports is not None:
            await self._exports.close(volume.name)
        elif await self._database.read(attachment_rows.reach, volume.id) is not None:
            raise ExportFailed(
                "The volume is still exported, from a time when the configuration had [exports]:"
                " restore [exports]."
            )

    async def is_open(self, volume: Volume) -> bool:
        """Tell whether an export has the volume open."""
        return self._exports is not None and volume.name in await self._exports.names()

    async def check_unused(self, volume: Volume) -> None:
        """Check that nobody has a volume open: see :meth:`.Backends.check_unused`."""
        await self._backends.check_unused(volume.backend, volume.name)

    async def check_let_go(self, volume: Volume) -> None:
        """Check that a hypervisor has let go of an unplugged volume, as far as can be told.

        A guest in control of the hypervisor's process could say so, and keep the volume open.

        :raises bootvol.errors.VolumeInUse: if somebody has the volume open.
        :raises bootvol.errors.BackendFailed: if the check fails.
        """
        # The end of an export ends all access.
        if self._exports is None:
            # Nobody reaches a volume that is gone, or whose backend is gone, a second time.
            with suppress(VolumeMissing, BackendGone):
                await self._backends.check_closed(volume.backend, volume.name)


def required(hypervisor: IHypervisor | None) -> IHypervisor:
    """Return the hypervisor.

    :raises NoHypervisor: if no hypervisor is configured any more.
    """
    if hypervisor is None:
        raise NoHypervisor
    return hypervisor


class _Moving(Task):
    _log = Logger()
    kind = Kind.VOLUME

    def __init__(
        self, volume: Volume, access: VolumeAccess, hypervisor: IHypervisor | None, daemon: str
    ) -> None:
        super().__init__(volume.id, volume.tenant)
        self.volume = volume
        self.access = access
        self.hypervisor = hypervisor
        self._daemon = daemon

    @property
    def backend(self) -> str:
        """The volume's backend."""
        return self.volume.backend

    async def begin(self, claim: Claim) -> tuple[Attachment, Server | None]:
        """Record which daemon owns the attachment from now on, if any.

        :returns: the attachment; and its server, or None if other systems run the server.
        """
        ours = self.access.exports or self.hypervisor is not None
        return await claim.in_transaction(_begin, self.id, self._daemon, ours)

    async def unplug(self, attachment: Attachment, server: Server | None) -> None:
        """Unplug the volume from its server, and end its export; idempotent.

        :raises bootvol.errors.HypervisorFailed: if the server may still have the volume.
        :raises bootvol.errors.ExportFailed: if the volume may still be reachable.
        :raises bootvol.errors.BackendFailed: if the server still has the volume open, or if the
            backend cannot tell.
        """
        if server is not None:
            await required(self.hypervisor).detach(server.name, attachment.disk)
        await self.access.close(self.volume)
        if server is not None:
            # The check may wait for a program to end.
            await self.lane_place.rest(self.access.check_let_go(self.volume))

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """Record the event; remove the attachment if the volume is free again."""
        super().settle(db, event, error)
        if event is Event.DETACHED:
            attachment_rows.remove(db, self.id)


def _begin(db: Db, volume_id: int, daemon: str, ours: bool) -> tuple[Attachment, Server | None]:
    # An exported volume is ours even if the configuration has no exports any more.
    ours = ours or attachment_rows.reach(db, volume_id) is not None
    attachment = attachment_rows.assign(db, volume_id, daemon if ours else None)
    return attachment, server_rows.having(db, volume_id)


class Attach(_Moving):
    """Attaches a volume."""

    statuses = frozenset({Status.ATTACHING})
    _begun: tuple[Attachment, Server | None] | None = None

    async def work(self, claim: Claim) -> Event:
        """Export the volume, and plug it in."""
        self._begun = attachment, server = await self.begin(claim)
        if server is None and not await self.access.is_open(self.volume):
            # A configured hypervisor opens no volume twice.
            # The check may wait for a program to end.
            await self.lane_place.rest(self.access.check_unused(self.volume))
        connection = await self.access.open(claim, self.volume)
        if server is not None and server.name in await required(self.hypervisor).running():
            disk = Disk(attachment.disk, connection)
            await required(self.hypervisor).attach(server.name, disk)
        # A server that is turned off gets the disk when the server is turned on.
        return Event.ATTACHED

    async def undo(self) -> Event:
        """Detach the volume again; if that fails, too, the volume counts as in use."""
        try:
            if self._begun is not None:
                await self.unplug(*self._begun)
        except (CancelledError, DatabaseUnavailable):
            raise
        except BootvolError as error:
            self._log.error("volume {id} is half attached: {error}", id=self.id, error=error)
            return Event.ATTACHED
        except Exception:
            self._log.failure("volume {id} is half attached", id=self.id)
            return Event.ATTACHED
        return Event.DETACHED


class Detach(_Moving):
    """Detaches a volume."""

    statuses = frozenset({Status.DETACHING})

    async def work(self, claim: Claim) -> Event:
        """Unplug the volume, and end its export."""
        await self.unplug(*await self.begin(claim))
        return Event.DETACHED

    async def undo(self) -> Event:
        """Return the event for an unchanged volume, which is still in use."""
        return Event.ATTACHED
