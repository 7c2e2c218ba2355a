"""Rows of holds: the attachments that other systems manage.

A volume has holds, or an attachment of bootvol's own, or neither.  Callers see both in one list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, TypedDict

import attrs
from sqlalchemy import ColumnElement, Connection, Row, Select, delete, insert, select, update

from bootvol.errors import AttachmentNotFound
from bootvol.jsons import JsonObject
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Attachment, Hold, HoldState, LocalRoute, RbdRoute, Route
from bootvol.store import states
from bootvol.store.schema import attachments, holds, servers, volumes

#: What the status of a volume tells about the attachment of bootvol's own.
_OURS: Final = {
    Status.ATTACHING: HoldState.ATTACHING,
    Status.IN_USE: HoldState.ATTACHED,
    Status.EXTENDING: HoldState.ATTACHED,
    Status.DETACHING: HoldState.ATTACHED,
}
#: The status of a volume by the state of its holds; the last one counts.
_MEANT: Final = {
    HoldState.RESERVED: Status.RESERVED,
    HoldState.ATTACHING: Status.ATTACHING,
    HoldState.ATTACHED: Status.IN_USE,
}
#: The statuses that follow the holds, by the events that lead there.
_EVENTS: Final = {
    Status.AVAILABLE: Event.DETACHED,
    Status.RESERVED: Event.RESERVE,
    Status.ATTACHING: Event.CONNECT,
    Status.IN_USE: Event.ATTACHED,
}
#: The statuses of a volume that follow its holds: a host may reach the volume.
FOLLOWING: Final = frozenset({*_EVENTS, Status.DETACHING})


#: No call shows a host's description, which may be large.
_READ: Final = [each for each in holds.c if each is not holds.c.connector]


class Changes(TypedDict, total=False):
    """The columns of a hold that change."""

    state: HoldState
    host: str | None
    mountpoint: str | None
    mode: str | None
    route: Route | None
    limits: Mapping[str, str] | None
    attached_at: datetime | None


def add(connection: Connection, hold: Hold) -> None:
    """Insert a hold."""
    values = attrs.asdict(hold, filter=attrs.filters.exclude("volume_uuid", "ours"), recurse=False)
    connection.execute(insert(holds).values({**values, "route": _stored(hold.route)}))


def change(
    connection: Connection, uuid: str, changes: Changes, described: JsonObject | None = None
) -> None:
    """Change columns of a hold.

    :param described: the new description of the host; None to keep the former one.
    """
    values: dict[str, object] = dict(changes)
    if described is not None:
        values["connector"] = described
    if "route" in changes:
        values["route"] = _stored(changes["route"])
    connection.execute(update(holds).where(holds.c.uuid == uuid).values(values))


def remove(connection: Connection, uuid: str) -> None:
    """Delete a hold."""
    connection.execute(delete(holds).where(holds.c.uuid == uuid))


def get(connection: Connection, tenant: str, uuid: str) -> Hold:
    """Return a hold of a tenant, or an attachment of bootvol's own in the same form.

    :raises AttachmentNotFound: if the tenant has no attachment with this id.
    """
    found = _found(connection, holds.c.tenant == tenant, holds.c.uuid == uuid) or _ours(
        connection, attachments.c.tenant == tenant, attachments.c.uuid == uuid
    )
    if not found:
        raise AttachmentNotFound
    return found[0]


def owner(connection: Connection, uuid: str) -> str | None:
    """Return the tenant of an attachment, or None."""
    for table in holds, attachments:
        found: str | None = connection.scalar(select(table.c.tenant).where(table.c.uuid == uuid))
        if found is not None:
            return found
    return None


def listed(connection: Connection, tenant: str | None) -> Sequence[Hold]:
    """Return the holds of a tenant, and the attachments of bootvol's own in the same form.

    :param tenant: None for all tenants.
    """
    if tenant is None:
        return [*_found(connection), *_ours(connection)]
    return [
        *_found(connection, holds.c.tenant == tenant),
        *_ours(connection, attachments.c.tenant == tenant),
    ]


def of_volume(connection: Connection, volume_id: int) -> Sequence[Hold]:
    """Return the holds on a volume, the oldest first; no attachment of bootvol's own."""
    return _found(connection, holds.c.volume_id == volume_id)


def exist(connection: Connection, volume_id: int) -> bool:
    """Return whether a volume has a hold."""
    query = select(holds.c.id).where(holds.c.volume_id == volume_id).limit(1)
    return connection.execute(query).first() is not None


