"""Rows: the migrations make the schema, claims exclude one another, nothing is stuck."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, Connection, make_url, select, text
from twisted.internet import reactor

from bootvol.errors import ConfigurationError, ErrorReport, VolumeNotFound
from bootvol.lifecycle import Event, IllegalTransition, Status
from bootvol.model import Digest, Image, Usage, Volume
from bootvol.store import claims, imports, schema, volumes
from bootvol.store.database import Database
from bootvol.store.schema import METADATA

REPORT = ErrorReport("code", "message", True, "remedy")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """Where an empty database is, of each kind in turn."""
    if request.param == "sqlite":
        return make_url(f"sqlite:///{tmp_path / 'folder' / 'x.db'}")
    made: str = request.getfixturevalue("new_postgresql")()
    return make_url(made).set(drivername="postgresql+psycopg")


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


def a_volume(name: str = "v", tenant: str = "t", image: str | None = None) -> Volume:
    """Return a volume that is not in the database."""
    now = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    return Volume(
        0, name, tenant, "u", 3, Status.CREATING, now, "nova", "b", image, metadata={"k": "v"}
    )


def a_claim(db: Connection, holder: str, *, bootable: bool, now: float, until: float) -> Any:
    """Claim as a worker does that has one backend and no other job."""
    return claims.claim(
        db, holder, bootable=bootable, backends=["b"], busy=[], now=now, until=until
    )


def test_migrations_make_the_schema(db: Connection) -> None:
    assert compare_metadata(MigrationContext.configure(db), METADATA) == []


def test_imports_from_before_learn_their_source(database: Database) -> None:
    with database._engine.begin() as db:
        number = volumes.add(db, a_volume(image="i")).id
        imports.add(db, number, Image("i", "some-source", "n"))
        with Operations.context(MigrationContext.configure(db)) as operations:
            operations.drop_column("imports", "source")
        db.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    database.upgrade()
    with database._engine.begin() as db:
        assert compare_metadata(MigrationContext.configure(db), METADATA) == []
        assert db.execute(select(schema.imports.c.source)).scalar_one() == "some-source"
        volumes.happen(db, number, Event.DELETE)
        volumes.happen(db, number, Event.VANISH)
        assert imports.find(db, number) is None, "it goes with its volume, still"


def test_a_schema_of_another_version_is_refused(database: Database) -> None:
    database.check()
    with database._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(ConfigurationError, match="bootvol db upgrade"):
        database.check()


def test_what_is_added_is_found(db: Connection) -> None:
    added = volumes.add(db, a_volume())
    assert volumes.get(db, "t", added.id) == added
    with pytest.raises(VolumeNotFound):
        volumes.get(db, "other", added.id)
    assert volumes.listed(db, "t") == [added]
    assert volumes.listed(db, "t", bootable=True) == []
    assert volumes.listed(db, "other") == []
    assert volumes.usage(db, "t") == Usage(1, 3)
    assert volumes.usage(db, "other") == Usage(0, 0)


def test_ids_are_never_given_again(db: Connection) -> None:
    first = volumes.add(db, a_volume())
    volumes.happen(db, first.id, Event.DELETE)
    assert volumes.happen(db, first.id, Event.VANISH) is Status.GONE
    assert volumes.add(db, a_volume()).id > first.id


def test_a_volume_goes_its_way(db: Connection) -> None:
    number = volumes.add(db, a_volume()).id
    assert volumes.happen(db, number, Event.FAIL, REPORT) is Status.ERROR
    assert volumes.get(db, "t", number).error == REPORT
    with pytest.raises(IllegalTransition):
        volumes.happen(db, number, Event.COMPLETE)
    volumes.happen(db, number, Event.DELETE)
    assert volumes.get(db, "t", number).error is None
    with pytest.raises(VolumeNotFound):
        volumes.happen(db, number + 1, Event.FAIL)


@pytest.mark.parametrize("digest", [None, Digest("sha512", "00")])
def test_imports_keep_their_image(db: Connection, digest: Digest | None) -> None:
    number = volumes.add(db, a_volume(image="i")).id
    image = Image("i", "s", "n", "raw", 2**40, 2, digest)
    imports.add(db, number, image)
    found = imports.get(db, "t", number)
    assert found.image == image
    assert (found.attempt, found.bytes_total) == (0, 2**40)
    imports.begin(db, number)
    imports.record(db, number, bytes_done=5)
    imports.begin(db, number)
    again = imports.get(db, "t", number)
    assert (again.attempt, again.bytes_done) == (2, 0)
    with pytest.raises(VolumeNotFound):
        imports.get(db, "other", number)


def test_a_claim_keeps_others_out_until_it_runs_out(db: Connection) -> None:
    volume = volumes.add(db, a_volume())
    assert a_claim(db, "a", bootable=True, now=10, until=20) is None
    claimed = a_claim(db, "a", bootable=False, now=10, until=20)
    assert claimed is not None
    assert claimed.id == volume.id
    assert a_claim(db, "b", bootable=False, now=15, until=25) is None
    assert claims.renew(db, "a", volume.id, {Status.CREATING}, 30)
    assert a_claim(db, "b", bootable=False, now=25, until=35) is None
    assert a_claim(db, "b", bootable=False, now=31, until=41) is not None
    assert not claims.renew(db, "a", volume.id, {Status.CREATING}, 40)
    claims.release(db, "a", volume.id)
    assert claims.renew(db, "b", volume.id, {Status.CREATING}, 50), "only one's own is let go of"


def test_a_killed_daemon_finds_its_own_claims(db: Connection) -> None:
    for name in ("1", "2"):
        volumes.add(db, a_volume(name))
    for holder in ("a/1", "a1/1"):
        a_claim(db, holder, bootable=False, now=10, until=100)
    claims.release_all(db, "a")
    found = a_claim(db, "c", bootable=False, now=11, until=100)
    assert found is not None
    assert found.name == "1"
    assert a_claim(db, "c", bootable=False, now=11, until=100) is None


def test_a_deletion_ends_the_importers_claim(db: Connection) -> None:
    number = volumes.add(db, a_volume(image="i")).id
    assert a_claim(db, "a", bootable=True, now=0, until=10) is not None
    volumes.happen(db, number, Event.DELETE)
    assert not claims.renew(db, "a", number, {Status.CREATING, Status.DOWNLOADING}, 20)
    assert a_claim(db, "a", bootable=False, now=1, until=10) is None, "still held"
    claims.release(db, "a", number)
    assert a_claim(db, "a", bootable=True, now=1, until=10) is None
    assert a_claim(db, "a", bootable=False, now=1, until=10) is not None


def test_a_worker_leaves_alone_what_it_cannot_reach_or_does_already(db: Connection) -> None:
    number = volumes.add(db, a_volume()).id
    for backends, busy in ((["other"], []), ([], []), (["b"], [number])):
        claimed = claims.claim(
            db, "a/1", bootable=False, backends=backends, busy=busy, now=0, until=10
        )
        assert claimed is None


def test_settled_volumes_are_no_work(db: Connection) -> None:
    number = volumes.add(db, a_volume()).id
    volumes.happen(db, number, Event.COMPLETE)
    assert a_claim(db, "a", bootable=False, now=0, until=10) is None
