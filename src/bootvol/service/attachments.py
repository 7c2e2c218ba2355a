"""Operations of callers on attachments: volumes as disks of servers.

If a hypervisor is configured, bootvol runs the servers itself. Otherwise other systems run the
servers: bootvol then keeps the records, exports the volume if so configured, and trusts the server
ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection as Db

from bootvol.errors import ServerBusy, ServerNotFound, VolumeBusy, VolumeElsewhere
from bootvol.lifecycle import Event, IllegalTransition, Kind, Status
from bootvol.model import ROOT, Attachment, Caller, Server
from bootvol.service.volumes import Work
from bootvol.store import attachments as attachment_rows
from bootvol.store import daemons, states
from bootvol.store import servers as server_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

#: Limit of the length of a foreign server's id: the width of the database column.
_LONGEST_ID: Final = 64


class Attachments:
    """The attachments of all tenants, as seen by a caller.

    :param hosts: whether bootvol runs the servers itself.
    """

    def __init__(self, database: Database, hosts: bool, work: Work) -> None:
        self._database = database
        self._hosts = hosts
        self._work = work

    async def create(
        self, caller: Caller, server_id: str, volume_id: int, device: str | None
    ) -> Attachment:
        """Request that a volume be attached; a worker does the rest.

        :param device: device name on the server; None for the next free name.
        :raises ServerNotFound: if the server does not exist.
        :raises ServerBusy: if the server is not active.
        :raises VolumeNotFound: if the volume does not exist.
        :raises VolumeBusy: if the volume is not available.
        :raises VolumeElsewhere: if another host than the server's alone reaches the volume.
        :raises InvalidDevice: if the name is not the name of a disk.
        :raises DeviceInUse: if the server has a disk of that name.
        """
        added = await self._database.write(self._add, caller, server_id, volume_id, device or "")
        self._work.wake()
        return added

    def _add(
        self, db: Db, caller: Caller, server_id: str, volume_id: int, device: str
    ) -> Attachment:
        volume_rows.lock_tenant_quota(db, caller.tenant)
        server = self._server(db, caller, server_id, lock=True)
        _check_active(server)
        volume = volume_rows.get(db, caller.tenant, volume_id, lock=True)
        if attachment_rows.is_promised(db, volume.id):
            raise VolumeBusy("Volume status must be available")
        try:
            states.apply_event(db, Kind.VOLUME, volume.id, Event.ATTACH)
        except IllegalTransition:
            raise VolumeBusy("Volume status must be available") from None
        if server is not None and volume.host:
            host = daemons.host_of(db, server.daemon)
            if host not in (None, volume.host):
                raise VolumeElsewhere(volume.host)
        wanted = Attachment(volume.id, _called(server, server_id), device, volume_uuid=volume.uuid)
        return attachment_rows.add(db, caller.tenant, wanted, server)

    async def listed(
        self, caller: Caller, server_id: str, *, limit: int | None = None, offset: int = 0
    ) -> Sequence[Attachment]:
        """List the attachments of a server, ascending by volume.

        :raises ServerNotFound: if the server does not exist.
        """

        def query(db: Db) -> Sequence[Attachment]:
            known = _called(self._server(db, caller, server_id), server_id)
            return attachment_rows.listed(db, caller.tenant, known, limit=limit, offset=offset)

        return await self._database.read(query)

    async def get(self, caller: Caller, server_id: str, volume_id: int) -> Attachment:
        """Return an attachment.

        :raises ServerNotFound: if the server does not exist.
        :raises AttachmentNotFound: if the volume is not attached to the server.
        """

        def query(db: Db) -> Attachment:
            known = _called(self._server(db, caller, server_id), server_id)
            return attachment_rows.get(db, caller.tenant, known, volume_id)

        return await self._database.read(query)

    async def delete(self, caller: Caller, server_id: str, volume_id: int) -> None:
        """Request that a volume be detached; the volume stays in use until known to be free.

        :raises ServerNotFound: if the server does not exist.
        :raises ServerBusy: if the server is not active.
        :raises VolumeNotFound: if the volume does not exist.
        :raises AttachmentNotFound: if the volume is not attached to that server.
        :raises VolumeBusy: if the volume is not in use, or if the server runs from the volume.
        """
        await self._database.write(self._mark, caller, server_id, volume_id)
        self._work.wake()

    def _mark(self, db: Db, caller: Caller, server_id: str, volume_id: int) -> None:
        server = self._server(db, caller, server_id, lock=True)
        _check_active(server)
        # Lock the volume first: without the lock the volume may become another server's.
        volume_rows.get(db, caller.tenant, volume_id, lock=True)
        known = _called(server, server_id)
        attachment = attachment_rows.get(db, caller.tenant, known, volume_id)
        if server is not None and attachment.disk == ROOT:
            raise VolumeBusy("The server runs from this volume: terminate the server first")
        try:
            states.apply_event(db, Kind.VOLUME, volume_id, Event.DETACH)
        except IllegalTransition:
            raise VolumeBusy("Volume status must be in-use") from None

    def _server(
        self, db: Db, caller: Caller, server_id: str, *, lock: bool = False
    ) -> Server | None:
        """Return a server of bootvol's; None if other systems run the servers.

        :raises ServerNotFound: if the server does not exist, or if no server can have that id.
        """
        if self._hosts:
            return server_rows.get(db, caller.tenant, server_id, lock=lock)
        if len(server_id) > _LONGEST_ID:
            raise ServerNotFound(server_id)
        return None


def _check_active(server: Server | None) -> None:
    """Check that a server's disks may change.

    The disks do not change until the server is active, nor when the server ends.

    :raises ServerBusy: if the disks may not change now.
    """
    if server is not None and server.status is not Status.AVAILABLE:
        raise ServerBusy


def _called(server: Server | None, server_id: str) -> str:
    """Return the server's id in the rows of attachments."""
    return str(server.id) if server else server_id
