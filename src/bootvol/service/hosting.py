"""Tasks that start servers on their volumes, turn them off and on, and end them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection as Db

from bootvol.errors import BackendFailed, ErrorReport, HypervisorFailed
from bootvol.interfaces import IHypervisor, IPoweringHypervisor
from bootvol.lifecycle import HELD, POWERING, Event, Kind, Status
from bootvol.model import Attachment, Disk, Machine, Server, Volume
from bootvol.service import config_drive
from bootvol.service.attaching import cut_off, hypervisor, reach
from bootvol.service.held import Held
from bootvol.service.tasks import Task, Tools
from bootvol.store import attachments as attachment_rows
from bootvol.store import servers as server_rows
from bootvol.store import states

Disks = Sequence[tuple[Volume, Attachment]]


class _Hosting(Task):
    kind = Kind.SERVER

    def __init__(self, server: Server, tools: Tools) -> None:
        super().__init__(server.id, tools, server.tenant)
        self.server = server

    async def machine(self, claim: Held, found: Disks) -> Machine:
        """Return what the server is made of, with its volumes served."""
        disks = [
            Disk(attachment.disk, await reach(self.tools, claim, volume))
            for volume, attachment in found
        ]
        server = self.server
        files = config_drive.files(server, self.tools.zone) if server.config_drive else {}
        return Machine(server.memory_mib, server.cpus, tuple(disks), files)

    async def end(self, disks: Disks) -> None:
        """End the server, and let nobody reach its volumes; idempotent.

        :raises bootvol.errors.HypervisorFailed: it may still run.
        :raises bootvol.errors.ExportFailed: somebody may still reach a volume.
        """
        await hypervisor(self.tools).stop(self.server.name)
        for volume, _ in disks:
            await cut_off(self.tools, volume)


class BuildServer(_Hosting):
    """Starts a server once its volumes are there."""

    statuses = frozenset({Status.CREATING})
    #: Whether it is known that nothing of the server runs, after a failure.
    _ended = False

    def __init__(self, server: Server, tools: Tools) -> None:
        super().__init__(server, tools)
        self.request_id = server.request_id

    async def work(self, claim: Held) -> Event:
        """Serve the volumes, and start it."""
        found = await claim.note(_begin, self.id, self.tools.daemon)
        for volume, _ in found:
            if volume.status is not Status.ATTACHING:
                raise BackendFailed(f"Volume {volume.id} could not be made: it is {volume.status}.")
        machine = await self.machine(claim, found)
        await hypervisor(self.tools).start(self.server.name, machine)
        return Event.COMPLETE

    async def undo(self) -> Event:
        """End what may have been started, so that the volumes are free."""
        disks = await self.tools.database.read(attachment_rows.disks, self.id)
        await self.end(disks)
        self._ended = True
        return Event.FAIL

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """The volumes are in use now, or, if the server is known to have ended, free."""
        super().settle(db, event, error)
        for volume, _ in attachment_rows.disks(db, self.id):
            if volume.status is Status.ATTACHING:
                moved = Event.DETACHED if self._ended else Event.ATTACHED
                states.happen(db, Kind.VOLUME, volume.id, moved)
            if self._ended:
                attachment_rows.remove(db, volume.id)


def _begin(db: Db, server_id: int, daemon: str) -> Disks:
    """Note whose the server is from now on; return its volumes, as they are by then."""
    server_rows.take(db, server_id, daemon)
    for volume, _ in attachment_rows.disks(db, server_id):
        attachment_rows.take(db, volume.id, daemon)
        if volume.status is Status.AVAILABLE:
            # It has been made for this server, and nobody else could have it.
            states.happen(db, Kind.VOLUME, volume.id, Event.ATTACH)
    return attachment_rows.disks(db, server_id)


class EndServer(_Hosting):
    """Ends a server; its volumes stay, but for those that were to go with it."""

    statuses = frozenset({Status.DELETING})

    async def work(self, claim: Held) -> Event:
        """End it."""
        await self.end(await self.tools.database.read(attachment_rows.disks, self.id))
        return Event.VANISH

    def settle(self, db: Db, event: Event, error: ErrorReport | None) -> None:
        """The volumes are free when the server has ended."""
        if event is Event.VANISH:
            for volume, attachment in attachment_rows.disks(db, self.id):
                attachment_rows.remove(db, volume.id)
                if volume.status in HELD:
                    states.happen(db, Kind.VOLUME, volume.id, Event.DETACHED)
                if attachment.delete_on_termination and volume.status is not Status.DELETING:
                    states.happen(db, Kind.VOLUME, volume.id, Event.DELETE)
        super().settle(db, event, error)


class PowerServer(_Hosting):
    """Turns a server off, on, or off and on again; its volumes stay its own."""

    statuses = POWERING

    async def work(self, claim: Held) -> Event:
        """Do it."""
        server, status = self.server.name, self.server.status
        if status is not Status.STARTING:
            await _powering(self.tools).power_off(server, status is not Status.RESETTING)
        if status is not Status.STOPPING:
            found = await self.tools.database.read(attachment_rows.disks, self.id)
            plugged = [each for each in found if each[0].status in HELD]
            await hypervisor(self.tools).start(server, await self.machine(claim, plugged))
        return Event.POWERED

    async def undo(self) -> Event:
        """Whether it runs is asked of the hypervisor; the reason is kept with the server."""
        return Event.POWERED


def _powering(tools: Tools) -> IPoweringHypervisor:
    """Return the hypervisor, which can turn servers off.

    :raises HypervisorFailed: it cannot.
    """
    found: IHypervisor = hypervisor(tools)
    if not IPoweringHypervisor.providedBy(found):
        raise HypervisorFailed("The hypervisor turns no servers off.")
    return IPoweringHypervisor(found)
