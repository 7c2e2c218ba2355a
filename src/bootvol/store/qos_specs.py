"""Rows of limits of speed: add, look up, change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from bootvol.errors import QosSpecsExist, QosSpecsNotFound
from bootvol.model import Consumer, QosSpecs, VolumeType, new_uuid
from bootvol.store.schema import qos_specs, volume_types
from bootvol.store.volume_types import of_row


def add(
    connection: Connection, name: str, consumer: Consumer, specs: Mapping[str, str]
) -> QosSpecs:
    """Insert limits.  Return the limits with their id.

    :raises QosSpecsExist: if other limits have this name.
    """
    values = {"uuid": new_uuid(), "name": name, "consumer": consumer, "specs": dict(specs)}
    try:
        row = connection.execute(insert(qos_specs).values(values).returning(qos_specs)).one()
    except IntegrityError:
        raise QosSpecsExist(name) from None
    return _of_row(row)


def get(connection: Connection, uuid: str, *, lock: bool = False) -> QosSpecs:
    """Return limits.

    :param lock: whether to lock the limits against other changes until the transaction ends.
    :raises QosSpecsNotFound: if no limits have the id.
    """
    query = select(qos_specs).where(qos_specs.c.uuid == uuid)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise QosSpecsNotFound(uuid)
    return _of_row(row)


def listed(connection: Connection) -> Sequence[QosSpecs]:
    """Return all limits, ascending by id."""
    query = select(qos_specs).order_by(qos_specs.c.id)
    return [_of_row(row) for row in connection.execute(query)]


def put(connection: Connection, uuid: str, consumer: Consumer, specs: Mapping[str, str]) -> None:
    """Change limits that :func:`get` has locked."""
    mine = update(qos_specs).where(qos_specs.c.uuid == uuid)
    connection.execute(mine.values(consumer=consumer, specs=dict(specs)))


def remove(connection: Connection, uuid: str) -> None:
    """Delete limits that no type has."""
    connection.execute(delete(qos_specs).where(qos_specs.c.uuid == uuid))


def types_of(connection: Connection, uuid: str) -> Sequence[VolumeType]:
    """Return the types with the limits, ascending by id."""
    query = select(volume_types).where(volume_types.c.qos == uuid).order_by(volume_types.c.id)
    return [of_row(row) for row in connection.execute(query)]


def release(connection: Connection, uuid: str) -> None:
    """Take the limits from all types."""
    connection.execute(update(volume_types).where(volume_types.c.qos == uuid).values(qos=None))


def of_type(connection: Connection, name: str) -> QosSpecs | None:
    """Return the limits of the type of a name; None for no limits."""
    query = select(qos_specs).join(volume_types, volume_types.c.qos == qos_specs.c.uuid)
    row = connection.execute(query.where(volume_types.c.name == name)).one_or_none()
    return None if row is None else _of_row(row)


def _of_row(row: Row[object]) -> QosSpecs:
    return QosSpecs(row.id, row.uuid, row.name, Consumer(row.consumer), row.specs)
