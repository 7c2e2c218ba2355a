"""Claims and jobs when things go wrong: nothing happens twice, is lost, or is stuck."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from sqlalchemy import URL, Connection, make_url, select, update
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from bootvol.backends import Backends
from bootvol.errors import (
    BackendFailed,
    BackendInterrupted,
    DatabaseUnavailable,
    ExportFailed,
    ImageTooLarge,
    NoSpace,
)
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Image, Import, Volume
from bootvol.store import claims, imports, schema, states, volumes
from bootvol.store.claims import LEASE
from bootvol.store.database import Database
from bootvol.testing.memory import MemoryBackend
from bootvol.worker.export_recovery import ExportRecovery
from bootvol.worker.heartbeat import RENEWAL
from bootvol.worker.job import PAUSE
from bootvol.worker.progress import Progress
from bootvol.worker.tasks.copies import MakeFromSnapshot
from bootvol.worker.tasks.factories import TaskFactories
from bootvol.worker.tasks.snapshots import MakeSnapshot
from bootvol.worker.tasks.storage import Storage
from bootvol.worker.tasks.task import Task
from bootvol.worker.tasks.volumes import MakeBlank, MakeFromImage, RemoveVolume
from bootvol.worker.worker import POLL, Concurrency, Worker
from tests.unit.conftest import ENDED
from tests.waiting import until

loop: Any = reactor
LIMITS = Concurrency(2)


class Imports:
    """Stands for the importer: each run waits for the test's outcome.

    :ivar runs: the waiting runs.
    :ivar volumes: ids of the volumes of the waiting runs.
    :ivar most: the highest number of simultaneous runs.
    """

    def __init__(self, *backends: MemoryBackend) -> None:
        self._backends = {each.name: each for each in backends}
        self.runs: list[Deferred[None]] = []
        self.volumes: list[int] = []
        self.started = 0
        self.most = 0

    async def run(self, volume: Volume, task: Import, progress: Progress, keep: Any) -> None:
        """See bootvol.worker.importer.Importer."""
        run: Deferred[None] = Deferred()
        self.runs.append(run)
        self.volumes.append(volume.id)
        self.started += 1
        self.most = max(self.most, len(self.runs))
        try:
            await run
            backend = self._backends[volume.backend]
            if volume.name not in backend.volumes:
                await backend.allocate(volume.name, volume.size_bytes)
        finally:
            self.runs.remove(run)
            self.volumes.remove(volume.id)


class NoImageCache:
    """Stands for the image cache, always empty.

    :ivar tidying: awaited by the tidying after each job.
    :ivar asked_for_room: the backends that were to get room.
    """

    def __init__(self) -> None:
        self.tidying: Deferred[None] = succeed(None)
        self.asked_for_room: list[str] = []

    async def let_go(self, volume_id: int) -> None:
        """See bootvol.worker.image_cache.ImageCache."""

    async def tidy(self, name: str) -> None:
        """See bootvol.worker.image_cache.ImageCache."""
        await self.tidying

    async def make_room(self, name: str, but_for: int = 0) -> bool:
        """See bootvol.worker.image_cache.ImageCache."""
        self.asked_for_room.append(name)
        return False


class NoExports:
    """Stands for exports, always without exports.

    :ivar fails: True while the exports cannot be read.
    :ivar asked: how often the daemon asked.
    """

    fails = True
    asked = 0

    async def names(self) -> list[str]:
        """See bootvol.exports.exports.Exports."""
        self.asked += 1
        if self.fails:
            raise ExportFailed
        return []


def factories(**known: Any) -> TaskFactories:
    """Return the known factories, and for all other kinds of tasks a factory that fails."""

    def unexpected(*subject: object) -> Task:
        raise AssertionError(f"no task is expected for {subject}")

    fields = attrs.fields_dict(TaskFactories)
    return TaskFactories(**{name: known.get(name, unexpected) for name in fields})


class Bench:
    """A worker and its surroundings."""

    def __init__(self, folder: Path, url: URL | None = None) -> None:
        self.database = Database(url or make_url(f"sqlite:///{folder / 'x.db'}"), loop)
        self.database.upgrade()
        self.database.start()
        self.backend = MemoryBackend("b", loop)
        self.spare = MemoryBackend("c", loop)
        self.clock = Clock()
        self.imports = Imports(self.backend, self.spare)
        self.image_cache = NoImageCache()
        self.exports: NoExports | None = None
        #: Copies snapshots; only tests of snapshots set this.
        self.copier: Any = None
        self.worker = self.another("w")
        self.worker.startService()

    def another(
        self, name: str, backend: MemoryBackend | None = None, limits: Concurrency = LIMITS
    ) -> Worker:
        """Return another worker on the same database."""
        importer: Any = self.imports
        image_cache: Any = self.image_cache
        exports: Any = self.exports
        backends = Backends([backend] if backend else [self.backend, self.spare], loop)
        database, clock = self.database, self.clock
        storage = Storage(backends, database, image_cache, name)
        tasks = factories(
            make_blank=lambda volume: MakeBlank(volume, storage, clock),
            make_from_image=lambda volume, source: MakeFromImage(
                volume, source, storage, importer, image_cache, clock
            ),
            make_from_snapshot=lambda volume: MakeFromSnapshot(
                volume, storage, self.copier, database, clock
            ),
            remove_volume=lambda volume: RemoveVolume(volume, storage, image_cache),
            make_snapshot=lambda snapshot: MakeSnapshot(
                snapshot, storage, self.copier, database, clock
            ),
        )
        return Worker(
            limits,
            tasks,
            name,
            database,
            backends,
            image_cache,
            ExportRecovery(name, database, backends, exports, clock),
            ["s", "another"],
            clock,
            serves=False,
        )

    async def limit(self, **limits: Any) -> None:
        """Replace the worker by a stopped one with other limits."""
        await self.worker.stopService()
        self.worker = self.another("w", limits=Concurrency(**limits))

    async def add(
        self,
        image: str | None = "i",
        name: str = "v",
        backend: str = "b",
        source: str = "s",
        tenant: str = "t",
    ) -> int:
        """Add a volume."""
        now = datetime(2026, 1, 1, tzinfo=UTC)
        volume = Volume(0, name, tenant, "u", 1, Status.CREATING, now, "nova", backend, image)
        return await self.database.write(_add, volume, source)

    async def importing(self) -> int:
        """Add a bootable volume, and wait until its import runs."""
        number = await self.add()
        self.worker.wake()
        await self.until(lambda: len(self.imports.runs) == 1)
        return number

    async def get(self, number: int) -> Volume:
        """Return the current row of a volume."""
        return await self.database.read(volumes.get, "t", number)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the reactor run until a condition holds."""
        await until(condition)

    async def status(self, number: int, wanted: Status, tenant: str = "t") -> Volume | None:
        """Wait until a volume has a status."""

        async def found() -> Volume | None:
            listed = await self.database.read(volumes.listed, tenant)
            return {each.id: each for each in listed}.get(number)

        return await until(
            found, lambda volume: (volume.status if volume else Status.GONE) is wanted
        )


