"""Who works on an unsettled volume: a lease that its worker renews, and others respect.

The status of a volume is the intent (creating, downloading: make it; deleting: remove it), so
the claim is on the volume.  One worker at a time may touch what lies under it: an import and a
delete can never run at once, not even on two machines.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Subquery,
    and_,
    case,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from bootvol.lifecycle import MAKING, Status
from bootvol.model import Volume
from bootvol.store import goldens as golden_rows
from bootvol.store.schema import imports, turns, volumes
from bootvol.store.volumes import of_row

#: The same tables once more, for what one import has to do with another.
_OTHERS: Final = volumes.alias("others")
_OTHER_IMPORTS: Final = imports.alias("other_imports")


def claim(
    connection: Connection,
    holder: str,
    *,
    bootable: bool,
    backends: Collection[str],
    busy: Collection[int],
    now: float,
    until: float,
    full: Collection[str] = (),
) -> Volume | None:
    """Claim an unsettled volume that nobody holds; return it, or None.

    Of imports it is the first in line that may be claimed, of everything else the oldest.

    :param holder: who claims: a name for this one claim, ``WORKER/…``, never used again.
    :param bootable: True for imports; False for the quick work: removals, and volumes without an
        image.
    :param backends: names of the backends whose volumes may be claimed.
    :param busy: ids of volumes that it works on already, whatever the clock says of their leases.
    :param now: seconds since 1970; a lease that ended before then is nobody's.
    :param until: seconds since 1970 when this lease ends unless it is renewed.
    :param full: names of the sources whose imports may not be claimed.
    """
    if bootable:
        line = _line(now)
        waiting = (
            select(line.c.id)
            .where(line.c.backend.in_(backends), line.c.source.not_in(full), line.c.id.not_in(busy))
            .order_by(line.c.position)
        )
        # One after the other: PostgreSQL locks no rows of a query with window functions, and
        # joined to one it looks through the whole line again for each volume.
        tries = (
            _lock_first(connection, now, volumes.c.id == number, volumes.c.status.in_(MAKING))
            for number in connection.scalars(waiting).all()
        )
        row = next((row for row in tries if row is not None), None)
    else:
        removal = volumes.c.status == Status.DELETING
        blank = and_(volumes.c.status.in_(MAKING), volumes.c.image_id.is_(None))
        reached = and_(volumes.c.backend.in_(backends), volumes.c.id.not_in(busy))
        row = _lock_first(connection, now, or_(removal, blank), reached)
    if row is None:
        return None
    connection.execute(
        update(volumes).where(volumes.c.id == row.id).values(worker=holder, lease_until=until)
    )
    if bootable:
        _note_turn(connection, row.tenant)
    return of_row(row)


def _lock_first(
    connection: Connection, now: float, *conditions: ColumnElement[bool]
) -> Row[Any] | None:
    """Lock the oldest such volume that nobody holds or is about to; return it, or None."""
    return connection.execute(
        select(volumes)
        .where(_free(now), *conditions)
        .order_by(volumes.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()


def position(connection: Connection, volume_id: int, now: float) -> int | None:
    """Return an import's place in line, from 1; None if it does not wait.

    :param now: seconds since 1970.
    """
    line = _line(now)
    return connection.execute(
        select(line.c.position).where(line.c.id == volume_id)
    ).scalar_one_or_none()


def leader(connection: Connection, volume_id: int, now: float) -> int | None:
    """Return the volume whose import an import waits for, since both copy the same; or None.

    :param now: seconds since 1970.
    """
    running = _running(now).subquery()
    query = (
        select(running.c.id)
        .select_from(volumes.join(imports))
        .join(
            running,
            and_(running.c.backend == volumes.c.backend, running.c.content == imports.c.content),
        )
        .where(volumes.c.id == volume_id, _free(now), ~_content().in_(golden_rows.ready()))
        .order_by(running.c.id)
    )
    return connection.scalars(query.limit(1)).one_or_none()


def _running(now: float) -> Select[tuple[int, str, str]]:
    """Return the query for the imports that others may wait for: they copy what can be told.

    Another that copies the same to the same backend waits, unless that has a golden volume of it.
    """
    return (
        select(_OTHERS.c.id, _OTHERS.c.backend, _OTHER_IMPORTS.c.content)
        .join_from(_OTHERS, _OTHER_IMPORTS, _OTHER_IMPORTS.c.volume_id == _OTHERS.c.id)
        .where(
            _OTHERS.c.status.in_(MAKING),
            _OTHERS.c.lease_until >= now,
            _OTHER_IMPORTS.c.content.is_not(None),
        )
    )


def _content() -> ColumnElement[Any]:
    """Return what an import copies, and where to; one that cannot be told is like no other."""
    return tuple_(volumes.c.backend, func.coalesce(imports.c.content, ""))


def _line(now: float) -> Subquery:
    """Return the line of waiting imports: ``id``, ``backend``, ``source``, ``position`` from 1.

    One that waits for another import of the same image is not in line.

    Tenants take turns.  An import's turn is the number of those that its tenant has running or
    waiting before it, so that however many one tenant asks for, another's first one comes next.
    Of the same turn, the tenant goes first that has waited longest for one: where one import runs
    at a time nobody has any running when the next is claimed, and by their age alone the fifty of
    one tenant would all come before another's.
    """
    tenant, free = volumes.c.tenant, _free(now)
    # From the few that run, not from each that waits: there may be thousands.
    running = _running(now).subquery()
    led = select(running.c.backend, running.c.content)
    waits = and_(free, or_(_content().not_in(led), _content().in_(golden_rows.ready())))
    unsettled = (
        select(
            volumes.c.id,
            volumes.c.backend,
            imports.c.source,
            waits.label("waits"),
            (
                func.sum(case((free, 0), else_=1)).over(partition_by=tenant)
                + func.row_number().over(partition_by=[tenant, waits], order_by=volumes.c.id)
            ).label("turn"),
            func.coalesce(turns.c.last, 0).label("last"),
        )
        .select_from(volumes.join(imports).outerjoin(turns, turns.c.tenant == tenant))
        .where(volumes.c.status.in_(MAKING))
        .subquery()
    )
    place = func.row_number().over(order_by=[unsettled.c.turn, unsettled.c.last, unsettled.c.id])
    columns = (unsettled.c.id, unsettled.c.backend, unsettled.c.source, place.label("position"))
    return select(*columns).where(unsettled.c.waits).subquery("line")


def _note_turn(connection: Connection, tenant: str) -> None:
    """Note that a tenant has had its turn, after all others."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    last = select(func.coalesce(func.max(turns.c.last), 0) + 1).scalar_subquery()
    noted = insert(turns).values(tenant=tenant, last=last)
    connection.execute(
        noted.on_conflict_do_update(index_elements=["tenant"], set_={"last": noted.excluded.last})
    )


