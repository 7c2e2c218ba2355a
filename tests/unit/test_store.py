"""Rows: the migrations make the schema, claims exclude one another, and nothing is stuck."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, Connection, func, inspect, select, text, update
from twisted.internet import reactor

from bootvol.errors import ConfigurationError, ErrorReport, NotFound, VolumeNotFound
from bootvol.lifecycle import Event, IllegalTransition, Kind, Status
from bootvol.model import CachedImage, Digest, Image, Usage, Volume
from bootvol.store import (
    claims,
    daemons,
    image_cache,
    import_queue,
    imports,
    schema,
    snapshots,
    states,
    stores,
    volume_types,
    volumes,
    work_queue,
)
from bootvol.store.database import Database
from bootvol.store.schema import METADATA
from bootvol.store.stores import Store
from tests.unit.conftest import ENDED, Anybody, end_leases, on_server

REPORT = ErrorReport("code", "message", True, "remedy")


#: The states of a volume with or without an import.
STATES = ("waits", "runs", "ran out", "deleting", "blank", "done")


def apply_event(
    db: Connection, number: int, event: Event, error: ErrorReport | None = None
) -> Status:
    """Apply an event to a volume."""
    return states.apply_event(db, Kind.VOLUME, number, event, error)


def a_volume(name: str = "v", tenant: str = "t", image: str | None = None) -> Volume:
    """Return a volume without a row."""
    now = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    return Volume(
        0, name, tenant, "u", 3, Status.CREATING, now, "nova", "b", image, metadata={"k": "v"}
    )


def an_import(
    db: Connection,
    name: str = "v",
    tenant: str = "t",
    source: str = "s",
    content: str | None = None,
) -> int:
    """Add a volume with a waiting import; return the volume's id."""
    number = volumes.add(db, a_volume(name, tenant, "i")).id
    imports.add(db, number, Image("i", source, "n"), content)
    return number


def a_claim(db: Connection, holder: str, *, bootable: bool, **more: Any) -> Any:
    """Claim work as a worker with one backend and no other job."""
    mine = {"backends": ["b"], "zeroed": [], "busy": {kind: [] for kind in Kind}, **more}
    sources = mine.pop("sources", ["s", "another"])
    claimer = claims.ClaimRequest(holder, daemon=holder.split("/")[0], serves=True, **mine)
    if bootable:
        return import_queue.claim(db, claimer, sources, Anybody())[0]
    return work_queue.claim_quick(db, claimer, Anybody())[0]


def described(database: Database) -> dict[str, Any]:
    """Return the database's description of its tables."""
    inspector = inspect(database._engine)
    tables: dict[str, Any] = {}
    for name in inspector.get_table_names():
        columns = [
            {**column, "type": str(column["type"])} for column in inspector.get_columns(name)
        ]
        tables[name] = [
            sorted(columns, key=itemgetter("name")),
            inspector.get_pk_constraint(name)["constrained_columns"],
            sorted(inspector.get_foreign_keys(name), key=itemgetter("name")),
            sorted(inspector.get_unique_constraints(name), key=itemgetter("name")),
            sorted(inspector.get_indexes(name), key=itemgetter("name")),
            inspector.get_table_options(name),
        ]
    return tables


def test_migrations_make_the_schema(new_url: Callable[[], URL]) -> None:
    loop: Any = reactor
    made, migrated = Database(new_url(), loop), Database(new_url(), loop)
    made.upgrade()
    migrated.upgrade("0001")
    assert described(made) != described(migrated)
    migrated.upgrade()
    migrated.check()
    assert described(made) == described(migrated)
    with made._engine.begin() as db:
        assert compare_metadata(MigrationContext.configure(db), METADATA) == []
    made._engine.dispose()
    migrated._engine.dispose()


def test_the_newest_migration_is_the_schemas() -> None:
    folder = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert folder.get_current_head() == schema.REVISION


def test_a_daemon_carries_no_alembic_that_has_nothing_to_migrate(tmp_path: Path) -> None:
    code = (
        "import sys; from sqlalchemy import make_url; from twisted.internet import reactor;"
        "from bootvol.store.database import Database;"
        "database = Database(make_url(sys.argv[1]), reactor);"
        "database.upgrade(); database.upgrade(); database.check();"
        "assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{tmp_path}/x.db"], check=True)