def _add(db: Connection, volume: Volume, source: str) -> int:
    added = volumes.add(db, volume)
    if volume.image_id is not None:
        imports.add(db, added.id, Image(volume.image_id, source, "n"))
    return added.id


def _worker_of(db: Connection, number: int) -> str | None:
    found = schema.volumes.c
    worker: str | None = db.execute(select(found.worker).where(found.id == number)).scalar_one()
    return worker


def _set(db: Connection, /, number: int, **columns: Any) -> None:
    db.execute(update(schema.volumes).where(schema.volumes.c.id == number).values(**columns))


@pytest_twisted.async_yield_fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A running worker."""
    bench = Bench(tmp_path)
    yield bench
    await bench.worker.stopService()
    bench.database.stop()


@ensureDeferred
async def test_an_import_to_its_end(bench: Bench) -> None:
    number = await bench.importing()
    await bench.status(number, Status.DOWNLOADING)
    bench.imports.runs[0].callback(None)
    await bench.status(number, Status.AVAILABLE)
    await bench.database.write(states.apply_event, Kind.VOLUME, number, Event.DELETE)
    bench.worker.wake()
    await bench.status(number, Status.GONE)


@ensureDeferred
async def test_a_claim_and_its_renewals_change_nothing_that_is_shown(bench: Bench) -> None:
    number = await bench.importing()
    before = await bench.status(number, Status.DOWNLOADING)
    (job,) = bench.worker._jobs
    # A write is counted just after its commit, by the one thread for writes.
    await bench.database.write_without_invalidation(lambda _: None)
    version = await bench.database.version()
    for _ in range(3):
        await job.heartbeat()
        bench.worker.wake()
    await gatherResults([lane.idle() for lane in bench.worker._lanes])
    assert await bench.database.version() == version
    assert await bench.get(number) == before
    bench.imports.runs[0].callback(None)
    await bench.status(number, Status.AVAILABLE)
    assert await bench.database.version() != version


@ensureDeferred
async def test_a_leap_of_the_clock_never_makes_two_of_one(bench: Bench) -> None:
    number = await bench.importing()
    bench.clock.advance(300)
    bench.worker.wake()
    await bench.database.write_without_invalidation(lambda _: None)
    assert bench.imports.started == bench.imports.most == 1
    bench.imports.runs[0].callback(None)
    await bench.status(number, Status.AVAILABLE)


@ensureDeferred
async def test_a_list_of_pending_work_that_fails_harms_no_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.worker.stopService()
    monkeypatch.setattr("bootvol.store.unsettled.work", lambda _: 1 / 0)
    bench.worker = bench.another("w")
    with capturedLogs() as logs:
        bench.worker.startService()
        number = await bench.importing()
        await until(lambda: [each for each in logs if "log_failure" in each])
    bench.imports.runs[0].callback(None)
    await bench.status(number, Status.AVAILABLE)
    assert [formatEvent(each) for each in logs if "log_failure" in each] == [
        "unfinished work cannot be listed"
    ]


@ensureDeferred
async def test_tidying_that_fails_or_lasts_harms_no_job(bench: Bench) -> None:
    bench.image_cache.tidying = fail(RuntimeError("defect"))
    bench.image_cache.tidying.addErrback(lambda failure: failure)
    number = await bench.importing()
    bench.imports.runs[0].callback(None)
    await bench.status(number, Status.AVAILABLE)
    await bench.until(lambda: not bench.worker._jobs)
    bench.image_cache.tidying = Deferred()
    await bench.database.write(states.apply_event, Kind.VOLUME, number, Event.DELETE)
    bench.worker.wake()
    await bench.status(number, Status.GONE)
    assert len(bench.worker._jobs) == 1
    await bench.worker.stopService()
    assert not bench.worker._jobs


@ensureDeferred
async def test_a_renewal_that_comes_after_the_end_hinders_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await bench.importing()
    bench.image_cache.tidying = Deferred()
    write = bench.database.write

    def written(query: Any, *args: Any) -> Deferred[Any]:
        writing = Deferred.fromCoroutine(write(query, *args))
        if query.__name__ == "settled":
            bench.clock.advance(RENEWAL)
        return writing

    monkeypatch.setattr(bench.database, "write", written)
    bench.imports.runs[0].callback(None)
    await bench.status(number, Status.AVAILABLE)
    # All due renewals have happened by now.
    await bench.database.write_without_invalidation(lambda _: None)
    assert len(bench.worker._jobs) == 1
    assert not bench.image_cache.tidying.called
    bench.image_cache.tidying.callback(None)
    await bench.until(lambda: not bench.worker._jobs)


@ensureDeferred
async def test_who_lost_the_claim_changes_nothing(bench: Bench) -> None:
    number = await bench.importing()
    await bench.backend.allocate("v", 1024)
    await bench.database.write(_set, number, status="available", worker=None, lease_until=None)
    with capturedLogs() as logged:
        bench.imports.runs[0].errback(ImageTooLarge())
        await bench.until(lambda: not bench.worker._jobs)
    assert (await bench.get(number)).status is Status.AVAILABLE
    assert "v" in bench.backend.volumes
    assert not [each for each in logged if "failed" in (formatEvent(each) or "")]


@ensureDeferred
async def test_a_deletion_outlasts_a_failure(bench: Bench) -> None:
    number = await bench.importing()
    await bench.database.write(states.apply_event, Kind.VOLUME, number, Event.DELETE)
    bench.imports.runs[0].errback(ImageTooLarge())
    await bench.status(number, Status.GONE)


@ensureDeferred
async def test_a_cancellation_of_a_plugins_own_is_a_failure(bench: Bench) -> None:
    number = await bench.importing()
    bench.imports.runs[0].errback(CancelledError())
    failed = await bench.status(number, Status.ERROR)
    assert failed is not None
    assert failed.error is not None
    assert failed.error.code == "unexpected-failure"
    assert bench.imports.started == 1


@ensureDeferred
async def test_space_that_cannot_be_given_back_does_not_hide_the_reason(bench: Bench) -> None:
    async def broken(volume: str) -> None:
        raise RuntimeError("defect")

    number = await bench.importing()
    bench.backend.delete = broken  # type: ignore[method-assign]
    bench.imports.runs[0].errback(ImageTooLarge())
    failed = await bench.status(number, Status.ERROR)
    assert failed is not None
    assert failed.error is not None
    assert failed.error.code == "image-too-large"


@pytest.mark.parametrize("is_sqlite", [True, False])
@ensureDeferred
async def test_a_full_disk_is_relieved_before_the_database_is_asked(
    bench: Bench, is_sqlite: bool
) -> None:
    """The database may lie on the same full disk, and take nothing until the space is back.

    Break: `src/bootvol/worker/job.py`: `isinstance(error, NoSpace) and` -> `False and`.
    """
    bench.database.is_sqlite = is_sqlite
    number = await bench.importing()
    is_full = True
    delete = bench.backend.delete
    write, write_quietly = bench.database.write, bench.database.write_without_invalidation

    async def deleted(volume: str) -> None:
        nonlocal is_full
        is_full = False
        await delete(volume)

    async def written(*args: Any, **kwargs: Any) -> Any:
        if is_full:
            raise DatabaseUnavailable
        return await write(*args, **kwargs)

    async def written_quietly(*args: Any, **kwargs: Any) -> Any:
        if is_full:
            raise DatabaseUnavailable
        return await write_quietly(*args, **kwargs)

    bench.backend.delete = deleted  # type: ignore[method-assign]
    bench.database.write = written  # type: ignore[method-assign]
    bench.database.write_without_invalidation = written_quietly  # type: ignore[method-assign]
    bench.imports.runs[0].errback(NoSpace())
    try:
        await bench.until(lambda: not is_full)
    finally:
        is_full = False  # Otherwise the worker could not stop.
    failed = await bench.status(number, Status.ERROR)
    assert failed is not None
    assert failed.error is not None
    assert failed.error.code == "no-space"


@ensureDeferred
async def test_a_job_past_its_lease_removes_nothing_when_the_disk_is_full(bench: Bench) -> None:
    """Another job may use the volume by then.

    Break: `src/bootvol/worker/job.py`: `self._expiry.getTime() > self._clock.seconds()` -> `True`.
    """
    bench.database.is_sqlite = False
    removed = []

    async def deleted(volume: str) -> None:
        removed.append(volume)

    async def unavailable(*args: Any, **kwargs: Any) -> Any:
        raise DatabaseUnavailable

    await bench.importing()
    bench.backend.delete = deleted  # type: ignore[method-assign]
    write_quietly = bench.database.write_without_invalidation
    bench.database.write_without_invalidation = unavailable  # type: ignore[method-assign]
    # As after a pause of the process: the clock is ahead, and the timers have not fired yet.
    bench.clock.rightNow += LEASE
    bench.imports.runs[0].errback(NoSpace())
    bench.database.write_without_invalidation = write_quietly  # type: ignore[method-assign]
    bench.clock.advance(PAUSE)
    assert removed == []


@ensureDeferred
async def test_a_deletion_that_fails_can_be_asked_for_again(bench: Bench) -> None:
    async def failing(volume: str) -> None:
        raise BackendFailed("not now")

    number = await bench.add(image=None)
    bench.worker.wake()
    await bench.status(number, Status.AVAILABLE)
    delete, bench.backend.delete = bench.backend.delete, failing  # type: ignore[method-assign]
    await bench.database.write(states.apply_event, Kind.VOLUME, number, Event.DELETE)
    bench.worker.wake()
    failed = await bench.status(number, Status.ERROR)
    assert failed is not None
    assert failed.error is not None
    assert failed.error.message == "not now"
    bench.backend.delete = delete  # type: ignore[method-assign]
    await bench.database.write(states.apply_event, Kind.VOLUME, number, Event.DELETE)
    bench.worker.wake()
    await bench.status(number, Status.GONE)
    assert bench.backend.volumes == {}


@ensureDeferred
async def test_a_database_that_fails_once_is_asked_again(bench: Bench) -> None:
    write, failures = (
        bench.database.write_without_invalidation,
        [RuntimeError("once"), RuntimeError("twice")],
    )

    async def failing(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await write(*args, **kwargs)

    number = await bench.add(image=None)
    bench.database.write_without_invalidation = failing  # type: ignore[method-assign]
    bench.worker.wake()
    assert not failures
    bench.clock.advance(POLL)
    await bench.status(number, Status.AVAILABLE)


def failing_to_release(bench: Bench, *failures: Exception) -> list[Exception]:
    """Let the releases of claims fail; return the failures still to come."""
    write, left = bench.database.write_without_invalidation, list(failures)

    async def failing(call: Any, *args: Any, **kwargs: Any) -> Any:
        if call is claims.release and left:
            raise left.pop(0)
        return await write(call, *args, **kwargs)

    bench.database.write_without_invalidation = failing  # type: ignore[method-assign,assignment]
    return left


@ensureDeferred
async def test_a_claim_is_let_go_when_the_database_is_back(bench: Bench) -> None:
    number = await bench.importing()
    left = failing_to_release(bench, *[DatabaseUnavailable() for _ in range(3)])
    stopping = bench.worker.stopService()

    def stopped() -> bool:
        bench.clock.advance(PAUSE)
        return bool(stopping.called)

    await bench.until(stopped)
    assert left == []
    assert await bench.database.read(_worker_of, number) is None


@ensureDeferred
async def test_a_job_that_is_cancelled_while_it_lets_go_lets_go(bench: Bench) -> None:
    number = await bench.importing()
    write, held = bench.database.write_without_invalidation, list[Deferred[None]]()

    async def holding(call: Any, *args: Any, **kwargs: Any) -> Any:
        if call is claims.release and not held:
            held.append(Deferred())
            await held[0]
        return await write(call, *args, **kwargs)

    bench.database.write_without_invalidation = holding  # type: ignore[method-assign,assignment]
    bench.imports.runs[0].errback(BackendInterrupted())

    def lets_go() -> bool:
        bench.clock.advance(PAUSE)
        return bool(held)

    await bench.until(lets_go)
    await bench.worker.stopService()
    assert await bench.database.read(_worker_of, number) is None


@ensureDeferred
async def test_a_daemon_that_ends_does_not_wait_for_the_database(bench: Bench) -> None:
    number = await bench.importing()
    left = failing_to_release(bench, DatabaseUnavailable(), DatabaseUnavailable())
    bench.database.ending = True
    await bench.worker.stopService()
    bench.database.ending = False
    assert len(left) == 1
    # The lease ends, or the next start of the daemon ends the claim.
    assert str(await bench.database.read(_worker_of, number)).startswith("w/")


@ensureDeferred
async def test_a_defect_while_a_claim_is_let_go_ends_the_job(bench: Bench) -> None:
    number = await bench.importing()
    left = failing_to_release(bench, RuntimeError("a defect"))
    with capturedLogs() as logged:
        await bench.worker.stopService()
    assert left == []
    said = [str(formatEvent(each)) for each in logged if each["log_level"] is LogLevel.critical]
    assert said == [f"could not let go of MakeFromImage of volume {number} on backend b"]


@ensureDeferred
async def test_what_a_lost_claim_left_is_removed(bench: Bench) -> None:
    number = await bench.importing()
    await bench.backend.allocate("v", 1)
    # Another daemon has taken the claim over, under another name.
    await bench.database.write(_set, number, worker="other/1", name="volume-other")
    await bench.worker.stopService()
    assert bench.backend.volumes == {}


@ensureDeferred
async def test_a_worker_that_died_is_replaced(bench: Bench) -> None:
    number = await bench.add(image=None)
    await bench.database.write(_set, number, worker="dead/1", lease_until=1.0)
    bench.clock.advance(POLL)
    assert (await bench.get(number)).status is Status.CREATING
    await bench.database.write(_set, number, lease_until=ENDED)
    bench.clock.advance(POLL)
    await bench.status(number, Status.AVAILABLE)


@ensureDeferred
async def test_a_volume_of_a_backend_elsewhere_is_left_alone(bench: Bench) -> None:
    await bench.worker.stopService()
    number = await bench.add(image=None)
    stranger = bench.another("s", MemoryBackend("other", loop))
    stranger.startService()
    await stranger.stopService()
    assert (await bench.get(number)).status is Status.CREATING
    bench.worker.startService()
    await bench.status(number, Status.AVAILABLE)


@ensureDeferred
async def test_a_worker_that_stops_lets_go(bench: Bench) -> None:
    number = await bench.importing()
    await bench.worker.stopService()
    assert bench.imports.runs == []
    assert (await bench.get(number)).status is Status.DOWNLOADING
    another = bench.another("other")
    another.startService()
    await bench.until(lambda: len(bench.imports.runs) == 1)
    await another.stopService()


@pytest.mark.parametrize("limited", ["backends", "sources"])
@ensureDeferred
async def test_what_is_at_its_limit_is_overtaken(bench: Bench, limited: str) -> None:
    key, one, other = ("backend", "b", "c") if limited == "backends" else ("source", "s", "another")
    await bench.limit(total=4, **{limited: {one: 2}})
    numbers = [await bench.add(name=f"{n}", **{key: one}) for n in range(4)]
    numbers += [await bench.add(name=f"{n}", **{key: other}) for n in (4, 5, 6)]
    bench.worker.startService()
    await bench.until(lambda: len(bench.imports.runs) == 4)
    assert bench.imports.volumes == [numbers[n] for n in (0, 1, 4, 5)]
    # An import with the limit ends: the next such import precedes the one without a limit.
    bench.imports.runs[0].callback(None)
    await bench.until(lambda: bench.imports.started == 5)
    assert bench.imports.volumes == [numbers[n] for n in (1, 4, 5, 2)]
    # An import without the limit ends: the next limited import is overtaken again.
    bench.imports.runs[1].callback(None)
    await bench.until(lambda: bench.imports.started == 6)
    assert bench.imports.volumes == [numbers[n] for n in (1, 5, 2, 6)]


@ensureDeferred
async def test_a_place_that_is_free_again_is_taken_at_once(bench: Bench) -> None:
    await bench.limit(total=2, sources={"s": 1})
    numbers = [await bench.add(name=f"{n}") for n in range(3)]
    bench.worker.startService()
    for number in numbers:
        await bench.until(lambda: len(bench.imports.runs) == 1)
        await bench.status(number, Status.DOWNLOADING)
        bench.imports.runs[0].callback(None)
        await bench.status(number, Status.AVAILABLE)
    assert bench.imports.most == 1


@ensureDeferred
async def test_a_full_backend_still_removes_and_makes_blank_volumes(bench: Bench) -> None:
    await bench.limit(total=2, backends={"b": 1})
    bench.worker.startService()
    await bench.importing()
    number = await bench.add(image=None, name="blank")
    bench.worker.wake()
    await bench.status(number, Status.AVAILABLE)
    await bench.database.write(states.apply_event, Kind.VOLUME, number, Event.DELETE)
    bench.worker.wake()
    await bench.status(number, Status.GONE)


@ensureDeferred
async def test_work_begins_once_nothing_hinders_it(bench: Bench) -> None:
    await bench.worker.stopService()
    exports = bench.exports = NoExports()
    bench.worker = bench.another("w")
    with capturedLogs() as logged:
        bench.worker.startService()
        number = await bench.add(image=None)

        def asked(times: int) -> bool:
            bench.clock.advance(POLL)
            return exports.asked >= times

        await bench.until(lambda: asked(3))
        exports.fails = False
        await bench.until(lambda: asked(4))
        await bench.status(number, Status.AVAILABLE)
    lines = [each["log_format"] for each in logged if each["log_namespace"].endswith("Worker")]
    assert lines == [
        "no work begins, since the exports are not in order",
        "the exports are in order, and work begins",
    ]
    # The worker can also stop meanwhile.
    await bench.worker.stopService()
    exports.fails = True
    bench.worker = bench.another("w")
    bench.worker.startService()
    await bench.until(lambda: asked(5))
    await bench.worker.stopService()
    assert not bench.clock.getDelayedCalls()
