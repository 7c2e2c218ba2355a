"""Rows of servers: add, look up, count."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import attrs
from sqlalchemy import Connection, Row, func, or_, select, update

from bootvol.errors import ServerNotFound
from bootvol.lifecycle import Kind, Status
from bootvol.model import PublicKey, Server
from bootvol.store import states
from bootvol.store.schema import attachments, servers, volumes
from bootvol.store.states import error_of

#: The largest id that a database can give to a row.
_LARGEST = 2**31 - 1


def add(connection: Connection, server: Server) -> Server:
    """Insert ``server``, and ignore its id.  Return the server with its new id."""
    values = attrs.asdict(
        server, filter=attrs.filters.exclude("id", "error", "key", "volumes"), recurse=False
    )
    values["updated_at"] = server.updated_at or server.created_at
    values["metadata"] = dict(server.metadata)
    if server.key is not None:
        values |= {"key_name": server.key.name, "public_key": server.key.text}
    return attrs.evolve(server, id=states.add(connection, Kind.SERVER, values))


def get(connection: Connection, tenant: str, server_id: str, *, lock: bool = False) -> Server:
    """Return a tenant's server.

    :param server_id: id in digits, or uuid (specification, section 2.2).
    :param lock: whether to lock the server against other changes until the transaction ends.
    :raises ServerNotFound: if the server does not exist or belongs to another tenant.
    """
    is_id = server_id.isascii() and server_id.isdigit() and len(server_id) <= 10
    number = int(server_id) if is_id else 0
    named = [servers.c.uuid == server_id]
    if 0 < number <= _LARGEST:
        named.append(servers.c.id == number)
    query = select(servers).where(servers.c.tenant == tenant, or_(*named))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise ServerNotFound(server_id)
    return _with_volumes(connection, [of_row(row)])[0]


def listed(connection: Connection, tenant: str) -> Sequence[Server]:
    """Return a tenant's servers, the newest first (specification, section 2.4)."""
    query = select(servers).where(servers.c.tenant == tenant).order_by(servers.c.id.desc())
    return _with_volumes(connection, [of_row(row) for row in connection.execute(query)])


def _with_volumes(connection: Connection, found: Sequence[Server]) -> Sequence[Server]:
    """Return the servers with the ids of their volumes, ascending."""
    query = (
        select(attachments.c.hosted, volumes.c.id, volumes.c.uuid)
        .join(volumes)
        .where(attachments.c.hosted.in_([each.id for each in found]))
        .order_by(volumes.c.id)
    )
    theirs: dict[int, list[tuple[int, str]]] = {}
    for row in connection.execute(query):
        theirs.setdefault(row.hosted, []).append((row.id, row.uuid))
    return [attrs.evolve(each, volumes=tuple(theirs.get(each.id, ()))) for each in found]


def hosts(connection: Connection, server_id: int) -> Sequence[str]:
    """Return the hosts that alone reach a volume of a server, in order of their names."""
    query = (
        select(volumes.c.host)
        .join(attachments)
        .where(attachments.c.hosted == server_id, volumes.c.host != "")
        .distinct()
        .order_by(volumes.c.host)
    )
    return connection.scalars(query).all()


def change(connection: Connection, server_id: int, now: datetime, **values: object) -> None:
    """Change columns of a server that callers may change.

    :param now: time of the change.
    :param values: new values, by column name.
    """
    connection.execute(
        update(servers).where(servers.c.id == server_id).values(updated_at=now, **values)
    )


def count(connection: Connection, tenant: str) -> int:
    """Count a tenant's servers, whatever their status."""
    query = select(func.count()).select_from(servers).where(servers.c.tenant == tenant)
    return connection.execute(query).scalar_one()


def having(connection: Connection, volume_id: int, *, lock: bool = False) -> Server | None:
    """Return the server that has or will have a volume; None if bootvol does not run the server.

    :param lock: whether to lock the server against other changes until the transaction ends.
    """
    query = select(servers).join(attachments).where(attachments.c.volume_id == volume_id)
    row = connection.execute(query.with_for_update(of=servers) if lock else query).one_or_none()
    return of_row(row) if row is not None else None


def assign(connection: Connection, server_id: int, daemon: str) -> None:
    """Set the daemon whose hypervisor runs a server."""
    connection.execute(update(servers).where(servers.c.id == server_id).values(daemon=daemon))


def of_row(row: Row[object]) -> Server:
    """Return the server of a row."""
    return Server(
        id=row.id,
        name=row.name,
        uuid=row.uuid,
        tenant=row.tenant,
        user=row.user,
        status=Status(row.status),
        created_at=row.created_at,
        display_name=row.display_name,
        flavor_id=row.flavor_id,
        memory_mib=row.memory_mib,
        cpus=row.cpus,
        daemon=row.daemon,
        error=error_of(row),
        updated_at=row.updated_at,
        metadata=row.metadata or {},
        key=PublicKey(row.key_name, row.public_key) if row.key_name is not None else None,
        user_data=row.user_data,
        config_drive=bool(row.config_drive),
        request_id=row.request_id or "",
    )
