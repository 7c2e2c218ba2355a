"""Databases of both kinds: SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, Connection, make_url, update
from twisted.internet import reactor

from bootvol.store import connections
from bootvol.store import database as databases
from bootvol.store.database import Database
from bootvol.store.schema import LIVING
from bootvol.store.waiting import Waiting
from tests.waiting import LIMIT

#: The end of an expired lease, on databases of both kinds.
ENDED = -1.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give calls of the database the time limit of the tests, for a busy machine.

    After the daemon's own limit, the parts would wait by clocks that only tests advance.
    """
    monkeypatch.setattr(databases, "LIMIT", LIMIT)
    monkeypatch.setattr(connections, "LIMIT", LIMIT)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], URL]:
    """Return a function for the URL of one more empty database, once for each kind."""
    if request.param == "sqlite":
        return lambda: make_url(f"sqlite:///{tmp_path / str(uuid4()) / 'x.db'}")
    new = request.getfixturevalue("new_postgresql")
    return lambda: on_server(new())


@pytest.fixture
def url(new_url: Callable[[], URL]) -> URL:
    """The URL of an empty database."""
    return new_url()


@pytest.fixture
def database(url: URL) -> Iterator[Database]:
    """A database of the newest schema."""
    loop: Any = reactor
    made = Database(url, loop)
    made.upgrade()
    yield made
    made._engine.dispose()


@pytest.fixture
def db(database: Database) -> Iterator[Connection]:
    """A connection to the database."""
    with database._engine.begin() as connection:
        yield connection


class Anybody:
    """An order of work in which every task may begin."""

    def admitted(self, waiting: Collection[Waiting]) -> Sequence[Waiting]:
        """See :class:`bootvol.store.waiting.Order`."""
        return list(waiting)

    def places(self, waiting: Waiting) -> int:
        """See :class:`bootvol.store.waiting.Order`."""
        return 0


def end_leases(db: Connection) -> None:
    """Let all leases expire, as if their daemons had stopped renewing them."""
    for table in LIVING.values():
        db.execute(update(table).where(table.c.worker.is_not(None)).values(lease_until=ENDED))


def on_server(url: str) -> URL:
    """Return the URL of a database on a server, as a daemon's settings would have the URL."""
    return make_url(url).set(drivername="postgresql+psycopg")
