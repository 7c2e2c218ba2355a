"""Rows of key pairs: add, look up, delete, count.

As in Nova, a key pair belongs to a user within a tenant.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from bootvol.errors import KeyPairExists, KeyPairNotFound
from bootvol.model import KeyPair
from bootvol.store.schema import keypairs


def add(connection: Connection, pair: KeyPair) -> KeyPair:
    """Insert ``pair``, and ignore its id.  Return the pair with its new id.

    :raises KeyPairExists: if the user has a key pair of this name.
    """
    values = attrs.asdict(pair, filter=attrs.filters.exclude("id"))
    added = insert(keypairs).values(values).returning(keypairs.c.id)
    try:
        return attrs.evolve(pair, id=connection.execute(added).scalar_one())
    except IntegrityError:
        raise KeyPairExists(pair.name) from None


def get(connection: Connection, tenant: str, user: str, name: str) -> KeyPair:
    """Return a user's key pair.

    :raises KeyPairNotFound: if the user has no key pair of this name.
    """
    query = select(keypairs).where(_of(tenant, user), keypairs.c.name == name)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise KeyPairNotFound(name)
    return _of_row(row)


def listed(connection: Connection, tenant: str, user: str) -> Sequence[KeyPair]:
    """Return a user's key pairs, by name."""
    query = select(keypairs).where(_of(tenant, user)).order_by(keypairs.c.name)
    return [_of_row(row) for row in connection.execute(query)]


def remove(connection: Connection, tenant: str, user: str, name: str) -> None:
    """Delete a user's key pair.

    :raises KeyPairNotFound: if the user has no key pair of this name.
    """
    query = delete(keypairs).where(_of(tenant, user), keypairs.c.name == name)
    if not connection.execute(query).rowcount:
        raise KeyPairNotFound(name)


def count(connection: Connection, tenant: str, user: str) -> int:
    """Count a user's key pairs."""
    query = select(func.count()).select_from(keypairs).where(_of(tenant, user))
    return connection.execute(query).scalar_one()


def _of(tenant: str, user: str) -> ColumnElement[bool]:
    return and_(keypairs.c.tenant == tenant, keypairs.c.user == user)


def _of_row(row: Row[object]) -> KeyPair:
    return KeyPair(
        row.tenant, row.user, row.name, row.fingerprint, row.public_key, row.created_at, row.id
    )