def follow(connection: Connection, volume_id: int, status: Status, *, freed: bool = False) -> None:
    """Let a volume's status follow its holds.

    A volume in the making, or in error, keeps its status.

    :param status: the volume's present status.
    :param freed: whether a hold has gone, or a server keeps the volume after all: only then does a
        volume stop to be ``detaching``.
    """
    target = _target(connection, volume_id)
    kept = status is Status.DETACHING and target is Status.IN_USE and not freed
    if status in FOLLOWING and status is not target and not kept:
        states.apply_event(connection, Kind.VOLUME, volume_id, _EVENTS[target])


def after_growth(connection: Connection, volume_id: int) -> Event:
    """Return the event for a volume whose growth has ended."""
    target = _target(connection, volume_id)
    return Event.EXTENDED if target is Status.AVAILABLE else _EVENTS[target]


def _target(connection: Connection, volume_id: int) -> Status:
    """Return the status that the holds on a volume mean."""
    found = {each.state for each in of_volume(connection, volume_id)}
    target = Status.AVAILABLE
    for state, meant in _MEANT.items():
        if state in found:
            target = meant
    return target


def after_making(connection: Connection, volume_id: int) -> None:
    """Reserve a volume that has just become available, if a server was to get the volume."""
    if exist(connection, volume_id):
        follow(connection, volume_id, Status.AVAILABLE)


def attached(
    connection: Connection, tenant: str | None = None, volume_id: int | None = None
) -> Mapping[int, tuple[Attachment, ...]]:
    """Return which servers have volumes by holds, by the volumes' ids.

    :param tenant: the tenant of the volumes; None for all tenants.
    :param volume_id: the only volume; None for all volumes.
    """
    found = dict[int, tuple[Attachment, ...]]()
    wanted = [holds.c.state == HoldState.ATTACHED]
    if tenant is not None:
        wanted.append(holds.c.tenant == tenant)
    if volume_id is not None:
        wanted.append(holds.c.volume_id == volume_id)
    for each in _found(connection, *wanted):
        attachment = Attachment(
            each.volume_id,
            each.instance or "",
            each.mountpoint or "na",
            volume_uuid=each.volume_uuid,
            server_uuid=each.instance,
            uuid=each.uuid,
            host=each.host,
            attached_at=each.attached_at,
            mode=each.mode if each.route is None else None,
        )
        found[each.volume_id] = (*found.get(each.volume_id, ()), attachment)
    return found


def _found(connection: Connection, *conditions: ColumnElement[bool]) -> Sequence[Hold]:
    query: Select[object] = (
        select(*_READ, volumes.c.uuid.label("volume_uuid"))
        .select_from(holds.join(volumes))
        .where(*conditions)
        .order_by(holds.c.id)
    )
    return [_of_row(row) for row in connection.execute(query)]


def _ours(connection: Connection, *conditions: ColumnElement[bool]) -> Sequence[Hold]:
    query: Select[object] = (
        select(
            attachments,
            volumes.c.uuid.label("volume_uuid"),
            volumes.c.status,
            volumes.c.readonly,
            volumes.c.created_at,
            servers.c.uuid.label("server_uuid"),
        )
        .select_from(attachments.join(volumes).outerjoin(servers))
        .where(*conditions)
        .order_by(attachments.c.volume_id)
    )
    return [
        Hold(
            row.uuid,
            row.volume_id,
            row.volume_uuid,
            row.tenant,
            _OURS.get(Status(row.status), HoldState.RESERVED),
            row.created_at,
            row.server_uuid or row.server_id,
            mountpoint=f"/dev/{row.disk}",
            mode="ro" if row.readonly else "rw",
            ours=True,
        )
        for row in connection.execute(query)
    ]


def _of_row(row: Row[object]) -> Hold:
    return Hold(
        row.uuid,
        row.volume_id,
        row.volume_uuid,
        row.tenant,
        HoldState(row.state),
        row.created_at,
        row.instance,
        row.host,
        row.mountpoint,
        row.mode,
        _route(row.route),
        row.limits,
        row.attached_at,
    )


def _stored(route: Route | None) -> JsonObject | None:
    """Return a route as JSON, without a keyring."""
    if route is None:
        return None
    kind = "local" if isinstance(route, LocalRoute) else "rbd"
    return {"kind": kind, **attrs.asdict(route, filter=attrs.filters.exclude("keyring"))}


def _route(stored: JsonObject | None) -> Route | None:
    if stored is None:
        return None
    if stored["kind"] == "local":
        return LocalRoute(stored["path"])
    return RbdRoute(
        stored["place"],
        tuple((host, port) for host, port in stored["monitors"]),
        stored["cluster"],
        stored["user"],
        stored["secret"],
    )
