"""Claims on work: leases that their workers renew, and other workers respect.

The status of a row is the intent: creating and downloading mean "make", deleting means "remove",
attaching means "attach".  So the claim is on the volume, snapshot or server itself.  Only one
worker at a time may touch the stored data: an import and a delete can never run at once, not even
on two machines.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Final

import attrs
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Float,
    FromClause,
    Row,
    Select,
    String,
    Table,
    and_,
    bindparam,
    or_,
    select,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from bootvol.lifecycle import Kind, Status
from bootvol.store import strays
from bootvol.store.schema import LIVING

#: Seconds that a claim lasts without a renewal.
LEASE: Final = 30.0


#: A query for rows of work.
Query = Select[tuple[object, ...]]

#: The daemon and the host of a request, as parameters of SQL conditions.
DAEMON: Final = bindparam("daemon", type_=String)
HOST: Final = bindparam("host", type_=String)


class LeaseClock(GenericFunction[float]):
    """The clock of leases, in seconds: the database's clock, shared by all daemons.

    PostgreSQL: the time when the server received the statement.  A daemon counts its lease from
    the moment before the request.  So the lease in the database never ends before the daemon's.

    SQLite: always 0, so no lease ends.  One daemon alone uses the file.  At its start the daemon
    releases the claims from its earlier life.
    """

    type = Float()
    inherit_cache = True


@compiles(LeaseClock, "postgresql")
def _on_postgresql(*_: object, **__: object) -> str:
    return "CAST(extract(epoch FROM statement_timestamp()) AS double precision)"


@compiles(LeaseClock, "sqlite")
def _on_sqlite(*_: object, **__: object) -> str:
    return "0.0"


def shared_time(connection: Connection) -> float:
    """Return the seconds since 1970, by a clock shared by all daemons.

    The clock is the database server's.  With SQLite one daemon is alone, and the clock is the
    machine's.
    """
    if connection.dialect.name == "sqlite":
        return time.time()
    return connection.execute(select(LeaseClock())).scalar_one()


@attrs.frozen
class ClaimRequest:
    """The holder of a new claim, and the bounds of the holder's choice.

    :ivar name: name of this one claim, ``DAEMON/…``, never used again.
    :ivar daemon: id of the claiming daemon; some work belongs to a certain daemon.
    :ivar backends: names of the backends whose volumes the daemon may work on.
    :ivar host: the daemon's host.  The daemon works only on volumes that this host reaches.
    :ivar zeroed: names of the backends whose volumes are zeroed whole, both for a new blank volume
        and for a removal.
    :ivar busy: ids of the rows in work on this daemon, whatever the clock says of their leases.
    :ivar serves: whether the daemon runs servers.
    """

    name: str
    daemon: str
    backends: Collection[str]
    zeroed: Collection[str]
    busy: Mapping[Kind, Collection[int]]
    serves: bool
    host: str = ""

    def values(self) -> dict[str, object]:
        """Return the values of the parameters in SQL conditions of this module."""
        return {
            "daemon": self.daemon,
            "host": self.host,
            "backends": list(self.backends),
            "zeroed": list(self.zeroed),
            "quick": [each for each in self.backends if each not in self.zeroed],
            # No row has the id 0.  An empty list would be rendered either for IN or for NOT IN, and
            # the conditions have both.
            **{f"busy_{kind.value}": [0, *ids] for kind, ids in self.busy.items()},
        }


@attrs.frozen
class Lease:
    """A worker's claim on one row.

    :ivar holder: name of the claim.
    :ivar number: id of the claimed row.
    :ivar statuses: statuses that call for the work.  In any other status the work is not wanted any
        more.
    """

    holder: str
    kind: Kind
    number: int
    statuses: Collection[Status]


def oldest(kind: Kind, *conditions: ColumnElement[bool]) -> Query:
    """Return the query for the oldest row without a valid claim.

    Skip rows locked by another transaction, since another worker is about to claim them.
    """
    table = LIVING[kind]
    return (
        select(table)
        .where(free(table), ~busy(table, kind), *conditions)
        .order_by(table.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def claim(
    connection: Connection, kind: Kind, holder: ClaimRequest, query: Query, **more: object
) -> Row[object] | None:
    """Claim the row that a query of :func:`oldest` finds.  Return the row, or None.

    Where another daemon's lease ran out, the row gets a new name: the former daemon may still write
    to the data under the old name.

    :param more: values of further parameters of the query.
    """
    table = LIVING[kind]
    row = connection.execute(query, {**holder.values(), **more}).one_or_none()
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


def hold(connection: Connection, kind: Kind, number: int, holder: str) -> None:
    """Claim a row that no worker can have claimed, until :func:`release`.

    The row is locked, and its status has become one of work in the same transaction.

    :param holder: name of the claim, ``DAEMON/…``, never used again.
    """
    table = LIVING[kind]
    held = {"worker": holder, "lease_until": LeaseClock() + LEASE}
    connection.execute(update(table).where(table.c.id == number).values(**held))


def renew(connection: Connection, held: Lease) -> bool:
    """Renew a lease, and lock the row until the transaction ends.

    :returns: False if another worker has the claim, or the work is not wanted any more.  The caller
        must stop then.
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
    connection: Connection, held: Collection[Lease]
) -> tuple[Collection[Lease], Collection[Lease]]:
    """Renew the leases of one daemon, all at once.

    Leave alone the rows locked by another transaction, which is about to renew or end these leases.

    :returns: the lost claims, and the renewed claims.
    """
    lost: list[Lease] = []
    renewed: list[Lease] = []
    for kind, table in LIVING.items():
        claimed = {each.number: each for each in held if each.kind is kind}
        if not claimed:
            continue
        rows = connection.execute(
            select(table.c.id, table.c.worker, table.c.status).where(table.c.id.in_(claimed))
        )
        known = {row.id: (row.worker, row.status) for row in rows}
        mine: dict[int, Lease] = {}
        for number, each in claimed.items():
            worker, status = known.get(number, (None, None))
            if worker == each.holder and status in each.statuses:
                mine[number] = each
            else:
                lost.append(each)
        renewed += [mine[number] for number in _renewed(connection, table, mine)]
    return lost, renewed


