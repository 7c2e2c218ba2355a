"""Tasks that start servers from their volumes, turn them off and on, and end them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection as Db

from bootvol.errors import BackendFailed, ErrorReport, HypervisorFailed
from bootvol.interfaces import IHypervisor, IPoweringHypervisor
from bootvol.lifecycle import HELD, POWERING, Event, Kind, Status
from bootvol.model import Attachment, Disk, Machine, Server, Volume
from bootvol.store import attachments as attachment_rows
from bootvol.store import servers as server_rows
from bootvol.store import states
from bootvol.store.database import Database
from bootvol.worker.claims import Claim
from bootvol.worker.tasks import config_drive
from bootvol.worker.tasks.attachments import VolumeAccess, required
from bootvol.worker.tasks.task import Task

Disks = Sequence[tuple[Volume, Attachment]]


class _Hosting(Task):
    kind = Kind.SERVER

    def __init__(
        self,
        server: Server,
        access: VolumeAccess,
        hypervisor: IHypervisor | None,
        database: Database,
        zone: str,
    ) -> None:
        super().__init__(server.id, server.tenant)
        self.server = server
        self.access = access
        self.hypervisor = hypervisor
        self.database = database
        self._zone = zone

    async def machine(self, claim: Claim, found: Disks) -> Machine:
        """Export the volumes, and return the machine of the server."""
        disks = [
            Disk(attachment.disk, await self.access.open(claim, volume))
            for volume, attachment in found
        ]
        server = self.server
        files = config_drive.files(server, self._zone) if server.config_drive else {}
        return Machine(server.memory_mib, server.cpus, tuple(disks), files)

    async def end(self, disks: Disks) -> None:
        """End the server, and ensure that nobody can reach its volumes; idempotent.

        :raises bootvol.errors.HypervisorFailed: if the server may still run.
        :raises bootvol.errors.ExportFailed: if a volume may still be reachable.
        """
        await required(self.hypervisor).stop(self.server.name)
        for volume, _ in disks:
            await self.access.close(volume)


class BuildServer(_Hosting):
    """Starts a server once its volumes exist."""

    statuses = frozenset({Status.CREATING})
    #: Whether the server is known not to run after a failure.
    _ended = False

    def __init__(
        self,
        server: Server,
        access: VolumeAccess,
        hypervisor: IHypervisor | None,
        database: Database,
        zone: str,
        daemon: str,
    ) -> None:
        super().__init__(server, access, hypervisor, database, zone)
        self._daemon = daemon
        self.request_id = server.request_id

    async def work(self, claim: Claim) -> Event:
        """Export the volumes, and start the server."""
        found = await claim.in_transaction(_begin, self.id, self._daemon)
        for volume, _ in found:
            if volume.status is not Status.ATTACHING:
                raise BackendFailed(
                    f"Volume {volume.id} could not be created: its status is {volume.status}."
                )
        machine = await self.machine(claim, found)
        await required(self.hypervisor).start(self.server.name, machine)
        return Event.COMPLETE

    async def undo(self) -> Event:
        """End the server if it may have been started, so that its volumes are free."""
        disks = await self.database.read(attachment_rows.disks, self.id)
        await self.end(disks)
        self._ended = True
        return Event.FAIL

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """Record the event; mark the volumes as in use, or as free if the server has ended."""
        super().settle(db, event, error)
        for volume, _ in attachment_rows.disks(db, self.id):
            if volume.status is Status.ATTACHING:
                moved = Event.DETACHED if self._ended else Event.ATTACHED
                states.apply_event(db, Kind.VOLUME, volume.id, moved)
            if self._ended:
                attachment_rows.remove(db, volume.id)


def _begin(db: Db, server_id: int, daemon: str) -> Disks:
    """Record this daemon as the owner of the server; return the server's current volumes."""
    server_rows.assign(db, server_id, daemon)
    for volume, _ in attachment_rows.disks(db, server_id):
        attachment_rows.assign(db, volume.id, daemon)
        if volume.status is Status.AVAILABLE:
            # The volume was made for this server, and no other server could get it.
            states.apply_event(db, Kind.VOLUME, volume.id, Event.ATTACH)
    return attachment_rows.disks(db, server_id)


class EndServer(_Hosting):
    """Ends a server; its volumes stay, except those to be deleted on termination."""

    statuses = frozenset({Status.DELETING})

    async def work(self, claim: Claim) -> Event:
        """End the server."""
        await self.end(await self.database.read(attachment_rows.disks, self.id))
        return Event.VANISH

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """Record the event; free the volumes if the server has ended."""
        if event is Event.VANISH:
            for volume, attachment in attachment_rows.disks(db, self.id):
                attachment_rows.remove(db, volume.id)
                if volume.status in HELD:
                    states.apply_event(db, Kind.VOLUME, volume.id, Event.DETACHED)
                if attachment.delete_on_termination and volume.status is not Status.DELETING:
                    states.apply_event(db, Kind.VOLUME, volume.id, Event.DELETE)
        super().settle(db, event, error)


class PowerServer(_Hosting):
    """Turns a server off, on, or off and on again; its volumes stay attached."""

    statuses = POWERING

    async def work(self, claim: Claim) -> Event:
        """Do the action that the status asks for."""
        server, status = self.server.name, self.server.status
        if status is not Status.STARTING:
            await _powering(self.hypervisor).power_off(server, status is not Status.RESETTING)
        if status is not Status.STOPPING:
            found = await self.database.read(attachment_rows.disks, self.id)
            plugged = [each for each in found if each[0].status in HELD]
            await required(self.hypervisor).start(server, await self.machine(claim, plugged))
        return Event.POWERED

    async def undo(self) -> Event:
        """Return the same event as after a success.

        The hypervisor tells whether the server runs. The reason is kept with the server.
        """
        return Event.POWERED


def _powering(hypervisor: IHypervisor | None) -> IPoweringHypervisor:
    """Return the hypervisor if it can turn servers off.

    :raises HypervisorFailed: if the hypervisor cannot.
    """
    found = required(hypervisor)
    if not IPoweringHypervisor.providedBy(found):
        raise HypervisorFailed("The hypervisor cannot turn servers off.")
    return IPoweringHypervisor(found)
