"""Databases of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection, make_url
from twisted.internet import reactor

from bootvol.store.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """Where an empty database is, of each kind in turn."""
    if request.param == "sqlite":
        return make_url(f"sqlite:///{tmp_path / 'folder' / 'x.db'}")
    return on_server(request.getfixturevalue("new_postgresql")())


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
    """A connection to it."""
    with database._engine.begin() as connection:
        yield connection


def on_server(url: str) -> URL:
    """Return the URL of a database on a server as the daemon has it."""
    return make_url(url).set(drivername="postgresql+psycopg")