def test_a_daemon_on_sqlite_carries_nothing_for_postgresql_or_the_command_line() -> None:
    code = (
        "import sys, bootvol.daemon;"
        "spared = {'sqlalchemy.dialects.postgresql', 'psycopg', 'sqlalchemy.orm', 'click', 'isal'};"
        "assert not spared & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_volumes_and_snapshots_from_before_get_uuids(url: URL) -> None:
    loop: Any = reactor
    database = Database(url, loop)
    database.upgrade("0008")
    volume = (
        'INSERT INTO volumes (id, name, tenant, "user", size_gib, status, created_at,'
        " availability_zone, backend, metadata, snapshot_id) VALUES ({0}, 'v{0}', 't', 'u', 1,"
        " 'available', '2026-01-01 00:00:00', 'nova', 'b', '{{}}', {1})"
    )
    snapshot = (
        'INSERT INTO snapshots (id, name, tenant, "user", volume_id, size_gib, status,'
        " created_at, backend) VALUES ({0}, 's{0}', 't', 'u', {1}, 1, 'available',"
        " '2026-01-01 00:00:00', 'b')"
    )
    with database._engine.begin() as db:
        for number, of in ((1, "NULL"), (2, 1), (3, 99), (9, "NULL")):
            db.execute(text(volume.format(number, of)))
        for number, of_volume in ((1, 1), (2, 98)):
            db.execute(text(snapshot.format(number, of_volume)))
        db.execute(text("DELETE FROM volumes WHERE id = 9"))
    database.upgrade()
    with database._engine.begin() as db:
        made = {each.id: each for each in volumes.listed(db, "t")}
        kept = {each.id: each for each in snapshots.listed(db, "t")}
        uuids = [each.uuid for each in made.values()] + [each.uuid for each in kept.values()]
        assert len({UUID(each) for each in uuids}) == 5
        assert made[1].snapshot_uuid is None
        assert made[2].snapshot_uuid == kept[1].uuid
        assert kept[1].volume_uuid == made[1].uuid
        assert UUID(str(made[3].snapshot_uuid)) != UUID(kept[2].volume_uuid)
        if database.is_sqlite:
            # A deleted volume's id is never used again.
            assert volumes.add(db, a_volume()).id == 10
    database._engine.dispose()


def test_imports_from_before_learn_their_source(url: URL) -> None:
    loop: Any = reactor
    database = Database(url, loop)
    database.upgrade("0002")
    values = {"image": json.dumps(attrs.asdict(Image("i", "some-source", "n")))}
    with database._engine.begin() as db:
        db.execute(
            text(
                'INSERT INTO volumes (id, name, tenant, "user", size_gib, status, created_at,'
                " availability_zone, backend, metadata) VALUES"
                " (1, 'v', 't', 'u', 1, 'creating', '2026-01-01 00:00:00', 'nova', 'b', '{}')"
            )
        )
        db.execute(
            text(
                "INSERT INTO imports (volume_id, image, phase, bytes_done, bytes_per_second,"
                " attempt) VALUES (1, :image, 'queued', 0, 0, 0)"
            ),
            values,
        )
    database.upgrade()
    with database._engine.begin() as db:
        assert compare_metadata(MigrationContext.configure(db), METADATA) == []
        assert db.execute(select(schema.imports.c.source)).scalar_one() == "some-source"
        apply_event(db, 1, Event.DELETE)
        apply_event(db, 1, Event.VANISH)
        assert imports.find(db, 1) is None, "it goes with its volume, still"
    database._engine.dispose()


def test_volumes_from_before_are_of_all_hosts(url: URL) -> None:
    loop: Any = reactor
    database = Database(url, loop)
    database.upgrade("0011")
    with database._engine.begin() as db:
        db.execute(text("INSERT INTO stores (backend, identity) VALUES ('b', 'one')"))
        for number, status in enumerate(("available", "in-use", "creating", "deleting", "error")):
            db.execute(
                text(
                    'INSERT INTO volumes (id, name, tenant, "user", size_gib, status, created_at,'
                    " availability_zone, backend, metadata, uuid) VALUES"
                    f" ({number}, 'v{number}', 't', 'u', 1, '{status}', '2026-01-01 00:00:00',"
                    f" 'nova', 'b', '{{}}', '{number}')"
                )
            )
    database.upgrade()
    with database._engine.begin() as db:
        assert {each.host for each in volumes.listed(db, "t")} == {""}
        finished = [states.is_finished(db, Kind.VOLUME, number) for number in range(5)]
        assert finished == [True, True, False, False, False]
        assert stores.remembered(db, "any") == {"b": Store("", "one")}
    database._engine.dispose()


def test_volumes_of_images_from_before_are_bootable(url: URL) -> None:
    loop: Any = reactor
    database = Database(url, loop)
    database.upgrade("0016")
    volume = (
        'INSERT INTO volumes (id, name, tenant, "user", size_gib, status, created_at,'
        " availability_zone, backend, metadata, uuid, image_id) VALUES ({0}, 'v{0}', 't', 'u', 1,"
        " 'available', '2026-01-01 00:00:00', 'nova', 'b', '{{}}', '{0}', {1})"
    )
    snapshot = (
        'INSERT INTO snapshots (id, name, tenant, "user", volume_id, volume_uuid, size_gib, status,'
        " created_at, backend, uuid) VALUES ({0}, 's{0}', 't', 'u', {0}, '{0}', 1, 'available',"
        " '2026-01-01 00:00:00', 'b', '{0}')"
    )
    with database._engine.begin() as db:
        for number, image in ((1, "'disk'"), (2, "NULL")):
            db.execute(text(volume.format(number, image)))
            db.execute(text(snapshot.format(number)))
        db.execute(text("INSERT INTO volume_types (name, extra_specs) VALUES ('fast', '{}')"))
    database.upgrade()
    with database._engine.begin() as db:
        for found in (volumes.listed(db, "t"), snapshots.listed(db, "t")):
            assert [each.bootable for each in found] == [True, False]
            assert [each.image_metadata for each in found] == [{"image_id": "disk"}, {}]
        (kind,) = volume_types.listed(db)
        assert volume_types.of_uuid(db, str(UUID(kind.uuid))) == kind
    database._engine.dispose()


def test_a_schema_of_another_version_is_refused(database: Database) -> None:
    database.check()
    with database._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(ConfigurationError, match="bootvol db upgrade"):
        database.check()


def test_a_later_versions_schema_is_refused(database: Database) -> None:
    with database._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match="a later version of bootvol"):
        database.upgrade()