def renew(
    connection: Connection, holder: str, volume_id: int, statuses: Collection[Status], until: float
) -> bool:
    """Renew a lease, and lock the row until the transaction ends.

    :param statuses: what the claim is for.
    :returns: False means: stop, another has it, or the volume is wanted otherwise.
    """
    mine = _held(holder, volume_id) & volumes.c.status.in_(statuses)
    return connection.execute(update(volumes).where(mine).values(lease_until=until)).rowcount == 1


def release(connection: Connection, holder: str, volume_id: int) -> None:
    """Let go of a volume, so that anyone may claim it if it is still unsettled."""
    connection.execute(
        update(volumes).where(_held(holder, volume_id)).values(worker=None, lease_until=None)
    )


def release_all(connection: Connection, worker: str) -> None:
    """End every lease of ``worker``: for a daemon that starts again after it was killed."""
    mine = volumes.c.worker.startswith(f"{worker}/", autoescape=True)
    connection.execute(update(volumes).where(mine).values(worker=None, lease_until=None))


def _free(now: float) -> ColumnElement[bool]:
    return or_(volumes.c.worker.is_(None), volumes.c.lease_until < now)


def _held(holder: str, volume_id: int) -> ColumnElement[bool]:
    return and_(volumes.c.id == volume_id, volumes.c.worker == holder)
