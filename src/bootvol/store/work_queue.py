"""The queues of all work but imports, and the rules for work that must wait for other work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    and_,
    exists,
    func,
    not_,
    null,
    or_,
    select,
)

from bootvol.lifecycle import MAKING, MOVING, POWERING, REPLACING, Kind, Status
from bootvol.model import Server, Snapshot, Volume
from bootvol.store import claims
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
    """Claim a copy, which may take long.

    A copy is a snapshot to make, a volume to make from a snapshot or from another volume, an image
    to make of a volume, or a replacement of a volume's data.
    """
    snapshot = and_(claims.here(snapshots, request), snapshots.c.status == Status.CREATING)
    volume = and_(
        claims.here(volumes, request),
        volumes.c.status.in_(MAKING),
        or_(volumes.c.snapshot_id.is_not(None), volumes.c.source_id.is_not(None)),
        # The origin may lie on another backend than the volume.
        ~exists().where(
            snapshots.c.id == volumes.c.snapshot_id,
            not_(claims.here(snapshots, request)),
        ),
        ~exists().where(_OTHERS.c.id == volumes.c.source_id, not_(claims.here(_OTHERS, request))),
    )
    volume = or_(volume, _upload(request), _replacement(request))
    return _first(connection, request, order, {Kind.SNAPSHOT: snapshot, Kind.VOLUME: volume})


def claim_zeroing(connection: Connection, request: claims.ClaimRequest, order: Order) -> Found:
    """Claim a removal or a blank volume on a backend that zeroes whole volumes.

    Zeroing may take long, too.
    """
    return _first(connection, request, order, _small(request, request.zeroed))


def claim_quick(connection: Connection, request: claims.ClaimRequest, order: Order) -> Found:
    """Claim a removal or a blank volume on a backend where such work is quick."""
    quick = set(request.backends).difference(request.zeroed)
    return _first(connection, request, order, _small(request, quick))


def claim_hosting(connection: Connection, request: claims.ClaimRequest, order: Order) -> Found:
    """Claim work that depends on hypervisors and guests: volumes to attach or detach, servers."""
    wanted = {Kind.VOLUME: and_(claims.here(volumes, request), _move(request))}
    if request.serves:
        wanted[Kind.SERVER] = and_(
            _is(servers.c.daemon, request), or_(_build(request), _end(request), _power(request))
        )
    return _first(connection, request, order, wanted)


def _first(
    connection: Connection,
    request: claims.ClaimRequest,
    order: Order,
    wanted: Mapping[Kind, ColumnElement[bool]],
) -> Found:
    """Claim the oldest wanted row of the waiting work that an order puts first."""
    waiting = [
        each
        for kind, condition in wanted.items()
        for each in _waiting(connection, request, kind, condition)
    ]
    for each in order.admitted(waiting):
        table = LIVING[each.kind]
        mine = and_(wanted[each.kind], table.c.tenant == each.tenant)
        if each.backend is not None:
            mine = and_(mine, table.c.backend == each.backend)
        row = claims.claim(connection, each.kind, request, mine)
        if row is not None:
            return _VALUES[each.kind](row), waiting
    return None, waiting


def _waiting(
    connection: Connection, request: claims.ClaimRequest, kind: Kind, condition: ColumnElement[bool]
) -> Collection[Waiting]:
    """Return the waiting work of one kind, the oldest first."""
    table = LIVING[kind]
    backend = null() if kind is Kind.SERVER else table.c.backend
    rows = connection.execute(
        select(table.c.tenant, backend.label("backend"))
        .where(claims.free(table), table.c.id.not_in(request.busy[kind]), condition)
        .group_by(table.c.tenant, *([] if kind is Kind.SERVER else [backend]))
        .order_by(func.min(table.c.id))
    )
    return [Waiting(kind, row.tenant, row.backend) for row in rows]


def _small(
    request: claims.ClaimRequest, backends: Collection[str]
) -> Mapping[Kind, ColumnElement[bool]]:
    """Return the SQL conditions for removals, growth and blank volumes on some backends."""
    return {
        Kind.VOLUME: and_(
            claims.here(volumes, request, backends),
            or_(_blank(), _growth(request), _removal(request)),
        ),
        Kind.SNAPSHOT: and_(claims.here(snapshots, request, backends), _snapshot_removal(request)),
    }


def _blank() -> ColumnElement[bool]:
    return and_(
        volumes.c.status.in_(MAKING),
        volumes.c.image_id.is_(None),
        volumes.c.snapshot_id.is_(None),
        volumes.c.source_id.is_(None),
    )


def _growth(request: claims.ClaimRequest) -> ColumnElement[bool]:
    """Return the SQL condition for volumes to make larger, but for disks of bootvol's servers."""
    plugged = exists().where(attachments.c.volume_id == volumes.c.id)
    return and_(volumes.c.status == Status.EXTENDING, ~plugged, ~_copied(request))


