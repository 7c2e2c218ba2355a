"""Operations of callers on servers: boot them from volumes, show them, terminate them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import uuid4

import attrs
from sqlalchemy import Connection as Db
from twisted.internet.interfaces import IReactorTime

from bootvol.errors import (
    BadMapping,
    FlavorNotFound,
    HypervisorFailed,
    ImageNotFound,
    InvalidRequest,
    KeyPairNotFound,
    MetadataNotFound,
    NoHypervisor,
    NotForGuests,
    NotFound,
    ServerBusy,
    ServerConflict,
    VolumeBusy,
    VolumeElsewhere,
)
from bootvol.interfaces import IConfiguringHypervisor, IHypervisor, IPoweringHypervisor
from bootvol.lifecycle import Event, IllegalTransition, Kind, Status
from bootvol.model import (
    ROOT,
    Attachment,
    Caller,
    Flavor,
    NewDisk,
    NewServer,
    NewVolume,
    PublicKey,
    Server,
    Volume,
)
from bootvol.service.hypervisors import Hypervisors
from bootvol.service.quotas import Quotas, check_metadata
from bootvol.service.server_hosts import with_reason
from bootvol.service.volumes import Prepared, Volumes, Work
from bootvol.store import attachments as attachment_rows
from bootvol.store import keypairs as keypair_rows
from bootvol.store import servers as server_rows
from bootvol.store import states
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

#: Limit of the bytes shown of a console.
LONGEST_CONSOLE: Final = 100_000


class Servers:
    """The servers of all tenants, as seen by a caller.

    :param daemon: name of the daemon whose servers the hypervisor runs.
    :param hypervisor: runs the servers; None if bootvol runs no servers.
    :param flavors: the sizes of servers, by id.
    :param clock: the reactor.
    :param most: how many callers may wait for the hypervisor.
    :param now: returns the current time, as an aware UTC datetime.
    :ivar zone: the availability zone of all servers.
    :ivar configures: whether guests get config drives, with key pairs and user data.
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
        clock: IReactorTime,
        most: int,
        now: Callable[[], datetime],
    ) -> None:
        self.flavors: Mapping[str, Flavor] = {each.id: each for each in flavors}
        self.zone = volumes.zone
        self.configures = hypervisor is not None and IConfiguringHypervisor.providedBy(hypervisor)
        self._database = database
        self._volumes = volumes
        self._daemon = daemon
        self._hypervisor = hypervisor
        self._quotas = quotas
        self._work = work
        self._asked = Hypervisors(clock, most)
        self._now = now

    async def create(self, caller: Caller, wanted: NewServer) -> Server:
        """Add a server in status ``creating``; a worker starts it from its volumes.

        The call reserves all volumes or none.

        :raises NoHypervisor: if bootvol runs no servers.
        :raises FlavorNotFound: if the flavor does not exist.
        :raises BadMapping: if no boot volume is given, or if a volume is not available.
        :raises VolumeElsewhere: if no one host reaches all of the volumes.
        :raises QuotaExceeded: if the tenant's quota is used up.
        """
        self._runs_servers()
        flavor = self.flavors.get(wanted.flavor_id)
        if flavor is None:
            raise FlavorNotFound(wanted.flavor_id)
        if not any(disk.device.removeprefix("/dev/") == ROOT for disk in wanted.disks):
            raise BadMapping("No boot volume or boot image specified")
        if wanted.availability_zone not in (None, self.zone):
            raise InvalidRequest("The requested availability zone is not available")
        check_metadata(wanted.metadata)
        self._check_for_guests(wanted)
        new = {
            place: await self._prepare(caller, disk)
            for place, disk in enumerate(wanted.disks)
            if disk.volume_id is None
        }
        added = await self._database.write(self._add, caller, wanted, flavor, new)
        self._work.wake()
        return added

    async def _prepare(self, caller: Caller, disk: NewDisk) -> Prepared:
        try:
            return await self._volumes.prepare(caller, _new_volume(disk))
        except ImageNotFound:
            raise _not_had(f"image {disk.image_ref}") from None

    def _check_for_guests(self, wanted: NewServer) -> None:
        """Check that the hypervisor can pass the requested settings to guests.

        :raises NotForGuests: if the hypervisor cannot.
        """
        asked = wanted.key_name or wanted.user_data is not None or wanted.config_drive
        if asked and not self.configures:
            raise NotForGuests

    def _add(
        self,
        db: Db,
        caller: Caller,
        wanted: NewServer,
        flavor: Flavor,
        new: Mapping[int, Prepared],
    ) -> Server:
        volume_rows.lock_tenant_quota(db, caller.tenant)
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
            metadata=wanted.metadata,
            key=_public_key(db, caller, wanted.key_name),
            user_data=wanted.user_data,
            config_drive=self.configures,
            request_id=caller.request_id,
        )
        server = server_rows.add(db, server)
        volumes, hosts = [], set[str]()
        for place, disk in enumerate(wanted.disks):
            volume = self._promise(db, caller, disk, new.get(place))
            hosts |= {volume.host} - {""}
            if len(hosts) > 1:
                raise VolumeElsewhere(volume.host)
            volumes.append((volume.id, volume.uuid))
            attachment = Attachment(
                volume.id, str(server.id), disk.device, disk.delete_on_termination
            )
            attachment_rows.add(db, caller.tenant, attachment, server)
        return attrs.evolve(server, volumes=tuple(sorted(volumes)))

    def _promise(self, db: Db, caller: Caller, disk: NewDisk, new: Prepared | None) -> Volume:
        """Reserve the existing volume of a disk, or add a new one; return the volume."""
        if disk.volume_id is None:
            try:
                return self._volumes.add(db, caller, _new_volume(disk), *(new or ()))
            except NotFound:
                raise _not_had(f"snapshot {disk.snapshot_id}") from None
        try:
            volume = volume_rows.get(db, caller.tenant, disk.volume_id, lock=True)
            if attachment_rows.is_promised(db, volume.id):
                raise VolumeBusy
            states.apply_event(db, Kind.VOLUME, volume.id, Event.ATTACH)
        except (NotFound, VolumeBusy, IllegalTransition):
            raise _not_had(f"volume {disk.volume_id}") from None
        return volume

    async def listed(self, caller: Caller) -> Sequence[tuple[Server, bool]]:
        """List the tenant's servers, the newest first, each with a flag whether the server runs.

        :raises NoHypervisor: if bootvol runs no servers.
        :raises HypervisorFailed: if the hypervisor cannot tell which servers run.
        """
        hypervisor = self._runs_servers()

        def query(db: Db) -> Sequence[Server]:
            servers = server_rows.listed(db, caller.tenant)
            return [with_reason(db, each, self._daemon) for each in servers]

        found = await self._database.read(query)
        # Ask the hypervisor last, so that a server that starts meanwhile does not appear turned
        # off.
        running = await self._asked.running(caller, hypervisor)
        return [(server, self._runs(server, running)) for server in found]

    async def get(self, caller: Caller, server_id: str) -> tuple[Server, bool]:
        """Return one server, with a flag whether the server runs.

        :raises NoHypervisor: if bootvol runs no servers.
        :raises ServerNotFound: if the server does not exist or belongs to another tenant.
        :raises HypervisorFailed: if the hypervisor cannot tell which servers run.
        """
        hypervisor = self._runs_servers()
        server = await self._database.read(_get, caller.tenant, server_id, self._daemon)
        return server, self._runs(server, await self._asked.running(caller, hypervisor))

    async def delete(self, caller: Caller, server_id: str) -> None:
        """Request that a server be terminated.

        The server's volumes stay, except those to be deleted on termination.

        :raises NoHypervisor: if bootvol runs no servers.
        :raises ServerNotFound: if the server does not exist or belongs to another tenant.
        :raises ServerBusy: if the server is being terminated already.
        """
        self._runs_servers()
        server = await self._database.write(_mark_deleted, caller.tenant, server_id)
        self._work.stop_making(Kind.SERVER, server.id)
        self._work.wake()

    async def rename(self, caller: Caller, server_id: str, name: str) -> tuple[Server, bool]:
        """Change a server's display name; return the server as :meth:`get` does.

        :raises NoHypervisor: if bootvol runs no servers.
        :raises ServerNotFound: if the server does not exist or belongs to another tenant.
        """
        return await self._change(caller, server_id, lambda _: {"display_name": name})

    async def set_metadata(
        self, caller: Caller, server_id: str, items: Mapping[str, str], *, whole: bool = False
    ) -> Server:
        """Set metadata of a server; return the server.

        :param whole: whether to remove all other items.
        :raises NoHypervisor: if bootvol runs no servers.
        :raises ServerNotFound: if the server does not exist or belongs to another tenant.
        :raises QuotaExceeded: if the server would have more items than allowed.
        """

        def change(server: Server) -> dict[str, object]:
            new = {**({} if whole else server.metadata), **items}
            check_metadata(new)
            return {"metadata": new}

        return (await self._change(caller, server_id, change))[0]

    async def delete_metadata(self, caller: Caller, server_id: str, key: str) -> None:
        """Delete an item of a server's metadata.

        :raises NoHypervisor: if bootvol runs no servers.
        :raises ServerNotFound: if the server does not exist or belongs to another tenant.
        :raises MetadataNotFound: if the server has no such item.
        """

        def change(server: Server) -> dict[str, object]:
            if key not in server.metadata:
                raise MetadataNotFound
            return {"metadata": {k: v for k, v in server.metadata.items() if k != key}}

        await self._change(caller, server_id, change)

    async def _change(
        self, caller: Caller, server_id: str, change: Callable[[Server], Mapping[str, object]]
    ) -> tuple[Server, bool]:
        self._runs_servers()

        def write(db: Db) -> None:
            server = server_rows.get(db, caller.tenant, server_id, lock=True)
            server_rows.change(db, server.id, self._now(), **change(server))

        await self._database.write(write)
        return await self.get(caller, server_id)

    async def power(self, caller: Caller, server_id: str, action: Event) -> None:
        """Request that a server be turned off or on, or be rebooted; a worker does the work.

        :param action: ``STOP``, ``START``, ``REBOOT`` or ``RESET``. ``REBOOT`` asks the guest to
            shut down first. ``RESET`` also works on a server that is turned off.
        :raises NoHypervisor: if bootvol runs no servers, or if the hypervisor cannot turn servers
            off.
        :raises ServerNotFound: if the server does not exist or belongs to another tenant.
        :raises ServerConflict: if the server is in the requested state already, or if another
            action goes on.
        :raises HypervisorFailed: if the hypervisor cannot tell whether the server runs.
        """
        hypervisor = self._runs_servers()
        if not IPoweringHypervisor.providedBy(hypervisor):
            raise NoHypervisor("This service's hypervisor cannot turn servers off or on.")
        running = await self._asked.running(caller, hypervisor)

        def write(db: Db) -> None:
            server = server_rows.get(db, caller.tenant, server_id, lock=True)
            runs = self._runs(server, running)
            if runs == (action is Event.START) and action is not Event.RESET:
                raise ServerConflict(action, server_id, "active" if runs else "stopped")
            try:
                states.apply_event(db, Kind.SERVER, server.id, action)
            except IllegalTransition:
                raise ServerConflict(action, server_id, server.status) from None
            server_rows.change(db, server.id, self._now())

        await self._database.write(write)
        self._work.wake()

    async def console(self, caller: Caller, server_id: str, length: int | None) -> str:
        """Return the last lines that a server has written to its serial console.

        :param length: number of lines; None for all stored lines.
        :raises NoHypervisor: if bootvol runs no servers.
        :raises ServerNotFound: if the server does not exist or belongs to another tenant.
        :raises HypervisorFailed: if the console cannot be read here.
        """
        hypervisor = self._runs_servers()
        server = await self._database.read(server_rows.get, caller.tenant, server_id)
        if self._is_elsewhere(server):
            raise HypervisorFailed(
                "Another daemon runs the server, and only that daemon can read the console."
            )
        written = await self._asked.console(caller, hypervisor, server.name, LONGEST_CONSOLE)
        lines = written.decode("utf-8", "replace").splitlines(keepends=True)
        return "".join(lines[-length:] if length else lines)

    def _runs(self, server: Server, running: Collection[str]) -> bool:
        """Tell whether a server runs; a server of another daemon counts as running."""
        return server.name in running or self._is_elsewhere(server)

    def _is_elsewhere(self, server: Server) -> bool:
        return server.daemon not in (None, self._daemon)

    def _runs_servers(self) -> IHypervisor:
        if self._hypervisor is None:
            raise NoHypervisor
        return self._hypervisor


