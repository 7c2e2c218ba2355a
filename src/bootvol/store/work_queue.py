"""The queues of all work but imports, and the rules for work that must wait for other work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import attrs
from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    and_,
    bindparam,
    exists,
    func,
    not_,
    null,
    or_,
    select,
)

from bootvol.lifecycle import MAKING, MOVING, POWERING, REPLACING, Kind, Status
from bootvol.model import Server, Snapshot, Volume
from bootvol.store import claims, disabled
from bootvol.store import servers as server_rows
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.schema import (
    LIVING,
    attachments,
    daemons,
    replacements,
    servers,
    snapshots,
    volume_uploads,
    volumes,
)
from bootvol.store.waiting import Order, Waiting

#: The object of a worker's work.
Subject = Volume | Snapshot | Server
#: The claimed object, if any, and all waiting work, whether an order admits the work or not.
Found = tuple[Subject | None, Collection[Waiting]]

_VALUES: Final[Mapping[Kind, Callable[[Row[object]], Subject]]] = {
    Kind.VOLUME: volume_rows.of_row,
    Kind.SNAPSHOT: snapshot_rows.of_row,
    Kind.SERVER: server_rows.of_row,
}

#: Statuses of rows that go, with their data or without.
_GOING: Final = frozenset({Status.DELETING, Status.GIVING_UP})
#: Statuses of a volume about which a server is told.
_TOLD: Final = MOVING | {Status.EXTENDING}
#: The SQL condition for volumes that become larger.
_GROWS: Final = volumes.c.status == Status.EXTENDING
#: The same tables once more, to compare one volume of a server with another.
_OTHERS: Final = volumes.alias("others")
_THEIRS: Final = attachments.alias("theirs")


def claim_copy(connection: Connection, request: claims.ClaimRequest, order: Order) -> Found:
    """Claim a copy, which may take long."""
    return _first(connection, request, order, _COPY)


def claim_zeroing(connection: Connection, request: claims.ClaimRequest, order: Order) -> Found:
    """Claim a removal or a blank volume on a backend that zeroes whole volumes.

    Zeroing may take long, too.
    """
    return _first(connection, request, order, _ZEROING)


def claim_quick(connection: Connection, request: claims.ClaimRequest, order: Order) -> Found:
    """Claim a removal or a blank volume on a backend where such work is quick."""
    return _first(connection, request, order, _QUICK)


def claim_hosting(connection: Connection, request: claims.ClaimRequest, order: Order) -> Found:
    """Claim work that depends on hypervisors and guests: volumes to attach or detach, servers."""
    return _first(connection, request, order, _HOSTING if request.serves else _HOSTING[:1])


def _first(
    connection: Connection, request: claims.ClaimRequest, order: Order, wanted: Sequence[_Work]
) -> Found:
    """Claim the oldest wanted row of the waiting work that an order puts first."""
    found = {
        Waiting(work.kind, row.tenant, row.backend): work
        for work in wanted
        for row in connection.execute(work.waiting, request.values())
    }
    for what in order.admitted(found):
        work, of = found[what], {"tenant": what.tenant, "backend": what.backend}
        row = claims.claim(connection, work.kind, request, work.oldest, **of)
        if row is not None:
            return _VALUES[work.kind](row), found
    return None, found


@attrs.frozen
class _Work:
    """Work of one kind.

    The queries are made once: SQLAlchemy needs several times the database's time to make one.

    :ivar waiting: finds the tenants and backends with such work, those of the oldest work first.
    :ivar oldest: finds the oldest such work of one tenant and backend, the parameters.
    """

    kind: Kind
    waiting: claims.Query
    oldest: claims.Query


def _work(kind: Kind, condition: ColumnElement[bool]) -> _Work:
    table = LIVING[kind]
    by = [table.c.tenant, *([] if kind is Kind.SERVER else [table.c.backend])]
    waiting = (
        select(
            table.c.tenant, (null() if kind is Kind.SERVER else table.c.backend).label("backend")
        )
        .where(claims.free(table), ~claims.busy(table, kind), condition)
        .group_by(*by)
        .order_by(func.min(table.c.id))
    )
    mine = [each == bindparam(each.name) for each in by]
    return _Work(kind, waiting, claims.oldest(kind, condition, *mine))


def _copy() -> Sequence[_Work]:
    """Return the work of copies, which may take long.

    A copy is a snapshot to make, a volume to make from a snapshot or from another volume, an image
    to make of a volume, or a replacement of a volume's data.
    """
    snapshot = and_(claims.here(snapshots), snapshots.c.status == Status.CREATING)
    volume = and_(
        claims.here(volumes),
        volumes.c.status.in_(MAKING),
        disabled.begins(volumes, claims.HOST),
        or_(volumes.c.snapshot_id.is_not(None), volumes.c.source_id.is_not(None)),
        # The origin may lie on another backend than the volume.
        ~exists().where(snapshots.c.id == volumes.c.snapshot_id, not_(claims.here(snapshots))),
        ~exists().where(_OTHERS.c.id == volumes.c.source_id, not_(claims.here(_OTHERS))),
    )
    volume = or_(volume, _upload(), _replacement())
    return [_work(Kind.SNAPSHOT, snapshot), _work(Kind.VOLUME, volume)]


def _small(backends: str) -> Sequence[_Work]:
    """Return the work of removals, growth and blank volumes on some backends.

    :param backends: see :func:`bootvol.store.claims.here`.
    """
    volume = and_(claims.here(volumes, backends), or_(_blank(), _growth(), _removal()))
    snapshot = and_(claims.here(snapshots, backends), _snapshot_removal())
    return [_work(Kind.VOLUME, volume), _work(Kind.SNAPSHOT, snapshot)]


def _blank() -> ColumnElement[bool]:
    return and_(
        volumes.c.status.in_(MAKING),
        disabled.begins(volumes, claims.HOST),
        volumes.c.image_id.is_(None),
        volumes.c.snapshot_id.is_(None),
        volumes.c.source_id.is_(None),
    )


def _growth() -> ColumnElement[bool]:
    """Return the SQL condition for volumes to make larger, but for disks of bootvol's servers."""
    plugged = exists().where(attachments.c.volume_id == volumes.c.id)
    return and_(volumes.c.status == Status.EXTENDING, ~plugged, ~_copied())


