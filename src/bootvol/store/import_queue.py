"""The queue of imports: the next import, the place of each, and imports that wait for another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Subquery,
    Tuple,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    tuple_,
)

from bootvol.lifecycle import MAKING, Kind, Status
from bootvol.store import claims, disabled, upsert
from bootvol.store import image_cache as cached_image_rows
from bootvol.store.schema import imports, turns, volumes
from bootvol.store.waiting import Order, Waiting

#: The same tables once more, to compare one import with another.
_OTHERS: Final = volumes.alias("others")
_OTHER_IMPORTS: Final = imports.alias("other_imports")


def claim(
    connection: Connection, request: claims.ClaimRequest, sources: Collection[str], order: Order
) -> tuple[Row[object] | None, Collection[Waiting]]:
    """Claim the first import in the queue that may be claimed.

    The tenant with the fewest places on this daemon comes first, according to ``order``.  Among
    equals the first in the queue comes first.

    :param sources: names of the sources whose imports may be claimed.
    :returns: the row of the import's volume, or None; and all waiting imports, whether the order
        admits them or not.
    """
    # First read the queue, then claim one row after the other.  PostgreSQL locks no rows of a query
    # with window functions.  Joined to such a query, PostgreSQL would look through the whole queue
    # again for each volume.
    rows = connection.execute(_WAITING, {**request.values(), "sources": list(sources)}).all()
    found = [(Waiting(Kind.VOLUME, row.tenant, row.backend, row.source), row.id) for row in rows]
    waiting = list(dict.fromkeys(what for what, _ in found))
    places = {what: order.places(what) for what in order.admitted(waiting)}
    mine = [each for each in found if each[0] in places]
    for _, number in sorted(mine, key=lambda each: places[each[0]]):
        if not _is_the_only_one(connection, number):
            continue
        row = claims.claim(connection, Kind.VOLUME, request, _IMPORT, number=number)
        if row is not None:
            _note_turn(connection, row.tenant)
            return row, waiting
    return None, waiting


def _is_the_only_one(connection: Connection, volume_id: int) -> bool:
    """Check that no other daemon has begun to copy the same since this daemon read the queue.

    Another daemon's claim becomes visible only with its commit.  Until then an advisory lock tells
    of the claim.
    """
    if connection.dialect.name != "postgresql":
        return True  # On SQLite nobody else writes.
    same = connection.execute(
        select(volumes.c.backend, volumes.c.host, imports.c.content)
        .select_from(volumes.join(imports))
        .where(
            volumes.c.id == volume_id,
            imports.c.content.is_not(None),
            ~_content().in_(cached_image_rows.ready()),
        )
    ).one_or_none()
    if same is None:
        return True
    lock = func.pg_try_advisory_xact_lock(func.hashtextextended("/".join(same), 0))
    return bool(connection.scalar(select(lock))) and leader(connection, volume_id) is None


def position(connection: Connection, volume_id: int) -> int | None:
    """Return an import's place among the waiting imports of its tenant, from 1; else None.

    The place reveals nothing of other tenants: an import that waits for another tenant's import of
    the same image counts like all waiting imports.
    """
    tenant = select(volumes.c.tenant).where(volumes.c.id == volume_id).scalar_subquery()
    running = _running().where(_OTHERS.c.tenant == tenant).subquery()
    # Within a tenant the queue goes by age.
    query = (
        select(func.count(), func.max(volumes.c.id))
        .select_from(volumes.join(imports))
        .where(
            volumes.c.tenant == tenant,
            volumes.c.status.in_(MAKING),
            volumes.c.id <= volume_id,
            _waits(running),
        )
    )
    place, last = connection.execute(query).one()
    return place if last == volume_id else None


def leader(connection: Connection, volume_id: int, tenant: str | None = None) -> int | None:
    """Return the volume whose import an import waits for, since both copy the same; or None.

    :param tenant: tenant whose imports count; None for all tenants.
    """
    running = (
        _running() if tenant is None else _running().where(_OTHERS.c.tenant == tenant)
    ).subquery()
    query = (
        select(running.c.id)
        .select_from(volumes.join(imports))
        .join(running, _copies(running, volumes, imports))
        .where(
            volumes.c.id == volume_id,
            volumes.c.status.in_(MAKING),
            claims.free(volumes),
            ~_content().in_(cached_image_rows.ready()),
        )
        .order_by(running.c.id)
    )
    return connection.scalars(query.limit(1)).one_or_none()


def followers(connection: Connection, volume_id: int) -> Sequence[int]:
    """Return the volumes whose imports wait for ``volume_id``'s import, and have not begun.

    Lock their rows: nobody can claim these volumes until the transaction ends.
    """
    led = (
        select(volumes.c.backend, volumes.c.host, imports.c.content)
        .select_from(volumes.join(imports))
        .where(volumes.c.id == volume_id, ~_content().in_(cached_image_rows.ready()))
        .subquery()
    )
    query = (
        select(_OTHERS.c.id)
        .join_from(_OTHERS, _OTHER_IMPORTS, _OTHER_IMPORTS.c.volume_id == _OTHERS.c.id)
        .join(led, _copies(led, _OTHERS, _OTHER_IMPORTS))
        .where(
            _OTHERS.c.id != volume_id,
            _OTHERS.c.status == Status.CREATING,
            _OTHERS.c.worker.is_(None),
        )
        .with_for_update(of=_OTHERS, skip_locked=True)
    )
    return connection.scalars(query).all()


def _copies(same: Subquery, volume: FromClause, its_import: FromClause) -> ColumnElement[bool]:
    """Return the SQL condition for imports with the content, backend and host of ``same``."""
    return and_(
        same.c.backend == volume.c.backend,
        same.c.host == volume.c.host,
        same.c.content == its_import.c.content,
    )


def _running() -> Select[tuple[int, str, str, str]]:
    """Return the query for running imports that others may wait for: those with a known content.

    Another import of the same content onto the same backend waits, unless the backend has a cached
    image of the content.
    """
    return (
        select(_OTHERS.c.id, _OTHERS.c.backend, _OTHERS.c.host, _OTHER_IMPORTS.c.content)
        .join_from(_OTHERS, _OTHER_IMPORTS, _OTHER_IMPORTS.c.volume_id == _OTHERS.c.id)
        .where(
            _OTHERS.c.status.in_(MAKING),
            ~claims.free(_OTHERS),
            _OTHER_IMPORTS.c.content.is_not(None),
        )
    )


def _waits(running: Subquery) -> ColumnElement[bool]:
    """Return the SQL condition for unclaimed imports that wait for none of ``running``."""
    led = select(running.c.backend, running.c.host, running.c.content)
    unled = or_(_content().not_in(led), _content().in_(cached_image_rows.ready()))
    return and_(claims.free(volumes), unled)


def _content() -> Tuple:
    """Return an import's backend, host and content in SQL.  An unknown content is like no other."""
    return tuple_(volumes.c.backend, volumes.c.host, func.coalesce(imports.c.content, ""))