def _renewed(connection: Connection, table: Table, mine: Mapping[int, Lease]) -> Collection[int]:
    """Renew valid leases, except those locked by another transaction.  Return the ids."""
    if connection.dialect.name != "postgresql":
        return mine.keys()  # Leases do not end on SQLite.
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
    """Release a claim, so that any worker may claim the remaining work, if any.

    :returns: False if the claim was lost already.
    """
    table = LIVING[kind]
    let_go = update(table).where(_held(table, holder, number))
    return connection.execute(let_go.values(worker=None, lease_until=None)).rowcount == 1


def release_all(connection: Connection, daemon: str | None) -> None:
    """End every lease of a daemon that starts again after it was killed.

    Nothing of the earlier life goes on, so all rows keep their names.

    :param daemon: id of the daemon; None for all, if one daemon has the database to itself.
    """
    for table in LIVING.values():
        held: ColumnElement[bool] = table.c.worker.is_not(None)
        if daemon is not None:
            held = table.c.worker.startswith(f"{daemon}/", autoescape=True)
        connection.execute(update(table).where(held).values(worker=None, lease_until=None))
    strays.end_all(connection, daemon)


# --- conditions: the parameters' values come from a request ---------------------------------------


def here(table: FromClause, backends: str = "backends") -> ColumnElement[bool]:
    """Return the SQL condition for rows on backends that a daemon reaches and may work on.

    :param backends: the parameter with the names of the backends: ``backends`` (all), ``zeroed``
        (those with whole volumes to zero) or ``quick`` (the others).
    """
    names: BindParameter[str] = bindparam(backends, expanding=True)
    return and_(table.c.backend.in_(names), or_(table.c.host == "", table.c.host == HOST))


def busy(table: FromClause, kind: Kind) -> ColumnElement[bool]:
    """Return the SQL condition for rows in work on the daemon of a request."""
    return table.c.id.in_(bindparam(f"busy_{kind.value}", expanding=True))


def free(table: FromClause) -> ColumnElement[bool]:
    """Return the SQL condition for rows without a valid claim."""
    return or_(table.c.worker.is_(None), table.c.lease_until < LeaseClock())


def lasts(until: ColumnElement[float]) -> ColumnElement[bool]:
    """Return the SQL condition for the lease of a daemon that runs.

    A lease cannot end later than :data:`LEASE` seconds from now.  A much later end is from a time
    before the database's clock was set back.  The next renewal of a daemon that runs corrects the
    end.

    :param until: the end of the lease, by :class:`LeaseClock`.
    """
    return until.between(LeaseClock(), _latest())


def shorten(connection: Connection) -> None:
    """Have the leases end soon that would outlast the rules, after the clock was set back.

    Without this call, the claims of a dead daemon would last until the clock catches up.  The
    holder may live, and renews the lease then.  So these claims are not free at once: they get a
    whole lease from now.  Leave alone the rows locked by another transaction.
    """
    for table in LIVING.values():
        beyond = (
            select(table.c.id)
            .where(table.c.lease_until > _latest())
            .with_for_update(skip_locked=True)
        )
        connection.execute(
            update(table)
            .where(table.c.id.in_(beyond.scalar_subquery()))
            .values(lease_until=LeaseClock() + LEASE)
        )


def _latest() -> ColumnElement[float]:
    """Return the time in SQL after which no lease can end."""
    return LeaseClock() + 2 * LEASE


def _held(table: Table, holder: str, number: int) -> ColumnElement[bool]:
    return and_(table.c.id == number, table.c.worker == holder)


def _daemon(worker: str | None) -> str | None:
    """Return the daemon in the name of a claim."""
    return worker.rpartition("/")[0] if worker is not None else None
