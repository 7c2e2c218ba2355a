"""Volumes keep up with the names of their types, whatever two daemons do at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from sqlalchemy import Connection, text
from twisted.internet.task import Clock

from bootvol.backends import Backends
from bootvol.errors import VolumeTypeNotFound
from bootvol.lifecycle import Status
from bootvol.model import Replacement, Volume
from bootvol.service import volume_types as service
from bootvol.service.volume_types import VolumeTypes
from bootvol.store import replacements, volume_types, volumes
from bootvol.store.database import Database
from bootvol.testing.memory import MemoryBackend
from tests.daemons import reactor
from tests.unit.conftest import on_server
from tests.waiting import block_until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def server(new_postgresql: Callable[[], str]) -> Iterator[Database]:
    """A database that several transactions write to at a time, with the type gold."""
    database = Database(on_server(new_postgresql()), reactor)
    database.upgrade()
    with database._engine.begin() as db:
        volume_types.add(db, "gold", {})
    yield database
    database._engine.dispose()


@pytest.fixture
def types(server: Database) -> VolumeTypes:
    """The types, as a service."""
    return VolumeTypes(server, Backends([MemoryBackend("b", Clock())], Clock(), "one"))


def a_volume(db: Connection, volume_type: str | None = None) -> Volume:
    """Add an available volume."""
    added = Volume(0, "v", "t", "u", 1, Status.AVAILABLE, NOW, "nova", "b", volume_type=volume_type)
    return volumes.add(db, added)


def renamed(db: Connection) -> None:
    """Give the type gold another name."""
    service._change(db, volume_types.named(db, "gold").id, {"name": "silver"})


@contextmanager
def meanwhile(
    server: Database, first: Callable[[Connection], Any], second: Callable[[Connection], Any]
) -> Iterator[Future[Any]]:
    """Begin a second transaction during the first one, and end the first once the second waits."""

    def write() -> object:
        with server._engine.begin() as db:
            return second(db)

    def waits() -> object:
        with server._engine.begin() as db:
            return db.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    with ThreadPoolExecutor(1) as pool:
        with server._engine.begin() as db:
            first(db)
            later = pool.submit(write)
            block_until(lambda: later.done() or waits())
        yield later


def named(server: Database, number: int = 1) -> str | None:
    """Return the type of a volume."""
    with server._engine.begin() as db:
        return volumes.get(db, "t", number).volume_type


def test_a_type_keeps_its_name_until_a_new_volume_is_there(
    server: Database, types: VolumeTypes
) -> None:
    """Break: `src/bootvol/service/volume_types.py`:
    `type_rows.named(db, name, tenant, keep=True).extra_specs` ->
    `type_rows.named(db, name, tenant).extra_specs`.
    """

    def add(db: Connection) -> None:
        types.check(db, "gold", "t", "b")
        # The other transaction is to wait for the type, and for nothing else.
        a_volume(db, "gold")

    with meanwhile(server, add, renamed) as later:
        later.result()
    assert named(server) == "silver"


def test_a_request_sees_the_name_that_a_type_got_meanwhile(
    server: Database, types: VolumeTypes
) -> None:
    """Break: `src/bootvol/store/volume_types.py`: `if lock:` -> `if lock and not shared:`."""

    def keep(db: Connection) -> None:
        types.keep(db, "gold", "t")

    with meanwhile(server, renamed, keep) as later, pytest.raises(VolumeTypeNotFound):
        later.result()


@pytest.mark.parametrize("ended", [False, True])
def test_the_end_of_a_retype_misses_no_name(server: Database, ended: bool) -> None:
    """The name changes before or after the volume has got the type.

    Break: `src/bootvol/store/volumes.py`: `(replacements, volumes)` -> `(volumes, replacements)`.
    """
    with server._engine.begin() as db:
        number = a_volume(db).id
        replacements.add(db, Replacement(number, "new", "b", retypes=True, volume_type="gold"))

    def complete(db: Connection) -> None:
        new = replacements.get(db, number, lock=True)
        replacements.complete(db, cast("Replacement", new))

    order = (complete, renamed) if ended else (renamed, complete)
    with meanwhile(server, *order) as later:
        later.result()
    assert named(server, number) == "silver"