def _upload() -> ColumnElement[bool]:
    """Return the SQL condition for volumes to upload.

    A daemon that knows the token of the caller uploads the volume alone, while the daemon runs.
    """
    runs = exists().where(
        daemons.c.id == volume_uploads.c.daemon, claims.lasts(daemons.c.lease_until)
    )
    mine = exists().where(
        volume_uploads.c.volume_id == volumes.c.id,
        or_(_is(volume_uploads.c.daemon), ~runs),
    )
    return and_(claims.here(volumes), volumes.c.status == Status.UPLOADING, mine)


def _replacement() -> ColumnElement[bool]:
    """Return the SQL condition for volumes whose data are to be replaced.

    The new data may lie on another backend.
    """
    reached = exists().where(replacements.c.volume_id == volumes.c.id, claims.here(replacements))
    return and_(claims.here(volumes), volumes.c.status.in_(REPLACING), reached, ~_copied())


def _removal() -> ColumnElement[bool]:
    """Return the SQL condition for volumes to remove.

    Their snapshots go first: who deletes both sees no snapshot of a volume that is gone.
    """
    before = exists().where(snapshots.c.volume_id == volumes.c.id, snapshots.c.status.in_(_GOING))
    return and_(volumes.c.status.in_(_GOING), ~_copied(), ~before)


def _snapshot_removal() -> ColumnElement[bool]:
    return and_(
        snapshots.c.status.in_(_GOING),
        ~exists().where(volumes.c.snapshot_id == snapshots.c.id, _is_made(volumes, Kind.VOLUME)),
    )