def _get(db: Db, tenant: str, server_id: str, own: str) -> Server:
    return with_reason(db, server_rows.get(db, tenant, server_id), own)


def _new_volume(disk: NewDisk) -> NewVolume:
    """Return the request for a disk's volume that is made for its server."""
    return NewVolume(
        disk.size_gib,
        image_ref=disk.image_ref,
        snapshot_id=disk.snapshot_id,
        volume_type=disk.volume_type,
    )


def _public_key(db: Db, caller: Caller, name: str | None) -> PublicKey | None:
    """Return the public key for a server's guest.

    :raises InvalidRequest: if the caller has no key pair of that name.
    """
    if name is None:
        return None
    try:
        pair = keypair_rows.get(db, caller.tenant, caller.user, name)
    except KeyPairNotFound:
        raise InvalidRequest("Invalid key_name provided.") from None
    return PublicKey(pair.name, pair.public_key)


def _not_had(what: str) -> BadMapping:
    # Folsom's text (specification, section 5.9).
    return BadMapping(f"Block Device Mapping is Invalid: failed to get {what}.")


def _mark_deleted(db: Db, tenant: str, server_id: str) -> Server:
    server = server_rows.get(db, tenant, server_id, lock=True)
    try:
        states.apply_event(db, Kind.SERVER, server.id, Event.DELETE)
    except IllegalTransition:
        raise ServerBusy("The server is being terminated") from None
    return server
