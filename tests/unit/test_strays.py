"""Expired leases: the next owner of the work has a new name on the backend."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from sqlalchemy import Connection, select, update
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent

from bootvol.backends import Backends
from bootvol.errors import (
    BackendFailed,
    DatabaseUnavailable,
    DiskNotAdoptable,
    ImageTooLarge,
    StoreUnusable,
)
from bootvol.imaging.target import VolumeTarget
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import GIB, CachedImage, Image, Replacement, Snapshot, Volume
from bootvol.store import (
    claims,
    image_cache,
    imports,
    replacements,
    schema,
    snapshots,
    states,
    strays,
    volumes,
)
from bootvol.testing.backends import noise, read, write
from bootvol.testing.memory import MemoryBackend
from bootvol.threads import Threads
from bootvol.worker.claims import Claim
from bootvol.worker.heartbeat import RENEWAL
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.sweeper import LOOK, PATIENCE, PAUSE, Sweeper
from bootvol.worker.takeover import inherit
from bootvol.worker.tasks.adoption import AdoptVolume
from bootvol.worker.tasks.storage import Storage
from bootvol_plugins.file import FileBackend
from tests.unit.conftest import ENDED, on_server
from tests.unit.test_worker import Bench, loop

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1024 * 1024


def a_volume(db: Connection, name: str = "old", image: str | None = "i") -> int:
    """Add a volume; return its id. With an image, an import waits for the volume."""
    volume = Volume(0, name, "t", "u", 1, Status.CREATING, NOW, "nova", "b", image)
    number = volumes.add(db, volume).id
    if image is not None:
        imports.add(db, number, Image("i", "s", "n"))
    return number


def claimed(db: Connection, daemon: str, kind: Kind = Kind.VOLUME) -> Any:
    """Claim work as a daemon without other work."""
    busy: dict[Kind, list[int]] = {each: [] for each in Kind}
    holder = claims.ClaimRequest(
        f"{daemon}/1", daemon, backends=["b"], zeroed=[], busy=busy, serves=False
    )
    return claims.claim(db, kind, holder, claims.oldest(kind))


def run_out(db: Connection, kind: Kind = Kind.VOLUME) -> None:
    """Let all leases expire."""
    table = schema.LIVING[kind]
    db.execute(update(table).where(table.c.worker.is_not(None)).values(lease_until=ENDED))


def left(db: Connection) -> list[tuple[str, str | None]]:
    """Return all strays, each with the daemon that may write to it again."""
    found = db.execute(select(schema.strays).order_by(schema.strays.c.id))
    return [(row.name, row.daemon) for row in found]


def due(db: Connection, now: float = 0.0) -> list[str]:
    """Return the names due for deletion."""
    return [each.name for each in strays.due(db, "b", "", now, PAUSE)]


def test_another_daemons_claim_that_ran_out_gives_a_new_name(db: Connection) -> None:
    number = a_volume(db)
    assert claimed(db, "a").name == "old"
    assert left(db) == []
    run_out(db)
    taken = claimed(db, "b")
    assert taken.id == number
    assert taken.name.startswith("volume-")
    assert volumes.get(db, "t", number).name == taken.name
    assert left(db) == [("old", "a")]
    run_out(db)
    again = claimed(db, "c")
    assert again.name not in ("old", taken.name)
    assert left(db) == [("old", "a"), (taken.name, "b")]


def test_a_replacement_of_data_begins_anew_under_another_name(db: Connection) -> None:
    """The volume keeps its own data.

    Break: `src/bootvol/store/strays.py`: `fresh = {"name": f"volume-{uuid4()}",` -> `fresh =
    {"name": row.name,`.
    """
    number = a_volume(db, image=None)
    retyping = {"status": Status.RETYPING}
    db.execute(update(schema.volumes).where(schema.volumes.c.id == number).values(retyping))
    replacements.add(db, Replacement(number, "new", "b"))
    replacements.record(db, number, {"durable_bytes": 512, "durable_digest": "x"})
    assert claimed(db, "a").name == "old"
    run_out(db)
    assert claimed(db, "b").name == "old"
    found = replacements.get(db, number)
    assert found is not None
    assert found.name.startswith("volume-")
    assert found.checkpoint is None
    assert left(db) == [("new", "a")]
    assert not strays.is_mine(db, found.name, "a")
    replacements.complete(db, found)
    assert volumes.get(db, "t", number).name == found.name
    assert left(db) == [("new", "a"), ("old", None)]
    assert due(db) == ["new", "old"]


def test_the_loser_can_settle_nothing(db: Connection) -> None:
    number = a_volume(db)
    claimed(db, "a")
    run_out(db)
    claimed(db, "b")
    assert not claims.renew(db, claims.Lease("a/1", Kind.VOLUME, number, {Status.CREATING}))
    assert not claims.release(db, "a/1", Kind.VOLUME, number)
    assert claims.release(db, "b/1", Kind.VOLUME, number)


def test_what_was_let_go_or_is_the_daemons_own_keeps_its_name(db: Connection) -> None:
    number = a_volume(db)
    claimed(db, "a")
    claims.release(db, "a/1", Kind.VOLUME, number)
    assert claimed(db, "b").name == "old"
    # The daemon's own process has ended the job; and after a restart, no other process exists.
    run_out(db)
    assert claimed(db, "b").name == "old"
    claims.release_all(db, "b")
    assert claimed(db, "c").name == "old"
    assert left(db) == []


@pytest.mark.parametrize("status", [Status.CREATING, Status.DELETING, Status.GIVING_UP])
def test_a_disk_that_is_taken_over_keeps_its_name_and_is_no_stray(
    db: Connection, status: Status
) -> None:
    """A stray is deleted, and the disk with it.

    Break: `src/bootvol/store/strays.py`: ` or row.place is not None` -> ``.
    """
    volume = Volume(0, "old", "t", "u", 0, status, NOW, "nova", "b", place="theirs")
    volumes.add(db, volume)
    claimed(db, "a")
    run_out(db)
    assert claimed(db, "b").name == "old"
    assert left(db) == []


@pytest.mark.parametrize("end", [None, Event.DELETE, Event.COMPLETE])
@ensureDeferred
async def test_a_disk_that_is_renamed_too_late_is_given_back(
    bench: Bench, tmp_path: Path, threads: Threads, end: Event | None
) -> None:
    """A daemon was suspended before the change of names, and another one has ended the row.

    Break: `src/bootvol/worker/tasks/adoption.py`:
    `if not await self.database.read(ids.is_kept, self.kind, self._name):` -> `if False:`
    """
    backend = FileBackend("b", tmp_path, threads)
    (tmp_path / "theirs").write_bytes(b"disk")
    volume = Volume(
        *(0, "volume-1", "t", "u", 0, Status.CREATING, NOW, "nova", "b"),
        place="theirs",
        target_gib=1,
    )
    storage = Storage(
        Backends([backend], loop), bench.database, cast("ImageCache", bench.image_cache), "w"
    )
    if end is not None:
        added = await bench.database.write(volumes.add, volume)
        await bench.database.write(states.apply_event, Kind.VOLUME, added.id, end)
    task = AdoptVolume(volume, storage, bench.database, bench.clock)
    await backend.adopt("theirs", "volume-1", 4096)
    await task.lost()
    kept = "volume-1.raw" if end is Event.COMPLETE else "theirs"
    assert (tmp_path / kept).read_bytes()[:4] == b"disk"


@ensureDeferred
async def test_a_disk_that_is_too_large_stays_as_it_is(
    bench: Bench, tmp_path: Path, threads: Threads
) -> None:
    """Not even the mode and the size change.

    Break: `src/bootvol/worker/tasks/adoption.py`: `self._check(disk.size)` -> `pass`.
    """
    disk = tmp_path / "theirs"
    disk.write_bytes(b"disk")
    os.truncate(disk, GIB + 1)
    disk.chmod(0o644)
    before = disk.stat()
    backends = Backends([FileBackend("b", tmp_path, threads)], loop)
    storage = Storage(backends, bench.database, cast("ImageCache", bench.image_cache), "w")
    volume = Volume(
        *(0, "volume-1", "t", "u", 0, Status.CREATING, NOW, "nova", "b"),
        place="theirs",
        target_gib=1,
    )
    task = AdoptVolume(volume, storage, bench.database, bench.clock)
    with pytest.raises(DiskNotAdoptable, match="has 2 GiB, and not 1 GiB"):
        await task.work(cast("Claim", None))
    await task.undo()
    after = disk.stat()
    assert (after.st_mode, after.st_size) == (before.st_mode, before.st_size)


def test_a_removal_keeps_the_name_and_comes_again_later(db: Connection) -> None:
    number = a_volume(db)
    claimed(db, "a")
    states.apply_event(db, Kind.VOLUME, number, Event.DELETE)
    run_out(db)
    assert claimed(db, "b").name == "old"
    assert left(db) == [("old", "a")]
    assert due(db) == [], "the removal has it"
    run_out(db)
    claimed(db, "a")
    assert left(db) == [("old", "a"), ("old", "b")]
    states.apply_event(db, Kind.VOLUME, number, Event.VANISH)
    assert due(db) == ["old", "old"]


def test_what_is_attached_keeps_its_name(db: Connection) -> None:
    number = a_volume(db)
    attaching = {"status": Status.ATTACHING, "worker": "a/1", "lease_until": ENDED}
    db.execute(update(schema.volumes).values(attaching))
    assert claimed(db, "b").name == "old"
    assert volumes.get(db, "t", number).name == "old"
    assert left(db) == []


def test_a_snapshot_gets_a_new_name_as_well(db: Connection) -> None:
    snapshot = Snapshot(0, "old", "t", "u", 1, 1, Status.CREATING, NOW, "b")
    snapshots.add(db, snapshot)
    claimed(db, "a", Kind.SNAPSHOT)
    run_out(db, Kind.SNAPSHOT)
    assert claimed(db, "b", Kind.SNAPSHOT).name.startswith("snapshot-")
    assert due(db) == ["old"]


def test_a_checkpoint_lies_where_it_was_written(db: Connection) -> None:
    number = a_volume(db)
    claimed(db, "a")
    imports.record(db, number, durable_bytes=5, durable_digest="d", validator="v")
    run_out(db)
    claimed(db, "b")
    found = imports.find(db, number)
    assert found is not None
    assert (found.durable_name, found.checkpoint is not None) == ("old", True)
    assert due(db) == [], "somebody is to go on from it"
    # The next daemon fails, too, before it has copied the bytes.
    run_out(db)
    taken = claimed(db, "c").name
    found = imports.find(db, number)
    assert found is not None
    assert found.durable_name == "old"
    assert [name for name, _ in left(db)] == ["old", volumes_name(db, 1)]
    imports.record(db, number, durable_bytes=5, durable_name=None)
    assert due(db) == ["old", volumes_name(db, 1)]
    assert taken not in due(db)


def volumes_name(db: Connection, index: int) -> str:
    """Return the name of a stray by position."""
    return left(db)[index][0]


def test_golden_volumes_that_the_loser_was_making_are_strays(db: Connection) -> None:
    number = a_volume(db)
    claimed(db, "a")
    image_cache.begin(db, CachedImage("golden-1", "b", "i", "content", MIB, None, 0, 0.0), number)
    image_cache.begin(db, CachedImage("golden-2", "b", "i", "other", MIB, None, 0, 0.0), number)
    image_cache.complete(db, "golden-2")
    run_out(db)
    claimed(db, "b")
    assert left(db) == [("old", "a"), ("golden-1", "a")]
    assert not image_cache.complete(db, "golden-1")
    assert [each.name for each in image_cache.listed(db)] == ["golden-2"]


def test_strays_are_deleted_again_until_nobody_can_make_them_anew(db: Connection) -> None:
    a_volume(db)
    claimed(db, "a")
    run_out(db)
    claimed(db, "b")
    assert strays.due(db, "another", "", 0.0, PAUSE) == []
    (stray,) = strays.due(db, "b", "", 0.0, PAUSE)
    assert due(db, 1.0) == [], "another daemon is at it"
    strays.deleted(db, stray.id, before=-PATIENCE)
    assert due(db, PAUSE) == ["old"]
    strays.deleted(db, stray.id, before=PAUSE - PATIENCE)
    # A stray stays until its deletion, no matter how much time passes.
    assert due(db, 2 * PATIENCE) == ["old"]
    strays.deleted(db, stray.id, before=PATIENCE)
    assert left(db) == []


def test_a_clock_that_is_set_back_delays_nothing(db: Connection) -> None:
    a_volume(db)
    claimed(db, "a")
    run_out(db)
    claimed(db, "b")
    assert due(db, 1e9) == ["old"]
    (stray,) = strays.due(db, "b", "", 5.0, PAUSE)
    assert stray.name == "old"
    strays.deleted(db, stray.id, before=6.0)
    assert left(db) == []


def test_strays_of_a_daemon_that_started_again_are_deleted_once(db: Connection) -> None:
    a_volume(db)
    claimed(db, "a")
    run_out(db)
    claimed(db, "b")
    (stray,) = strays.due(db, "b", "", 0.0, PAUSE)
    claims.release_all(db, "a")
    assert left(db) == [("old", None)]
    assert due(db, 1.0) == ["old"]
    strays.deleted(db, stray.id, before=-PATIENCE)
    assert left(db) == []


def test_the_loser_may_delete_only_what_no_row_has(db: Connection) -> None:
    number = a_volume(db)
    assert not strays.is_mine(db, "old", "a")
    claimed(db, "a")
    imports.record(db, number, durable_bytes=5, durable_digest="d", validator="v")
    run_out(db)
    claimed(db, "b")
    assert not strays.is_mine(db, "old", "a"), "the next one goes on from it"
    imports.record(db, number, durable_name=None)
    assert strays.is_mine(db, "old", "a")
    strays.forget(db, "old")
    assert left(db) == []


# --- in the worker --------------------------------------------------------------------------------


@pytest_twisted.async_yield_fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A running worker."""
    bench = Bench(tmp_path)
    yield bench
    await bench.worker.stopService()
    bench.database.stop()