def _line() -> Subquery:
    """Return the waiting imports in their order: ``position`` counts from 1.

    The other columns are ``id``, ``tenant``, ``backend``, ``host``, ``status`` and ``source``.

    An import that waits for another import of the same image is not in the queue.

    Tenants take turns.  An import's turn is the number of its tenant's imports that run or wait
    before it.  So another tenant's first import comes next, however many imports one tenant asks
    for.  Within the same turn, the tenant that has waited longest for a turn goes first.

    Age alone would not be fair within a turn.  Where one import runs at a time, no tenant has a
    running import when the next is claimed.  Then all fifty imports of one tenant would come before
    another tenant's.
    """
    tenant, free = volumes.c.tenant, claims.free(volumes)
    # Start from the few running imports, not from each waiting one: thousands may wait.
    waits = _waits(_running().subquery())
    unsettled = (
        select(
            volumes.c.id,
            volumes.c.tenant,
            volumes.c.backend,
            volumes.c.host,
            volumes.c.status,
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
    of_volume = unsettled.c.id, unsettled.c.tenant, unsettled.c.backend, unsettled.c.host
    said = *of_volume, unsettled.c.status, unsettled.c.source
    return select(*said, place.label("position")).where(unsettled.c.waits).subquery("line")


def _waiting() -> claims.Query:
    """Return the query for the waiting imports that a request may claim, in their order."""
    line = _line()
    return (
        select(line)
        .where(
            claims.here(line),
            line.c.source.in_(bindparam("sources", expanding=True)),
            ~claims.busy(line, Kind.VOLUME),
            disabled.begins(line, claims.HOST),
        )
        .order_by(line.c.position)
    )


def _note_turn(connection: Connection, tenant: str) -> None:
    """Record a turn of a tenant as the latest of all turns."""
    last = select(func.coalesce(func.max(turns.c.last), 0) + 1).scalar_subquery()
    upsert.put(connection, turns, {"tenant": tenant}, {"last": last})


# Made once: SQLAlchemy needs several times the database's time to make such a query.
_WAITING: Final = _waiting()
_IMPORT: Final = claims.oldest(
    Kind.VOLUME, volumes.c.id == bindparam("number"), volumes.c.status.in_(MAKING)
)
