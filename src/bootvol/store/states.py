"""Statuses of volumes, snapshots and servers: changes of status, and reasons of failures."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update
from sqlalchemy import delete as delete_from

from bootvol.errors import ErrorReport, NotFound
from bootvol.lifecycle import Event, Kind, Status, after
from bootvol.store.schema import LIVING


def apply_event(
    connection: Connection,
    kind: Kind,
    number: int,
    event: Event,
    error: ErrorReport | None = None,
) -> Status:
    """Apply ``event`` to a row.  Return the new status.

    Lock the row until the transaction ends.  :attr:`Status.GONE` deletes the row.

    :param number: id of the row.
    :param error: reason to keep in the row from now on, if any.
    :raises NotFound: if the row is gone.
    :raises bootvol.lifecycle.IllegalTransition: if the event cannot happen in the present status.
    """
    table = LIVING[kind]
    mine = table.c.id == number
    now = connection.execute(
        select(table.c.status).where(mine).with_for_update()
    ).scalar_one_or_none()
    if now is None:
        raise NotFound
    status = after(Status(now), event)
    if status is Status.GONE:
        connection.execute(delete_from(table).where(mine))
        return status
    connection.execute(
        update(table)
        .where(mine)
        .values(
            status=status,
            error_code=error.code if error else None,
            error_message=error.message if error else None,
            error_retryable=error.retryable if error else None,
            error_remedy=error.remedy if error else None,
        )
    )
    return status


def error_of(row: Row[Any]) -> ErrorReport | None:
    """Return the reason of a failure in a row, or None."""
    if row.error_code is None:
        return None
    return ErrorReport(row.error_code, row.error_message, row.error_retryable, row.error_remedy)