@ensureDeferred
async def test_who_lost_the_claim_takes_its_own_away(bench: Bench) -> None:
    number = await bench.importing()
    await bench.backend.allocate("v", MIB)
    await bench.database.write(run_out)
    other = bench.another("other")
    other.startService()
    await bench.until(lambda: bench.imports.started == 2)
    name = (await bench.get(number)).name
    assert name != "v"
    await bench.backend.allocate(name, MIB)
    bench.clock.advance(RENEWAL)
    await bench.until(lambda: len(bench.imports.runs) == 1)
    await bench.until(lambda: not bench.worker._jobs)
    assert list(bench.backend.volumes) == [name]
    assert await bench.database.read(left) == []
    bench.imports.runs[0].callback(None)
    await bench.status(number, Status.AVAILABLE)
    await other.stopService()


@pytest.mark.parametrize("error", [None, ImageTooLarge()])
@ensureDeferred
async def test_who_lost_the_claim_and_comes_to_an_end_changes_nothing(
    bench: Bench, error: Exception | None
) -> None:
    number = await bench.importing()
    await bench.backend.allocate("v", MIB)
    await bench.database.write(run_out)
    await bench.database.write(lambda db: claimed(db, "other"))
    taken = await bench.get(number)
    if error is None:
        bench.imports.runs[0].callback(None)
    else:
        bench.imports.runs[0].errback(error)
    await bench.until(lambda: not bench.worker._jobs)
    assert await bench.get(number) == taken
    assert bench.backend.volumes == {}


