"""Rows of volume types: add, look up, change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, true, update
from sqlalchemy.exc import IntegrityError

from bootvol.errors import VolumeTypeExists, VolumeTypeNotFound
from bootvol.model import VolumeType, new_uuid
from bootvol.store.schema import type_access, volume_types


def add(
    connection: Connection,
    name: str,
    extra_specs: Mapping[str, str],
    description: str | None = None,
    is_public: bool = True,
) -> VolumeType:
    """Insert a type.  Return the type with its ids.

    :raises VolumeTypeExists: if another type has this name.
    """
    values = {
        "uuid": new_uuid(),
        "name": name,
        "description": description,
        "extra_specs": dict(extra_specs),
        "is_public": is_public,
    }
    added = insert(volume_types).values(values).returning(volume_types)
    try:
        return of_row(connection.execute(added).one())
    except IntegrityError:
        raise VolumeTypeExists(name) from None


def get(
    connection: Connection, type_id: int, tenant: str | None = None, *, lock: bool = False
) -> VolumeType:
    """Return a type.

    :param tenant: the tenant that may see the type; None for any type.
    :param lock: whether to lock the type against other changes until the transaction ends.
    :raises VolumeTypeNotFound: if the type does not exist, or is hidden from the tenant.
    """
    return _one(connection, volume_types.c.id == type_id, type_id, tenant, lock)


def named(
    connection: Connection, name: str, tenant: str | None = None, *, keep: bool = False
) -> VolumeType:
    """Return the type of a name.

    :param tenant: see :func:`get`.
    :param keep: whether nobody may change or remove the type until the transaction ends.  Others
        may keep the type, too.
    :raises VolumeTypeNotFound: if no type has this name, or the type is hidden from the tenant.
    """
    return _one(connection, volume_types.c.name == name, name, tenant, keep, shared=True)


def of_uuid(connection: Connection, uuid: str, tenant: str | None = None) -> VolumeType:
    """Return the type with a uuid.

    :param tenant: see :func:`get`.
    :raises VolumeTypeNotFound: if no type has this uuid, or the type is hidden from the tenant.
    """
    return _one(connection, volume_types.c.uuid == uuid, uuid, tenant)


def change(connection: Connection, type_id: int, values: Mapping[str, object]) -> None:
    """Change the name, the description or ``is_public`` of a type that :func:`get` has locked.

    :raises VolumeTypeExists: if another type has the name.
    """
    try:
        mine = update(volume_types).where(volume_types.c.id == type_id)
        connection.execute(mine.values(dict(values)))
    except IntegrityError:
        raise VolumeTypeExists(str(values.get("name"))) from None


def listed(connection: Connection, tenant: str | None = None) -> Sequence[VolumeType]:
    """Return the types, ascending by id.

    :param tenant: the tenant that may see the types; None for all types.
    """
    query = select(volume_types).where(_visible(tenant)).order_by(volume_types.c.id)
    return [of_row(row) for row in connection.execute(query)]


def _visible(tenant: str | None) -> ColumnElement[bool]:
    if tenant is None:
        return true()
    given = select(type_access.c.type_id).where(type_access.c.tenant == tenant)
    return volume_types.c.is_public | volume_types.c.id.in_(given)


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
    connection: Connection,
    which: ColumnElement[bool],
    told: int | str,
    tenant: str | None,
    lock: bool = False,
    *,
    shared: bool = False,
) -> VolumeType:
    query = select(volume_types).where(which, _visible(tenant))
    if lock:
        query = query.with_for_update(read=shared)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise VolumeTypeNotFound(told)
    return of_row(row)


def of_row(row: Row[object]) -> VolumeType:
    """Return the type of a row."""
    return VolumeType(
        row.id, row.name, row.extra_specs, row.uuid, row.description, row.is_public, row.qos
    )
