"""Rows of strays: names on backends under which daemons worked when they lost their claims.

A daemon whose lease ran out may only be suspended, and write again later.  So a claim that takes
over another daemon's work gives the volume or snapshot a new name on its backend.  This happens in
the transaction of the claim.  The former name becomes a stray.  Names are never used again.  A
stray is deleted as soon as nothing needs the name, and again while the former daemon could make the
stray anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import uuid4

import attrs
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy import delete as delete_from

from bootvol.lifecycle import MAKING, REPLACING, Kind, Status
from bootvol.store.schema import (
    cached_images,
    imports,
    replacements,
    snapshots,
    strays,
    volumes,
)

#: Statuses in which a worker may be making the data under a name, or may have begun to.
_MADE: Final = frozenset({*MAKING, Status.DELETING})


@attrs.frozen
class Stray:
    """A name that no row has any more.

    :ivar id: id of the stray's own row.
    :ivar name: name on the backend.
    """

    id: int
    backend: str
    name: str


def leave(
    connection: Connection, kind: Kind, row: Row[object], daemon: str
) -> Mapping[str, object]:
    """Make a stray of the name under which another daemon worked.

    :param row: locked row of the claimed volume or snapshot.
    :param daemon: id of the daemon whose lease ran out.
    :returns: the columns to set in the row: a new name; none for a volume that is to be removed.
    """
    if kind is Kind.VOLUME and row.status in REPLACING:
        _leave_replacement(connection, row.id, daemon)
        return {}
    if kind is Kind.SERVER or row.status not in _MADE or row.place is not None:
        # Nobody writes to a disk that is taken over, and a deletion would lose the disk.
        return {}
    _add(connection, row, daemon)
    if kind is Kind.VOLUME:
        _leave_cached_images(connection, row.id, daemon)
    if row.status == Status.DELETING:
        # The removal deletes this name first of all.  Later the name is deleted as a stray, if
        # need be.
        return {}
    if kind is Kind.VOLUME:
        begun = and_(imports.c.volume_id == row.id, imports.c.durable_bytes.is_not(None))
        kept = func.coalesce(imports.c.durable_name, row.name)
        connection.execute(update(imports).where(begun).values(durable_name=kept))
    return {"name": f"{kind}-{uuid4()}"}


def _leave_replacement(connection: Connection, volume_id: int, daemon: str) -> None:
    """Begin the replacement of a volume's data anew, under another name."""
    mine = replacements.c.volume_id == volume_id
    for row in connection.execute(select(replacements).where(mine)).all():
        _add(connection, row, daemon)
        fresh = {"name": f"volume-{uuid4()}", "durable_bytes": None}
        connection.execute(update(replacements).where(mine).values(fresh))


def _leave_cached_images(connection: Connection, volume_id: int, daemon: str) -> None:
    """Give up the cached images that a lost claim was making of a volume."""
    making = and_(cached_images.c.volume_id == volume_id, cached_images.c.state == "making")
    for row in connection.execute(select(cached_images).where(making)).all():
        _add(connection, row, daemon)
        connection.execute(delete_from(cached_images).where(cached_images.c.id == row.id))


def _add(connection: Connection, row: Row[object], daemon: str) -> None:
    known = and_(strays.c.name == row.name, strays.c.daemon == daemon)
    if not connection.execute(select(exists().where(known))).scalar():
        left = {"backend": row.backend, "host": row.host, "name": row.name, "daemon": daemon}
        connection.execute(insert(strays).values(left))


def leave_behind(connection: Connection, backend: str, host: str, name: str) -> None:
    """Make a stray of data that nobody needs any more, and that no daemon can make anew."""
    left = {"backend": backend, "host": host, "name": name}
    connection.execute(insert(strays).values(left))


def due(
    connection: Connection, backend: str, host: str, now: float, pause: float
) -> Sequence[Stray]:
    """Return the strays to delete now, and hide them from other daemons for a while.

    :param backend: name of the backend to look at.
    :param host: host of the backend's volumes; empty for a backend that all hosts reach.
    :param now: seconds since 1970.
    :param pause: seconds until these strays are due again.
    """
    # If the clock was set back, strays with a due time far ahead are due at once, as if found now.
    time = or_(strays.c.due.is_(None), strays.c.due <= now, strays.c.due > now + pause)
    query = (
        select(strays.c.id, strays.c.backend, strays.c.name)
        .where(strays.c.backend == backend, strays.c.host == host, time, ~_used(strays.c.name))
        .order_by(strays.c.id)
        .with_for_update(skip_locked=True)
    )
    found = [Stray(*row) for row in connection.execute(query)]
    connection.execute(
        update(strays)
        .where(strays.c.id.in_([each.id for each in found]))
        .values(due=now + pause, since=case((strays.c.since <= now, strays.c.since), else_=now))
    )
    return found


def deleted(connection: Connection, number: int, before: float) -> None:
    """Note the deletion of a stray.  Forget the stray if nobody can make the stray anew.

    :param before: seconds since 1970.  A stray that was first due before this time is forgotten
        even if its daemon could make the stray anew.
    """
    over = or_(strays.c.daemon.is_(None), strays.c.since < before)
    connection.execute(delete_from(strays).where(strays.c.id == number, over))


def may_be_open(connection: Connection, name: str) -> bool:
    """Return whether a daemon that lost its claim on a name may still have the name open."""
    known = and_(strays.c.name == name, strays.c.daemon.is_not(None))
    return bool(connection.execute(select(exists().where(known))).scalar())


def is_mine(connection: Connection, name: str, daemon: str) -> bool:
    """Return whether a daemon may delete a name of its lost work: no row has or needs the name.

    From now on the daemon does nothing else with the name.
    """
    mine = and_(strays.c.name == name, strays.c.daemon == daemon)
    connection.execute(update(strays).where(mine).values(daemon=None, due=None))
    return not connection.execute(select(_used(name))).scalar()


def forget(connection: Connection, name: str) -> None:
    """Forget a name after the only daemon that could make the name anew has deleted the name."""
    over = and_(strays.c.name == name, strays.c.daemon.is_(None))
    connection.execute(delete_from(strays).where(over))


def end_all(connection: Connection, daemon: str | None) -> None:
    """Note that a daemon will make none of its strays anew, since the daemon has started again.

    :param daemon: id of the daemon; None for all.
    """
    mine = strays.c.daemon.is_not(None) if daemon is None else strays.c.daemon == daemon
    connection.execute(update(strays).where(mine).values(daemon=None, due=None))


def _used(name: ColumnElement[str] | str) -> ColumnElement[bool]:
    """Return the SQL condition for names that a row has, or that an import will resume from."""
    return or_(
        exists().where(volumes.c.name == name),
        exists().where(snapshots.c.name == name),
        exists().where(cached_images.c.name == name),
        exists().where(replacements.c.name == name),
        exists().where(imports.c.durable_name == name),
    )