# --- sweeping -------------------------------------------------------------------------------------


def _leave(db: Connection, name: str, daemon: str | None = "gone", backend: str = "b") -> None:
    db.execute(schema.strays.insert().values(backend=backend, name=name, daemon=daemon))


@ensureDeferred
async def test_strays_are_swept(bench: Bench) -> None:
    now = 1000.0
    for name in ("one", "two", "v"):
        await bench.backend.allocate(name, MIB)
        await bench.database.write(_leave, name, None if name == "two" else "gone")
    await bench.spare.allocate("one", MIB)
    await bench.add()
    sweeper = Sweeper(bench.database, Backends([bench.backend], loop), bench.clock, lambda _: now)
    sweeper.startService()
    await bench.until(lambda: list(bench.backend.volumes) == ["v"])
    assert list(bench.spare.volumes) == ["one"]
    # Bytes written again under the name are deleted later, too.
    await bench.backend.allocate("one", MIB)
    for seconds in (LOOK, PAUSE):
        await bench.until(lambda: not sweeper._sweeping)
        now += seconds
        bench.clock.advance(seconds)
    await bench.until(lambda: list(bench.backend.volumes) == ["v"])
    await bench.until(lambda: not sweeper._sweeping)
    await sweeper.stopService()
    assert await bench.database.read(left) == [("one", "gone"), ("v", "gone")]
    now += PATIENCE
    sweeper.startService()
    await bench.until(lambda: not sweeper._sweeping)
    await sweeper.stopService()
    assert await bench.database.read(left) == [("v", "gone")]