def _upload(request: claims.ClaimRequest) -> ColumnElement[bool]:
    """Return the SQL condition for volumes to upload.

    A daemon that knows the token of the caller uploads the volume alone, while the daemon runs.
    """
    runs = exists().where(
        daemons.c.id == volume_uploads.c.daemon, claims.lasts(daemons.c.lease_until)
    )
    mine = exists().where(
        volume_uploads.c.volume_id == volumes.c.id,
        or_(_is(volume_uploads.c.daemon, request), ~runs),
    )
    return and_(claims.here(volumes, request), volumes.c.status == Status.UPLOADING, mine)


def _replacement(request: claims.ClaimRequest) -> ColumnElement[bool]:
    """Return the SQL condition for volumes whose data are to be replaced.

    The new data may lie on another backend.
    """
    reached = exists().where(
        replacements.c.volume_id == volumes.c.id, claims.here(replacements, request)
    )
    return and_(
        claims.here(volumes, request), volumes.c.status.in_(REPLACING), reached, ~_copied(request)
    )


def _removal(request: claims.ClaimRequest) -> ColumnElement[bool]:
    return and_(volumes.c.status.in_(_GOING), ~_copied(request))


def _snapshot_removal(request: claims.ClaimRequest) -> ColumnElement[bool]:
    return and_(
        snapshots.c.status.in_(_GOING),
        ~exists().where(
            volumes.c.snapshot_id == snapshots.c.id, _is_made(volumes, Kind.VOLUME, request)
        ),
    )


def _move(request: claims.ClaimRequest) -> ColumnElement[bool]:
    """Return the SQL condition for volumes to attach, detach, or make larger while a server runs.

    Work on whole servers attaches and detaches by itself, and waits for growth.
    """
    whole = exists().where(
        servers.c.id == attachments.c.hosted, servers.c.status != Status.AVAILABLE
    )
    mine = exists().where(
        attachments.c.volume_id == volumes.c.id,
        _is(attachments.c.daemon, request),
        or_(volumes.c.status == Status.EXTENDING, ~whole),
        ~_told(attachments.c.hosted, request),
    )
    # Writes to a volume during its copy would make a copy of no single moment.
    quiet = or_(volumes.c.status == Status.DETACHING, ~_copied(request))
    return and_(volumes.c.status.in_(_TOLD), mine, quiet)


def _build(request: claims.ClaimRequest) -> ColumnElement[bool]:
    """Return the SQL condition for servers to start.

    All of their volumes exist, are at rest, and are on hosts that the daemon reaches.
    """
    return and_(
        servers.c.status == Status.CREATING,
        ~_has(volumes.c.host.not_in(["", request.host])),
        ~_has(or_(volumes.c.status.in_(MAKING), _copied(request))),
    )


def _end(request: claims.ClaimRequest) -> ColumnElement[bool]:
    """Return the SQL condition for servers to end: none of their disks is attached or detached."""
    return and_(servers.c.status == Status.DELETING, ~_told(servers.c.id, request), ~_has(_GROWS))


def _power(request: claims.ClaimRequest) -> ColumnElement[bool]:
    """Return the SQL condition for servers to turn off or on: none of their disks is plugged."""
    return and_(servers.c.status.in_(POWERING), ~_told(servers.c.id, request), ~_has(_GROWS))


def _copied(request: claims.ClaimRequest) -> ColumnElement[bool]:
    """Return the SQL condition for volumes that must not change.

    A snapshot of them is made, or another volume is made from them.
    """
    return or_(
        exists().where(
            snapshots.c.volume_id == volumes.c.id, _is_made(snapshots, Kind.SNAPSHOT, request)
        ),
        exists().where(
            _OTHERS.c.source_id == volumes.c.id, _is_made(_OTHERS, Kind.VOLUME, request)
        ),
    )


def _is_made(table: FromClause, kind: Kind, request: claims.ClaimRequest) -> ColumnElement[bool]:
    """Return the SQL condition for rows in the making.

    A row that was deleted in the making counts while a worker works on the row: the worker may
    still read.
    """
    gives_up = and_(table.c.status == Status.DELETING, _worked_on(table, kind, request))
    return or_(table.c.status.in_(MAKING), gives_up)


def _told(server: ColumnElement[object], request: claims.ClaimRequest) -> ColumnElement[bool]:
    """Return the SQL condition for servers with a disk being plugged or unplugged now.

    A server gets one call at a time.
    """
    return exists().where(
        _THEIRS.c.hosted == server,
        _THEIRS.c.volume_id == _OTHERS.c.id,
        _OTHERS.c.status.in_(_TOLD),
        _worked_on(_OTHERS, Kind.VOLUME, request),
    )


def _worked_on(table: FromClause, kind: Kind, request: claims.ClaimRequest) -> ColumnElement[bool]:
    """Return the SQL condition for rows in work.

    This daemon knows its own work better than the leases do.
    """
    return or_(~claims.free(table), table.c.id.in_(request.busy[kind]))


def _has(volume: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the SQL condition for servers with a volume that meets a condition."""
    return exists().where(
        attachments.c.hosted == servers.c.id, attachments.c.volume_id == volumes.c.id, volume
    )


def _is(daemon: ColumnElement[str | None], request: claims.ClaimRequest) -> ColumnElement[bool]:
    return or_(daemon.is_(None), daemon == request.daemon)