def test_tables_of_somebody_else_are_left_alone(url: URL) -> None:
    loop: Any = reactor
    database = Database(url, loop)
    if database.is_sqlite:
        Path(str(url.database)).parent.mkdir()
    with database._engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE volumes (theirs INTEGER)")
    with pytest.raises(ConfigurationError, match="cannot be upgraded"):
        database.upgrade()
    assert inspect(database._engine).get_table_names() == ["volumes"]
    database._engine.dispose()


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
    apply_event(db, first.id, Event.DELETE)
    assert apply_event(db, first.id, Event.VANISH) is Status.GONE
    assert volumes.add(db, a_volume()).id > first.id


def test_a_volume_goes_its_way(db: Connection) -> None:
    number = volumes.add(db, a_volume()).id
    assert apply_event(db, number, Event.FAIL, REPORT) is Status.ERROR
    assert volumes.get(db, "t", number).error == REPORT
    with pytest.raises(IllegalTransition):
        apply_event(db, number, Event.COMPLETE)
    apply_event(db, number, Event.DELETE)
    assert volumes.get(db, "t", number).error is None
    with pytest.raises(NotFound):
        apply_event(db, number + 1, Event.FAIL)


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
    assert a_claim(db, "a", bootable=True) is None
    claimed = a_claim(db, "a", bootable=False)
    assert claimed is not None
    assert claimed.id == volume.id
    assert a_claim(db, "b", bootable=False) is None
    end_leases(db)
    assert claims.renew(db, claims.Lease("a", Kind.VOLUME, volume.id, {Status.CREATING}))
    assert a_claim(db, "b", bootable=False) is None
    end_leases(db)
    assert a_claim(db, "b", bootable=False) is not None
    assert not claims.renew(db, claims.Lease("a", Kind.VOLUME, volume.id, {Status.CREATING}))
    claims.release(db, "a", Kind.VOLUME, volume.id)
    assert claims.renew(db, claims.Lease("b", Kind.VOLUME, volume.id, {Status.CREATING})), (
        "only one's own is let go of"
    )


