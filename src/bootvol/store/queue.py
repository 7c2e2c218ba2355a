"""What there is to do besides imports, and what has to wait for what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, or_

from bootvol.lifecycle import MAKING, MOVING, Kind, Status
from bootvol.model import Server, Snapshot, Volume
from bootvol.store import claims
from bootvol.store import servers as server_rows
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.schema import attachments, servers, snapshots, volumes

#: What a worker works on.
Subject = Volume | Snapshot | Server

_VALUES: Final[Mapping[Kind, Callable[[Row[Any]], Subject]]] = {
    Kind.VOLUME: volume_rows.of_row,
    Kind.SNAPSHOT: snapshot_rows.of_row,
    Kind.SERVER: server_rows.of_row,
}

#: A volume that must stay as it is: a snapshot of it is being made.
_COPIED: Final = exists().where(
    snapshots.c.volume_id == volumes.c.id, snapshots.c.status == Status.CREATING
)


def claim_copy(connection: Connection, holder: claims.Holder) -> Subject | None:
    """Claim what may take long: a snapshot to make, or a volume to make from one."""
    snapshot = and_(snapshots.c.backend.in_(holder.backends), snapshots.c.status == Status.CREATING)
    volume = and_(
        volumes.c.backend.in_(holder.backends),
        volumes.c.status.in_(MAKING),
        volumes.c.snapshot_id.is_not(None),
    )
    return _first(connection, holder, {Kind.SNAPSHOT: snapshot, Kind.VOLUME: volume})


def claim_zeroing(connection: Connection, holder: claims.Holder) -> Subject | None:
    """Claim a blank volume or a removal where all of it is zeroed, which may take long, too."""
    zeroed = {
        Kind.VOLUME: and_(volumes.c.backend.in_(holder.zeroed), or_(_blank(), _removal())),
        Kind.SNAPSHOT: and_(snapshots.c.backend.in_(holder.zeroed), _snapshot_removal()),
    }
    return _first(connection, holder, zeroed)


def claim_quick(connection: Connection, holder: claims.Holder) -> Subject | None:
    """Claim what is quick: removals, blank volumes, attaching, servers."""
    quick = volumes.c.backend.not_in(holder.zeroed)
    wanted = {
        Kind.VOLUME: and_(
            volumes.c.backend.in_(holder.backends),
            or_(and_(quick, or_(_blank(), _removal())), _move(holder)),
        ),
        Kind.SNAPSHOT: and_(
            snapshots.c.backend.in_(holder.backends),
            snapshots.c.backend.not_in(holder.zeroed),
            _snapshot_removal(),
        ),
    }
    if holder.serves:
        wanted[Kind.SERVER] = and_(_is(servers.c.daemon, holder), or_(_build(), _end(holder)))
    return _first(connection, holder, wanted)


def _first(
    connection: Connection, holder: claims.Holder, wanted: Mapping[Kind, ColumnElement[bool]]
) -> Subject | None:
    for kind, condition in wanted.items():
        row = claims.claim(connection, kind, holder, condition)
        if row is not None:
            return _VALUES[kind](row)
    return None


def _blank() -> ColumnElement[bool]:
    return and_(
        volumes.c.status.in_(MAKING), volumes.c.image_id.is_(None), volumes.c.snapshot_id.is_(None)
    )


def _removal() -> ColumnElement[bool]:
    return and_(volumes.c.status == Status.DELETING, ~_COPIED)


def _snapshot_removal() -> ColumnElement[bool]:
    return and_(
        snapshots.c.status == Status.DELETING,
        ~exists().where(volumes.c.snapshot_id == snapshots.c.id, volumes.c.status.in_(MAKING)),
    )


def _move(holder: claims.Holder) -> ColumnElement[bool]:
    """Return what tells volumes to attach or detach, but for the work of whole servers."""
    whole = exists().where(
        servers.c.id == attachments.c.hosted, servers.c.status != Status.AVAILABLE
    )
    mine = exists().where(
        attachments.c.volume_id == volumes.c.id, _is(attachments.c.daemon, holder), ~whole
    )
    # Who writes to a volume while it is copied makes the copy that of no moment.
    quiet = or_(volumes.c.status == Status.DETACHING, ~_COPIED)
    return and_(volumes.c.status.in_(MOVING), mine, quiet)


def _build() -> ColumnElement[bool]:
    """Return what tells servers to start: all of their volumes are there and at rest."""
    return and_(
        servers.c.status == Status.CREATING, ~_has(or_(volumes.c.status.in_(MAKING), _COPIED))
    )


def _end(holder: claims.Holder) -> ColumnElement[bool]:
    """Return what tells servers to end: nobody attaches or detaches anything of theirs just now."""
    moved = and_(volumes.c.status.in_(MOVING), ~claims.free(volumes, holder.now))
    return and_(servers.c.status == Status.DELETING, ~_has(moved))


def _has(volume: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return what tells servers that have a volume of some kind."""
    return exists().where(
        attachments.c.hosted == servers.c.id, attachments.c.volume_id == volumes.c.id, volume
    )


def _is(daemon: ColumnElement[str | None], holder: claims.Holder) -> ColumnElement[bool]:
    return or_(daemon.is_(None), daemon == holder.daemon)
