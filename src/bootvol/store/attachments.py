"""Rows of attachments: each makes one volume a disk of one server, now or soon.

A volume has at most one attachment, and none if other systems hold the volume (:mod:`.holds`).
With an attachment, the volume is being attached, in use, being detached, or promised to a server
under construction.  Nothing else may be done to the volume meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs
from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from bootvol.errors import AttachmentNotFound, DeviceInUse, InvalidDevice
from bootvol.lifecycle import HELD, Status
from bootvol.model import ROOT, Attachment, ConnectionInfo, Server, Volume
from bootvol.store import holds
from bootvol.store.schema import attachments, servers, volumes
from bootvol.store.volumes import of_row

#: Nova's pattern of Folsom (specification, section 5.8), and the bare name of a root volume.
_DEVICE: Final = re.compile(r"(/dev/)?(xvd|[a-z]d)[a-z]+[0-9]*")
#: Device names for callers that name none.  A server boots from vda.
_FREE: Final = [f"vd{letter}" for letter in "bcdefghijklmnopqrstuvwxyz"]


def add(
    connection: Connection,
    tenant: str,
    attachment: Attachment,
    server: Server | None,
) -> Attachment:
    """Insert an attachment.  Return the attachment with its device.

    Call :func:`bootvol.store.volumes.lock_tenant_quota` before this function.

    :param attachment: the new attachment; an empty device stands for the next free one.
    :param server: the server of the attachment, if bootvol runs the server.
    :raises InvalidDevice: if the device has no valid name.
    :raises DeviceInUse: if the server has a disk of this name, or no device name is free.
    """
    query = select(attachments.c.disk).where(
        attachments.c.tenant == tenant, attachments.c.server_id == attachment.server_id
    )
    taken = set(connection.scalars(query))
    device = attachment.device
    if not device:
        free = next((name for name in _FREE if name not in taken), None)
        if free is None:
            raise DeviceInUse("any")
        device = f"/dev/{free}"
    if len(device) > 32 or not _DEVICE.fullmatch(device):
        raise InvalidDevice(device)
    added = attrs.evolve(attachment, device=device, server_uuid=server.uuid if server else None)
    if added.disk in taken:
        raise DeviceInUse(device)
    connection.execute(
        insert(attachments).values(
            volume_id=added.volume_id,
            uuid=added.uuid,
            tenant=tenant,
            server_id=added.server_id,
            hosted=server.id if server else None,
            device=device,
            disk=added.disk,
            delete_on_termination=added.delete_on_termination,
            daemon=server.daemon if server else None,
        )
    )
    return added


def get(connection: Connection, tenant: str, server_id: str, volume_id: int) -> Attachment:
    """Return an attachment, if callers may see the attachment.

    :raises AttachmentNotFound: if the volume is not attached to the server.
    """
    for found in listed(connection, tenant, server_id):
        if found.volume_id == volume_id:
            return found
    raise AttachmentNotFound


def listed(
    connection: Connection,
    tenant: str,
    server_id: str,
    *,
    limit: int | None = None,
    offset: int = 0,
) -> Sequence[Attachment]:
    """Return the present and coming attachments of a server, ascending by volume."""
    query = (
        _shown()
        .where(
            attachments.c.tenant == tenant,
            attachments.c.server_id == server_id,
            volumes.c.status.in_(HELD | {Status.EXTENDING}),
        )
        .order_by(attachments.c.volume_id)
    )
    return [_of_row(row) for row in connection.execute(query.limit(limit).offset(offset))]


def is_promised(connection: Connection, volume_id: int) -> bool:
    """Return whether a volume is, or is to be, a disk of any server, of bootvol or elsewhere."""
    return find(connection, volume_id) is not None or holds.exist(connection, volume_id)


def find(connection: Connection, volume_id: int) -> Attachment | None:
    """Return the attachment of a volume, or None; include one that callers may not see."""
    row = connection.execute(_shown().where(attachments.c.volume_id == volume_id)).one_or_none()
    return _of_row(row) if row is not None else None


def owner(connection: Connection, volume_id: int) -> str | None:
    """Return the daemon that has a volume plugged in or serves the volume; None if none does."""
    query = select(attachments.c.daemon).where(attachments.c.volume_id == volume_id)
    return connection.execute(query).scalar_one_or_none()


def assign(connection: Connection, volume_id: int, daemon: str | None) -> Attachment:
    """Set the daemon that has a volume plugged in or serves the volume.  Return the attachment.

    :param daemon: id of the daemon, or None.
    :raises AttachmentNotFound: if the volume has no attachment.
    """
    connection.execute(
        update(attachments).where(attachments.c.volume_id == volume_id).values(daemon=daemon)
    )
    found = find(connection, volume_id)
    if found is None:
        raise AttachmentNotFound
    return found


def reached(connection: Connection, volume_id: int, by: ConnectionInfo | None) -> None:
    """Set how the server reaches a volume.

    :param by: the connection; None if the server opens the volume directly on the backend.
    """
    connection.execute(
        update(attachments)
        .where(attachments.c.volume_id == volume_id)
        .values(address_kind=by.kind if by else None, address=by.address if by else None)
    )


def reach(connection: Connection, volume_id: int) -> ConnectionInfo | None:
    """Return how the server reaches a volume; None for a direct open on the backend."""
    row = connection.execute(
        select(attachments.c.address_kind, attachments.c.address, volumes.c.readonly)
        .join(volumes)
        .where(attachments.c.volume_id == volume_id, attachments.c.address.is_not(None))
    ).one_or_none()
    if row is None:
        return None
    return ConnectionInfo(row.address_kind, row.address, bool(row.readonly))


def remove(connection: Connection, volume_id: int) -> None:
    """Remove the attachment of a volume, if any."""
    connection.execute(delete(attachments).where(attachments.c.volume_id == volume_id))


def disks(connection: Connection, server_id: int) -> Sequence[tuple[Volume, Attachment]]:
    """Return the volumes of a server that bootvol runs.  The boot volume comes first."""
    query = (
        select(volumes, attachments.c.device, attachments.c.delete_on_termination)
        .join(attachments)
        .where(attachments.c.hosted == server_id)
        .order_by(attachments.c.disk != ROOT, attachments.c.disk)
    )
    return [
        (
            of_row(row),
            Attachment(row.id, str(server_id), row.device, row.delete_on_termination),
        )
        for row in connection.execute(query)
    ]


def served(connection: Connection, daemon: str) -> Sequence[Volume]:
    """Return the volumes that a daemon has plugged in or serves, or soon will."""
    query = select(volumes).join(attachments).where(attachments.c.daemon == daemon)
    return [of_row(row) for row in connection.execute(query)]


def _shown() -> Select[object]:
    """Return the query for attachments with the uuids of their volumes and servers."""
    uuids = volumes.c.uuid.label("volume_uuid"), servers.c.uuid.label("server_uuid")
    joined = attachments.join(volumes).outerjoin(servers)
    return select(attachments, *uuids).select_from(joined)


def _of_row(row: Row[object]) -> Attachment:
    return Attachment(
        row.volume_id,
        row.server_id,
        row.device,
        row.delete_on_termination,
        row.volume_uuid,
        row.server_uuid,
        row.uuid,
    )