def test_a_killed_daemon_finds_its_own_claims(db: Connection) -> None:
    for name in ("1", "2"):
        volumes.add(db, a_volume(name))
    for holder in ("a/1", "a1/1"):
        a_claim(db, holder, bootable=False)
    claims.release_all(db, "a")
    found = a_claim(db, "c", bootable=False)
    assert found is not None
    assert found.name == "1"
    assert a_claim(db, "c", bootable=False) is None


def test_who_has_the_database_alone_ends_every_claim(db: Connection) -> None:
    for name in ("1", "2"):
        volumes.add(db, a_volume(name))
    for holder in ("a/1", "b/1"):
        a_claim(db, holder, bootable=False)
    claims.release_all(db, None)
    assert {a_claim(db, "c", bootable=False).name for _ in range(2)} == {"1", "2"}


def test_a_lease_lasts_by_the_clock_of_the_database(db: Connection) -> None:
    number = volumes.add(db, a_volume()).id
    a_claim(db, "a", bootable=False)
    until = db.scalar(select(schema.volumes.c.lease_until).where(schema.volumes.c.id == number))
    server = db.dialect.name == "postgresql"
    now = db.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) if server else 0
    assert until is not None
    assert now is not None
    assert 0 < until - float(now) <= claims.LEASE


def test_a_clock_that_is_set_back_keeps_nothing_for_the_dead(db: Connection) -> None:
    """The leases of a dead daemon end, although the clock had been an hour ahead."""
    an_import(db, "1", "a")
    dead = a_claim(db, "a/1", bootable=True)
    assert a_claim(db, "b/1", bootable=True) is None
    daemons.announce(db, "a", "host")
    assert daemons.runs_on(db, "host")
    for table in schema.volumes, schema.daemons:
        db.execute(update(table).values(lease_until=table.c.lease_until + 3600))
    assert not daemons.runs_on(db, "host")
    claims.shorten(db)
    end_a_lease_later(db)
    again = a_claim(db, "b/1", bootable=True)
    assert again is not None
    assert again.id == dead.id


def test_a_clock_that_is_set_back_takes_nothing_from_the_living(db: Connection) -> None:
    """A living daemon has a whole lease for its next renewal.

    Break: `src/bootvol/store/claims.py`: `table.c.lease_until < LeaseClock())` ->
    `~lasts(table.c.lease_until))`
    """
    number, same = an_import(db, "1", content="same"), an_import(db, "2", content="same")
    assert a_claim(db, "a/1", bootable=True).id == number
    volume = schema.volumes
    db.execute(update(volume).values(lease_until=volume.c.lease_until + 3600))
    for _ in range(2):
        assert a_claim(db, "b/1", bootable=True) is None
        assert import_queue.leader(db, same) == number, "the import still counts as running"
        claims.shorten(db)
    assert claims.renew(db, claims.Lease("a/1", Kind.VOLUME, number, {Status.CREATING}))


def end_a_lease_later(db: Connection) -> None:
    """Make all leases as old as if their whole length had passed."""
    volume = schema.volumes
    db.execute(update(volume).values(lease_until=volume.c.lease_until - claims.LEASE - 1))


def test_a_deletion_ends_the_importers_claim(db: Connection) -> None:
    number = an_import(db)
    assert a_claim(db, "a", bootable=True) is not None
    apply_event(db, number, Event.DELETE)
    assert not claims.renew(
        db, claims.Lease("a", Kind.VOLUME, number, {Status.CREATING, Status.DOWNLOADING})
    )
    assert a_claim(db, "a", bootable=False) is None, "still held"
    claims.release(db, "a", Kind.VOLUME, number)
    assert a_claim(db, "a", bootable=True) is None
    assert a_claim(db, "a", bootable=False) is not None


def test_a_worker_leaves_alone_what_it_cannot_reach_or_does_already(db: Connection) -> None:
    number = volumes.add(db, a_volume()).id
    for backends, busy in ((["other"], []), ([], []), (["b"], [number])):
        all_busy = dict.fromkeys(Kind, busy)
        claimed = a_claim(db, "a/1", bootable=False, backends=backends, busy=all_busy)
        assert claimed is None


