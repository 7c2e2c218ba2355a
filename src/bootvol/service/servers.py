"""What callers may do with servers: boot them from volumes, see them, terminate them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import uuid4

from sqlalchemy import Connection as Db

from bootvol.errors import (
    BadMapping,
    FlavorNotFound,
    HypervisorFailed,
    NoHypervisor,
    NotFound,
    ServerBusy,
    VolumeBusy,
)
from bootvol.interfaces import IHypervisor
from bootvol.lifecycle import Event, IllegalTransition, Kind, Status
from bootvol.model import (
    ROOT,
    Attachment,
    Caller,
    Flavor,
    NewDisk,
    NewServer,
    NewVolume,
    Server,
)
from bootvol.service.quotas import Quotas
from bootvol.service.volumes import Volumes, Work
from bootvol.store import attachments as attachment_rows
from bootvol.store import servers as server_rows
from bootvol.store import states
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

#: The most that is shown of a console, in bytes.
LONGEST_CONSOLE: Final = 100_000


class Servers:
    """The servers of all tenants, seen through the eyes of a caller.

    :param daemon: the one whose servers the hypervisor runs.
    :param hypervisor: what runs them; None where nothing does.
    :param flavors: how large they may be, by id.
    :param now: the time, as an aware UTC datetime.
    """

    def __init__(
        self,
        database: Database,
        volumes: Volumes,
        daemon: str,
        hypervisor: IHypervisor | None,
        flavors: Sequence[Flavor],
        quotas: Quotas,
        work: Work,
        now: Callable[[], datetime],
    ) -> None:
        self.flavors: Mapping[str, Flavor] = {each.id: each for each in flavors}
        self._database = database
        self._volumes = volumes
        self._daemon = daemon
        self._hypervisor = hypervisor
        self._quotas = quotas
        self._work = work
        self._now = now

    async def create(self, caller: Caller, wanted: NewServer) -> Server:
        """Add a server in status ``creating``; a worker starts it from its volumes.

        All of it or nothing: where one volume cannot be had, none is taken.

        :raises NoHypervisor: bootvol runs no servers.
        :raises FlavorNotFound: there is no such flavor.
        :raises BadMapping: there is no volume to boot from, or one that cannot be had.
        :raises QuotaExceeded: the tenant has used what it may.
        """
        self._runs_servers()
        flavor = self.flavors.get(wanted.flavor_id)
        if flavor is None:
            raise FlavorNotFound(wanted.flavor_id)
        if not any(disk.device.removeprefix("/dev/") == ROOT for disk in wanted.disks):
            raise BadMapping("No boot volume or boot image specified")
        added = await self._database.write(self._add, caller, wanted, flavor)
        self._work.wake()
        return added

    def _add(self, db: Db, caller: Caller, wanted: NewServer, flavor: Flavor) -> Server:
        volume_rows.take_turns(db, caller.tenant)
        self._quotas.of(db, caller.tenant).check_instances(server_rows.count(db, caller.tenant))
        server = Server(
            id=0,
            name=f"server-{uuid4()}",
            uuid=str(uuid4()),
            tenant=caller.tenant,
            user=caller.user,
            status=Status.CREATING,
            created_at=self._now(),
            display_name=wanted.display_name,
            flavor_id=flavor.id,
            memory_mib=flavor.ram_mib,
            cpus=flavor.cpus,
        )
        server = server_rows.add(db, server)
        for disk in wanted.disks:
            volume_id = self._promise(db, caller, disk)
            attachment = Attachment(
                volume_id, str(server.id), disk.device, disk.delete_on_termination
            )
            attachment_rows.add(db, caller.tenant, attachment, server)
        return server

    def _promise(self, db: Db, caller: Caller, disk: NewDisk) -> int:
        """See to it that the volume for a disk is there, or will be; return its id."""
        if disk.volume_id is None:
            snapshot = NewVolume(disk.size_gib, snapshot_id=disk.snapshot_id)
            try:
                return self._volumes.add(db, caller, snapshot).id
            except NotFound:
                raise _not_had(f"snapshot {disk.snapshot_id}") from None
        try:
            volume = volume_rows.get(db, caller.tenant, disk.volume_id, lock=True)
            if attachment_rows.is_promised(db, volume.id):
                raise VolumeBusy
            states.happen(db, Kind.VOLUME, volume.id, Event.ATTACH)
        except (NotFound, VolumeBusy, IllegalTransition):
            raise _not_had(f"volume {disk.volume_id}") from None
        return volume.id

    async def listed(
        self, caller: Caller, *, limit: int | None = None, offset: int = 0
    ) -> Sequence[tuple[Server, bool]]:
        """List the tenant's servers, the newest first, each with whether it runs.

        :raises NoHypervisor: bootvol runs no servers.
        """
        hypervisor = self._runs_servers()
        found = (await self._database.read(server_rows.listed, caller.tenant))[offset:]
        found = found if limit is None else found[:limit]
        # Asked last: one that comes up meanwhile is not taken for turned off.
        running = frozenset(await hypervisor.running())
        return [(server, self._runs(server, running)) for server in found]

    async def get(self, caller: Caller, server_id: str) -> tuple[Server, bool]:
        """Return one server, with whether it runs.

        :raises NoHypervisor: bootvol runs no servers.
        :raises ServerNotFound: there is none, or it is another tenant's.
        """
        hypervisor = self._runs_servers()
        server = await self._database.read(server_rows.get, caller.tenant, server_id)
        return server, self._runs(server, await hypervisor.running())

    async def delete(self, caller: Caller, server_id: str) -> None:
        """Let a server be terminated; its volumes stay unless they were to go with it.

        :raises NoHypervisor: bootvol runs no servers.
        :raises ServerNotFound: there is none, or it is another tenant's.
        :raises ServerBusy: that goes on already.
        """
        self._runs_servers()
        server = await self._database.write(_mark_deleted, caller.tenant, server_id)
        self._work.stop_making(Kind.SERVER, server.id)
        self._work.wake()

    async def console(self, caller: Caller, server_id: str, length: int | None) -> str:
        """Return the last lines that a server has written to its serial console.

        :param length: how many lines; None is all that is kept.
        :raises NoHypervisor: bootvol runs no servers.
        :raises ServerNotFound: there is none, or it is another tenant's.
        :raises HypervisorFailed: it cannot be read here.
        """
        hypervisor = self._runs_servers()
        server = await self._database.read(server_rows.get, caller.tenant, server_id)
        if self._is_elsewhere(server):
            raise HypervisorFailed("Another daemon runs the server, and has its console.")
        written = await hypervisor.console(server.name, LONGEST_CONSOLE)
        lines = written.decode("utf-8", "replace").splitlines(keepends=True)
        return "".join(lines[-length:] if length else lines)

    def _runs(self, server: Server, running: Collection[str]) -> bool:
        """Tell whether a server runs, as far as is known: of another daemon's nothing else is."""
        return server.name in running or self._is_elsewhere(server)

    def _is_elsewhere(self, server: Server) -> bool:
        return server.daemon not in (None, self._daemon)

    def _runs_servers(self) -> IHypervisor:
        if self._hypervisor is None:
            raise NoHypervisor
        return self._hypervisor


def _not_had(what: str) -> BadMapping:
    # Folsom's text (reference, section 5.9).
    return BadMapping(f"Block Device Mapping is Invalid: failed to get {what}.")


def _mark_deleted(db: Db, tenant: str, server_id: str) -> Server:
    server = server_rows.get(db, tenant, server_id, lock=True)
    try:
        states.happen(db, Kind.SERVER, server.id, Event.DELETE)
    except IllegalTransition:
        raise ServerBusy("The server is being terminated") from None
    return server
