"""Operators see the daemons of one database, and which stores no daemon reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_twisted import ensureDeferred
from sqlalchemy import Connection, insert, update
from twisted.internet.task import Clock

from bootvol.backends import Backends
from bootvol.service.overview import Overview
from bootvol.store import daemons
from bootvol.store.database import Database
from bootvol.store.schema import daemons as daemon_table
from bootvol.store.schema import stores
from bootvol.testing.memory import MemoryBackend
from tests.daemons import reactor
from tests.unit.conftest import ENDED, on_server


def announced(db: Connection) -> None:
    """Let two daemons run and one end; each host has a store of its own, and all share one."""
    for name, host in (("d1", "one"), ("d2", "two"), ("d3", "three")):
        daemons.announce(db, name, host)
    ended = update(daemon_table).where(daemon_table.c.id == "d3")
    db.execute(ended.values(lease_until=ENDED))
    for backend, host in (("disk", "one"), ("disk", "two"), ("disk", "three"), ("shared", "")):
        values = {"backend": backend, "host": host, "identity": f"{backend} {host}"}
        db.execute(insert(stores).values(values))


@ensureDeferred
async def test_a_store_is_up_while_a_daemon_reaches_the_store(
    new_postgresql: Callable[[], str],
) -> None:
    """Break: `src/bootvol/service/overview.py`: `any(each.runs for each in reaching)` -> `True`."""
    database = Database(on_server(new_postgresql()), reactor)
    database.upgrade()
    database.start()
    try:
        await database.write(announced)
        backends = Backends([MemoryBackend("mine", Clock())], Clock(), "one")
        nobody: Any = None
        overview = Overview(database, backends, nobody)
        ran = {each.host: each.runs for each in await overview.daemons()}
        assert ran == {"one": True, "two": True, "three": False}
        places = {(each.backend, each.host): each for each in await overview.places()}
        up = {place for place, each in places.items() if each.runs}
        assert up == {("disk", "one"), ("disk", "two"), ("shared", ""), ("mine", "")}
        assert [place for place, each in places.items() if each.here] == [("mine", "")]
    finally:
        database.stop()