def test_settled_volumes_are_no_work(db: Connection) -> None:
    number = volumes.add(db, a_volume()).id
    apply_event(db, number, Event.COMPLETE)
    assert a_claim(db, "a", bootable=False) is None


def test_the_line_is_fair_and_claims_go_by_it(db: Connection) -> None:
    # Inside the test, since pytest-twisted wraps tests with parameters and examples more than once.
    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(STATES)), max_size=12))
    def holds(imported: list[tuple[str, str]]) -> None:
        with db.begin_nested() as savepoint:
            _claim_all(db, imported)
            savepoint.rollback()

    holds()


def _claim_all(db: Connection, imported: list[tuple[str, str]]) -> None:
    """Add imports of tenants in states, and claim the waiting ones by position."""
    waiting: dict[str, list[int]] = {tenant: [] for tenant in "abc"}
    running, last = dict.fromkeys("abc", 0), dict.fromkeys("abc", 0)
    for place, (tenant, state) in enumerate(imported):
        number = _in_state(db, f"v{place}", tenant, state)
        if state in {"waits", "ran out"}:
            waiting[tenant].append(number)
        running[tenant] += state == "runs"
    while any(waiting.values()):
        # The same rule, written differently.
        expected = sorted(
            (running[tenant] + index, last[tenant], number)
            for tenant, numbers in waiting.items()
            for index, number in enumerate(numbers)
        )
        for numbers in waiting.values():
            # The position among the tenant's own imports.
            shown = [import_queue.position(db, number) for number in numbers]
            assert shown == list(range(1, len(numbers) + 1))
        claimed = a_claim(db, "w/1", bootable=True)
        assert claimed is not None
        assert claimed.id == expected[0][-1]
        assert import_queue.position(db, claimed.id) is None
        waiting[claimed.tenant].remove(claimed.id)
        running[claimed.tenant] += 1
        last[claimed.tenant] = max(last.values()) + 1
    assert a_claim(db, "w/1", bootable=True) is None


def _in_state(db: Connection, name: str, tenant: str, state: str) -> int:
    """Add a volume with an import that waits, or does not wait for one of several reasons."""
    if state == "blank":
        return volumes.add(db, a_volume(name, tenant)).id
    number = an_import(db, name, tenant)
    mine = update(schema.volumes).where(schema.volumes.c.id == number)
    if state in {"runs", "ran out"}:
        until = claims.LeaseClock() + claims.LEASE if state == "runs" else ENDED
        db.execute(mine.values(status=Status.DOWNLOADING, worker="x/1", lease_until=until))
    elif state == "deleting":
        apply_event(db, number, Event.DELETE)
    elif state == "done":
        apply_event(db, number, Event.DOWNLOAD)
        apply_event(db, number, Event.COMPLETE)
    return number


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_nobody_waits_for_all_that_another_asked_for(db: Connection, at_once: int) -> None:
    for n in range(20):
        an_import(db, f"a{n}", "a")
    running = [a_claim(db, "w/1", bootable=True) for _ in range(at_once)]
    for tenant in "bb", "c":
        for n, name in enumerate(tenant):
            an_import(db, f"{name}{n}", name)
    taken = ""
    for _ in range(9):
        # The oldest import ends, and another one begins.
        for event in (Event.DOWNLOAD, Event.COMPLETE):
            apply_event(db, running[0].id, event)
        running = [*running[1:], a_claim(db, "w/1", bootable=True)]
        taken += running[-1].tenant
    assert taken[:2] == "bc"
    assert taken.index("b", 1) <= 2 + at_once
    assert taken[-3:] == "aaa"


def test_followers_are_those_that_wait_and_have_not_begun(db: Connection) -> None:
    leader, *others = [an_import(db, f"v{n}", content="x") for n in range(6)]
    an_import(db, "other", content="y")
    unknown = an_import(db, "unknown"), an_import(db, "unknown too")
    begun, claimed, deleted, elsewhere, waiting = others
    apply_event(db, begun, Event.DOWNLOAD)
    apply_event(db, deleted, Event.DELETE)
    for number, values in ((claimed, {"worker": "w/1"}), (elsewhere, {"backend": "c"})):
        db.execute(update(schema.volumes).where(schema.volumes.c.id == number).values(**values))
    assert import_queue.followers(db, leader) == [waiting]
    assert import_queue.followers(db, unknown[0]) == []
    golden = CachedImage("g", "b", "i", "x", 1, None, 0, 0.0)
    image_cache.begin(db, golden, leader)
    assert import_queue.followers(db, leader) == [waiting]
    image_cache.complete(db, golden.name)
    assert import_queue.followers(db, leader) == [], "they are made of that"


