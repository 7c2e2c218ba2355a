"""Statuses of volumes, snapshots and servers: changes of status, and reasons of failures.

No other module writes a status. Each change is collected for subscribers: see :mod:`.events`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, null, select, update
from sqlalchemy import delete as delete_from

from bootvol.errors import ErrorReport, NotFound
from bootvol.lifecycle import MAKING, Event, Kind, Status, after
from bootvol.model import Image
from bootvol.store import failures
from bootvol.store.events import StateChange, collect
from bootvol.store.schema import LIVING

#: The columns that a change of the status clears.
_UNMARKED: Final[Mapping[Kind, Mapping[str, None]]] = {
    Kind.VOLUME: {"marked": None},
    Kind.SNAPSHOT: {"marked": None, "progress": None},
}


def add(
    connection: Connection, kind: Kind, values: Mapping[str, Any], image: Image | None = None
) -> int:
    """Insert a row with its first status.  Return the id.

    :param values: the values of all columns but ``id``.
    :param image: the image that a volume is made from.
    """
    table = LIVING[kind]
    number: int = connection.execute(
        insert(table).values(dict(values)).returning(table.c.id)
    ).scalar_one()
    collect(
        connection,
        StateChange(
            kind,
            number,
            values["tenant"],
            values["request_id"],
            event=None,
            before=None,
            after=values["status"],
            image=image,
        ),
    )
    return number


def apply_event(
    connection: Connection,
    kind: Kind,
    number: int,
    event: Event,
    error: ErrorReport | None = None,
    cause: int | None = None,
) -> Status:
    """Apply ``event`` to a row.  Return the new status.

    Lock the row until the transaction ends.  :attr:`Status.GONE` deletes the row.

    :param number: id of the row.
    :param error: reason to keep in the row from now on, if any.
    :param cause: id of another volume whose failure causes the event.
    :raises NotFound: if the row is gone.
    :raises bootvol.lifecycle.IllegalTransition: if the event cannot happen in the present status.
    """
    table = LIVING[kind]
    mine = table.c.id == number
    row = connection.execute(
        select(
            table.c.status,
            table.c.tenant,
            table.c.request_id,
            table.c.uuid,
            (table.c.image_id if kind is Kind.VOLUME else null()).label("image_id"),
        )
        .where(mine)
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise NotFound
    before = Status(row.status)
    status = after(before, event)
    makes_data = event is Event.COMPLETE and before in MAKING and kind is not Kind.SERVER
    if status is Status.GONE:
        connection.execute(delete_from(table).where(mine))
    else:
        connection.execute(
            update(table)
            .where(mine)
            .values(
                status=status,
                **change_noted(kind),
                error_code=error.code if error else None,
                error_message=error.message if error else None,
                error_retryable=error.retryable if error else None,
                error_remedy=error.remedy if error else None,
                # From now on the backend must have the data.
                **({"finished": True} if makes_data else {}),
                **_UNMARKED.get(kind, {}),
            )
        )
    if error is not None and kind is not Kind.SERVER:
        failures.add(
            connection,
            row.tenant,
            kind,
            row.uuid,
            before,
            row.request_id or "",
            error,
            datetime.now(UTC),
            of_image=before in MAKING and row.image_id is not None,
        )
    collect(
        connection,
        StateChange(
            kind,
            number,
            row.tenant,
            row.request_id or "",
            event,
            before,
            status,
            error,
            cause=cause,
        ),
    )
    return status


def mark(connection: Connection, kind: Kind, number: int, mark: str | None) -> None:
    """Show callers a mark instead of the status of a volume or snapshot; None for the status.

    The next change of the status removes the mark.
    """
    table = LIVING[kind]
    changed = update(table).where(table.c.id == number)
    connection.execute(changed.values(**_UNMARKED[kind], **change_noted(kind)))
    connection.execute(changed.values(marked=mark))


def note_progress(connection: Connection, snapshot_id: int, progress: str) -> None:
    """Show callers the progress of a snapshot until the next change of the status or mark."""
    table = LIVING[Kind.SNAPSHOT]
    connection.execute(update(table).where(table.c.id == snapshot_id).values(progress=progress))


def change_noted(kind: Kind) -> Mapping[str, datetime]:
    """Return the value of the column for the time of a row's last change, if rows have one."""
    return {} if kind is Kind.SERVER else {"updated_at": datetime.now(UTC)}


def begin_removal(connection: Connection, kind: Kind, number: int) -> None:
    """Note that the removal of a volume's or snapshot's data begins: the data may be missing."""
    table = LIVING[kind]
    connection.execute(update(table).where(table.c.id == number).values(finished=False))


def end_removal(connection: Connection, kind: Kind, number: int) -> None:
    """Note that the removal of a volume's or snapshot's data has failed, and the data is whole."""
    table = LIVING[kind]
    connection.execute(update(table).where(table.c.id == number).values(finished=True))


def is_finished(connection: Connection, kind: Kind, number: int) -> bool:
    """Return whether the backend must have the data of a volume or snapshot.

    The data must exist from the end of the making until the removal begins.
    """
    table = LIVING[kind]
    query = select(table.c.finished).where(table.c.id == number)
    return bool(connection.execute(query).scalar())


def error_of(row: Row[Any]) -> ErrorReport | None:
    """Return the reason of a failure in a row, or None."""
    if row.error_code is None:
        return None
    return ErrorReport(row.error_code, row.error_message, row.error_retryable, row.error_remedy)
