"""Who works on what is to be done: a lease that its worker renews, and others respect.

The status is the intent (creating, downloading: make it; deleting: remove it; attaching: attach
it), so the claim is on the volume, snapshot or server itself.  One worker at a time may touch what
lies under it: an import and a delete can never run at once, not even on two machines.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, Final

import attrs
from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    FromClause,
    Row,
    Table,
    and_,
    or_,
    select,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from bootvol.lifecycle import Kind, Status
from bootvol.store import strays
from bootvol.store.schema import LIVING

#: Seconds that a claim lasts unless it is renewed.
LEASE: Final = 30.0


class LeaseClock(GenericFunction[float]):
    """The time by which leases end, in seconds: that of the database, which all daemons share.

    PostgreSQL: when the server received the statement.  A lease that is asked for then ends no
    earlier than one that the daemon counts from the moment before it asked.

    SQLite: always 0, so that no lease ends.  One daemon alone uses the file, and lets go of what
    it held in an earlier life when it starts.
    """

    type = Float()
    inherit_cache = True


@compiles(LeaseClock, "postgresql")
def _on_postgresql(*_: Any, **__: Any) -> str:
    return "CAST(extract(epoch FROM statement_timestamp()) AS double precision)"


@compiles(LeaseClock, "sqlite")
def _on_sqlite(*_: Any, **__: Any) -> str:
    return "0.0"


def shared_time(connection: Connection) -> float:
    """Return the seconds since 1970, by a clock that all daemons share.

    That is the database server's.  With SQLite one daemon is alone, and the clock is the machine's.
    """
    if connection.dialect.name == "sqlite":
        return time.time()
    return connection.execute(select(LeaseClock())).scalar_one()


@attrs.frozen
class Holder:
    """Who claims, and what it may.

    :ivar name: of this one claim, ``DAEMON/…``, never used again.
    :ivar daemon: who asks: some work is a certain daemon's.
    :ivar backends: names of the backends whose volumes it may work on.
    :ivar zeroed: names of those whose volumes are zeroed whole, when they are made blank and when
        they are removed.
    :ivar busy: ids of what it works on already, whatever the clock says of their leases.
    :ivar serves: whether it runs servers.
    """

    name: str
    daemon: str
    backends: Collection[str]
    zeroed: Collection[str]
    busy: Mapping[Kind, Collection[int]]
    serves: bool


@attrs.frozen
class Claim:
    """What a worker holds.

    :ivar holder: the name of the claim.
    :ivar number: the id of what is held.
    :ivar statuses: what the claim is for; with any other status the work is not wanted any more.
    """

    holder: str
    kind: Kind
    number: int
    statuses: Collection[Status]


def claim(
    connection: Connection, kind: Kind, holder: Holder, *conditions: ColumnElement[bool]
) -> Row[Any] | None:
    """Claim the oldest that nobody holds or is about to; return its row, or None.

    Where another daemon's lease ran out, the row has a new name: that daemon may yet write to what
    has the old one.
    """
    table = LIVING[kind]
    row = connection.execute(
        select(table)
        .where(free(table), table.c.id.not_in(holder.busy[kind]), *conditions)
        .order_by(table.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    former = _daemon(row.worker)
    left = {} if former in (None, holder.daemon) else strays.leave(connection, kind, row, former)
    return connection.execute(
        update(table)
        .where(table.c.id == row.id)
        .values(worker=holder.name, lease_until=LeaseClock() + LEASE, **left)
        .returning(*table.c)
    ).one()


def renew(connection: Connection, held: Claim) -> bool:
    """Renew a lease, and lock the row until the transaction ends.

    :returns: False means: stop, another has it, or it is wanted otherwise.
    """
    table = LIVING[held.kind]
    mine = _held(table, held.holder, held.number) & table.c.status.in_(held.statuses)
    return (
        connection.execute(
            update(table).where(mine).values(lease_until=LeaseClock() + LEASE)
        ).rowcount
        == 1
    )


def renew_all(
    connection: Connection, held: Collection[Claim]
) -> tuple[Collection[Claim], Collection[Claim]]:
    """Renew the leases of one daemon, all at once.

    What another transaction has locked is left as it is: it is about to be renewed or ended there.

    :returns: those that hold no more, and those that are renewed.
    """
    lost: list[Claim] = []
    renewed: list[Claim] = []
    for kind, table in LIVING.items():
        claimed = {each.number: each for each in held if each.kind is kind}
        if not claimed:
            continue
        rows = connection.execute(
            select(table.c.id, table.c.worker, table.c.status).where(table.c.id.in_(claimed))
        )
        known = {row.id: (row.worker, row.status) for row in rows}
        mine: dict[int, Claim] = {}
        for number, each in claimed.items():
            worker, status = known.get(number, (None, None))
            if worker == each.holder and status in each.statuses:
                mine[number] = each
            else:
                lost.append(each)
        renewed += [mine[number] for number in _renewed(connection, table, mine)]
    return lost, renewed


def _renewed(connection: Connection, table: Table, mine: Mapping[int, Claim]) -> Collection[int]:
    """Renew leases that hold, but for what another transaction has locked; return the ids."""
    if connection.dialect.name != "postgresql":
        return mine.keys()  # They do not end.
    holders = [each.holder for each in mine.values()]
    unlocked = (
        select(table.c.id)
        .where(table.c.id.in_(mine), table.c.worker.in_(holders))
        .with_for_update(skip_locked=True)
    )
    return connection.scalars(
        update(table)
        .where(table.c.id.in_(unlocked.scalar_subquery()))
        .values(lease_until=LeaseClock() + LEASE)
        .returning(table.c.id)
    ).all()


def release(connection: Connection, holder: str, kind: Kind, number: int) -> bool:
    """Let go, so that anyone may claim it if there is still something to do.

    :returns: False if it was lost already.
    """
    table = LIVING[kind]
    let_go = update(table).where(_held(table, holder, number))
    return connection.execute(let_go.values(worker=None, lease_until=None)).rowcount == 1


def release_all(connection: Connection, daemon: str | None) -> None:
    """End every lease of a daemon: for one that starts again after it was killed.

    Nothing of its earlier life goes on, so all keeps its name.

    :param daemon: None is any: for one that has the database to itself.
    """
    for table in LIVING.values():
        held: ColumnElement[bool] = table.c.worker.is_not(None)
        if daemon is not None:
            held = table.c.worker.startswith(f"{daemon}/", autoescape=True)
        connection.execute(update(table).where(held).values(worker=None, lease_until=None))
    strays.end_all(connection, daemon)


def free(table: FromClause) -> ColumnElement[bool]:
    """Return what tells what nobody works on."""
    return or_(table.c.worker.is_(None), table.c.lease_until < LeaseClock())


def _held(table: Table, holder: str, number: int) -> ColumnElement[bool]:
    return and_(table.c.id == number, table.c.worker == holder)


def _daemon(worker: str | None) -> str | None:
    """Return the daemon of a claim, by its name."""
    return worker.rpartition("/")[0] if worker is not None else None