def test_a_volume_that_has_failed_waits_for_nobody(db: Connection) -> None:
    failed, running = an_import(db, "1", content="x"), an_import(db, "2", content="x")
    apply_event(db, failed, Event.FAIL)
    assert a_claim(db, "w/1", bootable=True).id == running
    assert import_queue.leader(db, failed) is None


def test_imports_of_a_full_source_are_overtaken(db: Connection) -> None:
    first, second = an_import(db, "1", source="full"), an_import(db, "2", source="other")
    assert imports.get(db, "t", second).position == 2
    claimed = a_claim(db, "a", bootable=True, sources=["other"])
    assert claimed is not None
    assert claimed.id == second
    assert a_claim(db, "a", bootable=True, sources=["other"]) is None
    assert imports.get(db, "t", first).position == 1
    assert imports.get(db, "t", second).position is None


def test_who_claims_at_the_same_time_gets_the_next(new_postgresql: Callable[[], str]) -> None:
    database = _server(new_postgresql())
    with database._engine.begin() as one:
        numbers = [an_import(one, "1", "a"), an_import(one, "2", "a"), an_import(one, "3", "b")]
    with database._engine.begin() as one, database._engine.begin() as two:
        first = a_claim(one, "one/1", bootable=True)
        second = a_claim(two, "two/1", bootable=True)
        assert (first.id, second.id) == (numbers[0], numbers[2])
    database._engine.dispose()


def test_who_claims_at_the_same_time_copies_something_else(
    new_postgresql: Callable[[], str],
) -> None:
    database = _server(new_postgresql())
    with database._engine.begin() as one:
        numbers = [an_import(one, t, t, content=c) for t, c in (("a", "x"), ("b", "x"), ("c", "y"))]
    with database._engine.begin() as one, database._engine.begin() as two:
        first = a_claim(one, "one/1", bootable=True)
        second = a_claim(two, "two/1", bootable=True)
        assert (first.id, second.id) == (numbers[0], numbers[2])
    with database._engine.begin() as db:
        assert a_claim(db, "one/2", bootable=True) is None
        assert import_queue.leader(db, numbers[1]) == numbers[0]
    database._engine.dispose()


def test_claims_from_many_sides_take_each_import_once(new_postgresql: Callable[[], str]) -> None:
    database = _server(new_postgresql())
    with database._engine.begin() as db:
        numbers = [an_import(db, f"v{n}", "abc"[n % 3]) for n in range(60)]

    def claim_all(worker: int) -> list[int]:
        mine: list[int] = []
        while True:
            with database._engine.begin() as db:
                claimed = a_claim(db, f"{worker}/1", bootable=True)
                if claimed is None and claims_left(db) == 0:
                    return mine
            if claimed is not None:
                mine.append(claimed.id)

    def claims_left(db: Connection) -> int:
        free = schema.volumes.c.worker.is_(None)
        return db.execute(select(func.count()).where(free)).scalar_one()

    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(claim_all, range(4)))
    assert sorted(number for each in claimed for number in each) == numbers
    database._engine.dispose()


def _server(url: str) -> Database:
    """Return a database of the newest schema on a server."""
    loop: Any = reactor
    database = Database(on_server(url), loop)
    database.upgrade()
    return database


def test_the_statements_for_a_restored_database(url: URL) -> None:
    """docs/operations.md: numbers given out after the backup are skipped."""
    loop: Any = reactor
    database = Database(url, loop)
    database.upgrade()
    added = database.alone(volumes.add, a_volume())
    said = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    begin = "UPDATE sqlite_sequence" if database.is_sqlite else "SELECT setval"
    (statement,) = [line.strip() for line in said.splitlines() if line.strip().startswith(begin)]
    database.alone(lambda db: db.exec_driver_sql(statement).close())
    assert database.alone(volumes.add, a_volume("w")).id == added.id + 100_000 + 1
