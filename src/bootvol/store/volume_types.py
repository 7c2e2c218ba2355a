"""Rows of volume types: add, look up, change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from bootvol.errors import VolumeTypeExists, VolumeTypeNotFound
from bootvol.model import VolumeType, new_uuid
from bootvol.store.schema import volume_types


def add(
    connection: Connection,
    name: str,
    extra_specs: Mapping[str, str],
    description: str | None = None,
) -> VolumeType:
    """Insert a type.  Return the type with its ids.

    :raises VolumeTypeExists: if another type has this name.
    """
    values = {
        "uuid": new_uuid(),
        "name": name,
        "description": description,
        "extra_specs": dict(extra_specs),
    }
    added = insert(volume_types).values(values).returning(volume_types)
    try:
        return of_row(connection.execute(added).one())
    except IntegrityError:
        raise VolumeTypeExists(name) from None


def get(connection: Connection, type_id: int, *, lock: bool = False) -> VolumeType:
    """Return a type.

    :param lock: whether to lock the type against other changes until the transaction ends.
    :raises VolumeTypeNotFound: if the type does not exist.
    """
    return _one(connection, volume_types.c.id == type_id, type_id, lock)


def named(connection: Connection, name: str) -> VolumeType:
    """Return the type of a name.

    :raises VolumeTypeNotFound: if no type has this name.
    """
    return _one(connection, volume_types.c.name == name, name)


def of_uuid(connection: Connection, uuid: str) -> VolumeType:
    """Return the type with a uuid.

    :raises VolumeTypeNotFound: if no type has this uuid.
    """
    return _one(connection, volume_types.c.uuid == uuid, uuid)


def change(connection: Connection, type_id: int, values: Mapping[str, object]) -> None:
    """Change the name or the description of a type that :func:`get` has locked.

    :raises VolumeTypeExists: if another type has the name.
    """
    try:
        mine = update(volume_types).where(volume_types.c.id == type_id)
        connection.execute(mine.values(dict(values)))
    except IntegrityError:
        raise VolumeTypeExists(str(values.get("name"))) from None


def listed(connection: Connection) -> Sequence[VolumeType]:
    """Return all types, ascending by id."""
    query = select(volume_types).order_by(volume_types.c.id)
    return [of_row(row) for row in connection.execute(query)]


def put_extra_specs(connection: Connection, type_id: int, extra_specs: Mapping[str, str]) -> None:
    """Replace the extra specs of a type that :func:`get` has locked."""
    mine = update(volume_types).where(volume_types.c.id == type_id)
    connection.execute(mine.values(extra_specs=dict(extra_specs)))


def remove(connection: Connection, type_id: int) -> None:
    """Delete a type.

    :raises VolumeTypeNotFound: if the type does not exist.
    """
    mine = delete(volume_types).where(volume_types.c.id == type_id)
    if not connection.execute(mine).rowcount:
        raise VolumeTypeNotFound(type_id)


def _one(
    connection: Connection, which: ColumnElement[bool], told: int | str, lock: bool = False
) -> VolumeType:
    query = select(volume_types).where(which)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise VolumeTypeNotFound(told)
    return of_row(row)


def of_row(row: Row[object]) -> VolumeType:
    """Return the type of a row."""
    return VolumeType(row.id, row.name, row.extra_specs, row.uuid, row.description)