def _move() -> ColumnElement[bool]:
    """Return the SQL condition for volumes to attach, detach, or make larger while a server runs.

    Work on whole servers attaches and detaches by itself, and waits for growth.
    """
    whole = exists().where(
        servers.c.id == attachments.c.hosted, servers.c.status != Status.AVAILABLE
    )
    mine = exists().where(
        attachments.c.volume_id == volumes.c.id,
        _is(attachments.c.daemon),
        or_(volumes.c.status == Status.EXTENDING, ~whole),
        ~_told(attachments.c.hosted),
    )
    # Writes to a volume during its copy would make a copy of no single moment.
    quiet = or_(volumes.c.status == Status.DETACHING, ~_copied())
    return and_(volumes.c.status.in_(_TOLD), mine, quiet)


def _build() -> ColumnElement[bool]:
    """Return the SQL condition for servers to start.

    All of their volumes exist, are at rest, and are on hosts that the daemon reaches.
    """
    return and_(
        servers.c.status == Status.CREATING,
        ~_has(and_(volumes.c.host != "", volumes.c.host != claims.HOST)),
        ~_has(or_(volumes.c.status.in_(MAKING), _copied())),
    )


def _end() -> ColumnElement[bool]:
    """Return the SQL condition for servers to end: none of their disks is attached or detached."""
    return and_(servers.c.status == Status.DELETING, ~_told(servers.c.id), ~_has(_GROWS))


def _power() -> ColumnElement[bool]:
    """Return the SQL condition for servers to turn off or on: none of their disks is plugged."""
    return and_(servers.c.status.in_(POWERING), ~_told(servers.c.id), ~_has(_GROWS))


def _copied() -> ColumnElement[bool]:
    """Return the SQL condition for volumes that must not change.

    A snapshot of them is made, or another volume is made from them.
    """
    return or_(
        exists().where(snapshots.c.volume_id == volumes.c.id, _is_made(snapshots, Kind.SNAPSHOT)),
        exists().where(_OTHERS.c.source_id == volumes.c.id, _is_made(_OTHERS, Kind.VOLUME)),
    )


def _is_made(table: FromClause, kind: Kind) -> ColumnElement[bool]:
    """Return the SQL condition for rows in the making.

    A row that was deleted in the making counts while a worker works on the row: the worker may
    still read.
    """
    gives_up = and_(table.c.status == Status.DELETING, _worked_on(table, kind))
    return or_(table.c.status.in_(MAKING), gives_up)


def _told(server: ColumnElement[object]) -> ColumnElement[bool]:
    """Return the SQL condition for servers with a disk being plugged or unplugged now.

    A server gets one call at a time.
    """
    return exists().where(
        _THEIRS.c.hosted == server,
        _THEIRS.c.volume_id == _OTHERS.c.id,
        _OTHERS.c.status.in_(_TOLD),
        _worked_on(_OTHERS, Kind.VOLUME),
    )


def _worked_on(table: FromClause, kind: Kind) -> ColumnElement[bool]:
    """Return the SQL condition for rows in work.

    This daemon knows its own work better than the leases do.
    """
    return or_(~claims.free(table), claims.busy(table, kind))


def _has(volume: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the SQL condition for servers with a volume that meets a condition."""
    return exists().where(
        attachments.c.hosted == servers.c.id, attachments.c.volume_id == volumes.c.id, volume
    )


def _is(daemon: ColumnElement[str | None]) -> ColumnElement[bool]:
    return or_(daemon.is_(None), daemon == claims.DAEMON)


_COPY: Final = _copy()
_ZEROING: Final = _small("zeroed")
_QUICK: Final = _small("quick")
_HOSTING: Final = [
    _work(Kind.VOLUME, and_(claims.here(volumes), _move())),
    _work(Kind.SERVER, and_(_is(servers.c.daemon), or_(_build(), _end(), _power()))),
]
