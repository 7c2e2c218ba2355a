"""Rows of failures: why work on volumes and snapshots failed, for a month."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import attrs
from sqlalchemy import ColumnElement, Connection, Row, delete, insert, or_, select

from bootvol.errors import ErrorReport, FailureNotFound
from bootvol.lifecycle import Kind, Status
from bootvol.model import Failure, new_uuid
from bootvol.store.failure_table import failures

#: The time until a failure is forgotten: that of Cinder's messages.
LIFE: Final = timedelta(days=30)
#: The most failures of one tenant. Older ones are forgotten: a failing client may try for ever.
MOST: Final = 1000


def add(
    connection: Connection,
    tenant: str,
    kind: Kind,
    uuid: str,
    status: Status,
    request_id: str,
    error: ErrorReport,
    now: datetime,
    *,
    of_image: bool = False,
) -> None:
    """Insert a failure; forget those that are too old or too many.

    :param uuid: uuid of the volume or snapshot.
    :param status: the status until the failure.
    :param request_id: id of the request that created the object; empty if unknown.
    :param of_image: whether the failed work was an import.
    """
    values = {
        "uuid": new_uuid(),
        "tenant": tenant,
        "kind": kind,
        "object_uuid": uuid,
        "status": status,
        "of_image": of_image,
        "request_id": request_id,
        **{f"error_{name}": value for name, value in attrs.asdict(error).items()},
        "created_at": now,
        "expires_at": now + LIFE,
    }
    connection.execute(insert(failures).values(values))
    newest = select(failures.c.id).where(failures.c.tenant == tenant)
    last = newest.order_by(failures.c.id.desc()).offset(MOST).limit(1).scalar_subquery()
    # Two failures at once may forget the same rows: the second leaves them to the first.
    old = select(failures.c.id).where(
        or_(
            failures.c.expires_at < now,
            (failures.c.tenant == tenant) & (failures.c.id <= last),
        )
    )
    chosen = connection.scalars(old.with_for_update(skip_locked=True)).all()
    if chosen:
        connection.execute(delete(failures).where(failures.c.id.in_(chosen)))


def listed(connection: Connection, tenant: str, now: datetime) -> Sequence[Failure]:
    """Return a tenant's failures that are not forgotten yet, ascending by id."""
    query = select(failures).where(*_kept(tenant, now)).order_by(failures.c.id)
    return [_of_row(row) for row in connection.execute(query)]


def get(connection: Connection, tenant: str, uuid: str, now: datetime) -> Failure:
    """Return a failure of a tenant.

    :raises FailureNotFound: if the tenant has no such failure, or if the failure is forgotten.
    """
    mine = (*_kept(tenant, now), failures.c.uuid == uuid)
    row = connection.execute(select(failures).where(*mine)).one_or_none()
    if row is None:
        raise FailureNotFound(uuid)
    return _of_row(row)


def remove(connection: Connection, tenant: str, uuid: str) -> None:
    """Forget a failure of a tenant.

    :raises FailureNotFound: if the tenant has no such failure.
    """
    mine = failures.c.tenant == tenant, failures.c.uuid == uuid
    if not connection.execute(delete(failures).where(*mine)).rowcount:
        raise FailureNotFound(uuid)


def _kept(tenant: str, now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for a tenant's failures that are not forgotten yet."""
    return failures.c.tenant == tenant, failures.c.expires_at >= now


def _of_row(row: Row[object]) -> Failure:
    error = ErrorReport(row.error_code, row.error_message, row.error_retryable, row.error_remedy)
    return Failure(
        row.id,
        row.uuid,
        row.tenant,
        Kind(row.kind),
        row.object_uuid,
        Status(row.status),
        row.of_image,
        row.request_id,
        error,
        row.created_at,
        row.expires_at,
    )