@ensureDeferred
async def test_a_machines_clock_that_is_set_makes_no_stray_old(
    tmp_path: Path, new_postgresql: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, on_server(new_postgresql()))
    await bench.backend.allocate("young", MIB)
    await bench.database.write(_leave, "young", "gone")
    ahead = [0.0]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    delete = bench.backend.delete

    async def delayed(volume: str) -> None:
        # The clock is set between the two readings of the clock.
        ahead[0] += 2 * PATIENCE
        await delete(volume)

    bench.backend.delete = delayed  # type: ignore[method-assign]
    backends = Backends([bench.backend], loop)
    sweeper = Sweeper(bench.database, backends, bench.clock, claims.shared_time)
    sweeper.startService()
    await bench.until(lambda: bench.backend.volumes == {})
    await bench.until(lambda: not sweeper._sweeping)
    await sweeper.stopService()
    # The daemon of this stray may write to it again.
    assert await bench.database.read(left) == [("young", "gone")]
    await bench.worker.stopService()
    bench.database.stop()


@ensureDeferred
async def test_a_stray_that_is_in_use_keeps_no_other(bench: Bench) -> None:
    delete = bench.backend.delete

    async def refuses(volume: str) -> None:
        if volume == "open":
            raise BackendFailed("It is in use.")
        await delete(volume)

    bench.backend.delete = refuses  # type: ignore[method-assign]
    for name in ("open", "other"):
        await bench.backend.allocate(name, MIB)
        await bench.database.write(_leave, name, None)
    sweeper = Sweeper(bench.database, Backends([bench.backend], loop), bench.clock, lambda _: 0.0)
    sweeper.startService()
    await bench.until(lambda: list(bench.backend.volumes) == ["open"])
    await bench.until(lambda: not sweeper._sweeping)
    await sweeper.stopService()
    assert await bench.database.read(left) == [("open", None)]


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (DatabaseUnavailable(), []),
        (RuntimeError("a defect"), ["strays of backend b are not deleted"]),
    ],
)
@ensureDeferred
async def test_a_sweep_that_fails_is_made_again(
    bench: Bench, error: Exception, lines: list[str]
) -> None:
    """Only defects are logged, and once: the database itself tells of its failures."""
    write, failures = bench.database.write_without_invalidation, [error, error]

    async def failing(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await write(*args, **kwargs)

    await bench.worker.stopService()
    await bench.backend.allocate("stray", MIB)
    await bench.database.write(_leave, "stray", None)
    bench.database.write_without_invalidation = failing  # type: ignore[method-assign]
    sweeper = Sweeper(bench.database, Backends([bench.backend], loop), bench.clock, lambda _: 0.0)
    with capturedLogs() as logged:
        sweeper.startService()
        await bench.until(lambda: len(failures) == 1 and not sweeper._sweeping)
        bench.clock.advance(LOOK)
        await bench.until(lambda: not failures and not sweeper._sweeping)
        assert list(bench.backend.volumes) == ["stray"]
        bench.clock.advance(LOOK)
        await bench.until(lambda: bench.backend.volumes == {})
        await bench.until(lambda: not sweeper._sweeping)
    await sweeper.stopService()
    said = [str(formatEvent(each)) for each in logged if each["log_level"] is LogLevel.critical]
    assert said == lines


@ensureDeferred
async def test_strays_in_a_wrong_store_suspend_the_backend(bench: Bench) -> None:
    """One line tells that the store is wrong, however many strays lie there.

    Break: `src/bootvol/worker/sweeper.py`: `except WrongStore:` -> `except ZeroDivisionError:`
    """

    async def fails(volume: str) -> None:
        raise StoreUnusable("The disk is dead.")

    bench.backend.delete = fails  # type: ignore[method-assign]
    await bench.worker.stopService()
    for name in ("one", "two"):
        await bench.backend.allocate(name, MIB)
        await bench.database.write(_leave, name, None)
    backends = Backends([bench.backend], loop)
    sweeper = Sweeper(bench.database, backends, bench.clock, lambda _: 0.0)
    with capturedLogs() as logged:
        sweeper.startService()
        await bench.until(lambda: "b" in backends.suspended and not sweeper._sweeping)
        bench.clock.advance(LOOK)
    await sweeper.stopService()
    said = [formatEvent(each) for each in logged if each["log_level"] >= LogLevel.warn]
    assert said == ["backend b is suspended: The disk is dead."]


@ensureDeferred
async def test_a_backend_that_hangs_hinders_no_other_and_no_end(bench: Bench) -> None:
    async def hangs(volume: str) -> None:
        await Deferred()

    bench.backend.delete = hangs  # type: ignore[method-assign]
    for backend in (bench.backend, bench.spare):
        await backend.allocate("stray", MIB)
        await bench.database.write(_leave, "stray", None, backend.name)
    backends = Backends([bench.backend, bench.spare], loop)
    sweeper = Sweeper(bench.database, backends, bench.clock, lambda _: 0.0)
    sweeper.startService()
    await bench.until(lambda: bench.spare.volumes == {})
    await sweeper.stopService()
    assert list(bench.backend.volumes) == ["stray"]


# --- taking over written bytes --------------------------------------------------------------------


@pytest.mark.parametrize(("fill", "clones"), [(0, False), (0xAA, False), (0, True)])
@ensureDeferred
async def test_what_the_loser_had_written_is_taken_over(fill: int, clones: bool) -> None:
    backend = MemoryBackend("b", loop, fill=fill, clones=clones)
    await backend.allocate("old", 4 * MIB)
    content = noise(MIB) + bytes(MIB) + noise(MIB, 1)
    await write(backend, "old", 0, content)
    # An earlier attempt, broken off.
    await backend.allocate("new", 4 * MIB)
    await write(backend, "new", 0, noise(4 * MIB, 2))
    seen = b""

    async def look(reader: Any) -> None:
        nonlocal seen
        for offset in range(0, 3 * MIB, MIB // 2):
            target = memoryview(bytearray(MIB // 2))
            await reader.read_into(offset, target)
            seen += bytes(target)

    await inherit(VolumeTarget(backend, "new", 4 * MIB), "old", look)
    assert seen == content
    assert await read(backend, "new", 0, 3 * MIB) == content
    # Later writes of the loser change nothing.
    await write(backend, "old", 0, noise(3 * MIB, 3))
    await backend.delete("old")
    assert await read(backend, "new", 0, 3 * MIB) == content
