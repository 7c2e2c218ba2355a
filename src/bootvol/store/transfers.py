"""Rows of transfers: offers of volumes to other tenants."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Row, delete, insert, select

from bootvol.errors import TransferNotFound
from bootvol.model import Transfer
from bootvol.store.schema import transfers, volumes

_SHOWN = select(transfers, volumes.c.uuid.label("volume_uuid")).select_from(transfers.join(volumes))


def add(connection: Connection, transfer: Transfer) -> None:
    """Insert an offer."""
    connection.execute(
        insert(transfers).values(
            uuid=transfer.uuid,
            volume_id=transfer.volume_id,
            tenant=transfer.tenant,
            name=transfer.name,
            key_hash=transfer.key_hash,
            created_at=transfer.created_at,
            no_snapshots=transfer.no_snapshots,
        )
    )


def get(connection: Connection, uuid: str, tenant: str | None = None) -> Transfer:
    """Return an offer, and lock the offer until the transaction ends.

    :param tenant: the offering tenant; None for any.
    :raises TransferNotFound: if there is no such offer.
    """
    query = _SHOWN.where(transfers.c.uuid == uuid)
    if tenant is not None:
        query = query.where(transfers.c.tenant == tenant)
    row = connection.execute(query.with_for_update(of=transfers)).one_or_none()
    if row is None:
        raise TransferNotFound(uuid)
    return _of_row(row)


def listed(connection: Connection, tenant: str) -> Sequence[Transfer]:
    """Return a tenant's offers, ascending by id."""
    query = _SHOWN.where(transfers.c.tenant == tenant).order_by(transfers.c.id)
    return [_of_row(row) for row in connection.execute(query)]


def remove(connection: Connection, uuid: str) -> None:
    """Delete an offer."""
    connection.execute(delete(transfers).where(transfers.c.uuid == uuid))


def _of_row(row: Row[object]) -> Transfer:
    return Transfer(
        row.uuid,
        row.volume_id,
        row.volume_uuid,
        row.tenant,
        row.name,
        row.key_hash,
        row.created_at,
        row.no_snapshots,
    )
