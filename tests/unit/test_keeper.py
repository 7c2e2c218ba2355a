"""Claims are renewed together, and during outages of the database; the outages fail no work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from sqlalchemy import URL, Connection, select, update
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from bootvol.errors import BackendInterrupted, BootvolError, DatabaseUnavailable, ImageTooLarge
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Volume
from bootvol.store import claims, schema, snapshots, states, volumes
from bootvol.store.claims import LEASE
from bootvol.worker.heartbeat import RENEWAL
from bootvol.worker.job import MOST_FAILURES, PAUSE, Job
from bootvol.worker.worker import POLL
from tests.unit.conftest import on_server
from tests.unit.test_worker import Bench
from tests.waiting import until


@pytest_twisted.async_yield_fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A worker with a database in a file."""
    bench = Bench(tmp_path)
    yield bench
    await bench.worker.stopService()
    bench.database.stop()


@pytest_twisted.async_yield_fixture
async def served(tmp_path: Path, new_postgresql: Callable[[], str]) -> AsyncIterator[Bench]:
    """A worker with a database on a server."""
    bench = Bench(tmp_path, on_server(new_postgresql()))
    yield bench
    await bench.worker.stopService()
    bench.database.stop()


@pytest_twisted.async_yield_fixture
async def either(tmp_path: Path, url: URL) -> AsyncIterator[Bench]:
    """A worker, once with each kind of database."""
    bench = Bench(tmp_path, url)
    yield bench
    await bench.worker.stopService()
    bench.database.stop()


class Outage:
    """A database that refuses writes at the test's command."""

    def __init__(self, bench: Bench) -> None:
        self.on = False
        connections = bench.database._connections
        transact: Any = connections.transact

        def transacted(*args: Any, **kwargs: Any) -> Any:
            if self.on:
                raise DatabaseUnavailable
            return transact(*args, **kwargs)

        connections.transact = transacted  # type: ignore[method-assign]


async def tick(bench: Bench, seconds: float = RENEWAL) -> None:
    """Advance the clock, and let the current claims be renewed."""
    bench.clock.advance(seconds)
    await bench.until(lambda: bench.worker._heartbeats._ticking.call is not None)
    for ask in bench.database.write_without_invalidation, bench.database.read:
        done: Deferred[Any] = Deferred.fromCoroutine(ask(lambda _: None))
        done.addErrback(lambda failure: failure.trap(DatabaseUnavailable))
        await done


async def two(bench: Bench) -> tuple[int, int]:
    """Add two bootable volumes, and wait until their imports run."""
    first, second = await bench.add(name="1"), await bench.add(name="2")
    bench.worker.wake()
    await bench.until(lambda: len(bench.imports.runs) == 2)
    return first, second


def job_of(bench: Bench, number: int) -> Job:
    """Return the job for a volume."""
    (job,) = [job for job in bench.worker._jobs if job.task.id == number]
    return job


async def row(bench: Bench, number: int) -> Any:
    """Return the row of a volume's import."""
    query = select(schema.imports).where(schema.imports.c.volume_id == number)
    return await bench.database.read(lambda db: db.execute(query).one())


@ensureDeferred
async def test_one_transaction_keeps_all_claims(
    either: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = await two(either)
    for number in numbers:
        job_of(either, number).task.columns = lambda: {"bytes_done": 5}  # type: ignore[method-assign]
    write, asked = either.database.write_without_invalidation, []

    def counted(query: Any, *args: Any) -> Any:
        asked.append(query)
        return write(query, *args)

    monkeypatch.setattr(either.database, "write_without_invalidation", counted)
    await tick(either)
    assert len(asked) == 2, "the other one is that of this test"
    assert [(await row(either, number)).bytes_done for number in numbers] == [5, 5]
    for run in list(either.imports.runs):
        run.callback(None)
    for number in numbers:
        await either.status(number, Status.AVAILABLE)


@ensureDeferred
async def test_each_job_hears_of_its_own_claim(either: Bench) -> None:
    wanted, unwanted = await two(either)
    await either.database.write(states.apply_event, Kind.VOLUME, unwanted, Event.DELETE)
    either.clock.advance(RENEWAL)
    await either.status(unwanted, Status.GONE)
    assert either.imports.volumes == [wanted]
    either.imports.runs[0].callback(None)
    await either.status(wanted, Status.AVAILABLE)


@ensureDeferred
async def test_a_checkpoint_stays_until_the_import_looks_at_it(either: Bench) -> None:
    number = await either.add()
    kept = {"durable_bytes": 7, "durable_digest": "d", "validator": "v", "bytes_total": 9}
    mine = schema.imports.c.volume_id == number
    await either.database.write(
        lambda db: db.execute(update(schema.imports).where(mine).values(**kept))
    )
    either.worker.wake()
    # The importer of this test does not look at the row.
    await either.until(lambda: len(either.imports.runs) == 1)
    await tick(either)
    await job_of(either, number).heartbeat()
    either.imports.runs[0].errback(ImageTooLarge())
    await either.status(number, Status.ERROR)
    found = await row(either, number)
    assert {key: getattr(found, key) for key in kept} == kept
    assert (found.phase, found.bytes_done) == ("failed", 7)


@ensureDeferred
async def test_progress_that_is_not_taken_fails_its_own_work(served: Bench) -> None:
    good, bad = await two(served)
    for number, digest in (good, "right"), (bad, "d" * 300):
        columns = {"durable_bytes": 1, "durable_digest": digest}
        job_of(served, number).task.columns = lambda kept=columns: kept  # type: ignore[misc,method-assign]
    served.clock.advance(RENEWAL)
    failed = await served.status(bad, Status.ERROR)
    assert failed is not None
    assert failed.error is not None
    assert failed.error.code == "database-refused"
    assert served.imports.volumes == [good]
    assert (await row(served, good)).durable_digest == "right"
    served.imports.runs[0].callback(None)
    await served.status(good, Status.AVAILABLE)


@ensureDeferred
async def test_an_end_that_is_not_taken_is_a_failure(served: Bench) -> None:
    number = await served.importing()
    columns: dict[str, object] = {"durable_digest": "d" * 300}
    job_of(served, number).task.columns = lambda: columns  # type: ignore[method-assign]
    served.imports.runs[0].callback(None)
    failed = await served.status(number, Status.ERROR)
    assert failed is not None
    assert failed.error is not None
    assert failed.error.code == "database-refused"
    assert served.imports.started == 1


@ensureDeferred
async def test_work_outlasts_an_outage_of_its_own_file(bench: Bench) -> None:
    outage = Outage(bench)
    number = await bench.importing()
    outage.on = True
    for _ in range(10):
        await tick(bench, LEASE)
    bench.imports.runs[0].callback(None)
    for _ in range(3):
        await tick(bench, PAUSE)
    assert len(bench.worker._jobs) == 1
    outage.on = False
    bench.clock.advance(PAUSE)
    await bench.status(number, Status.AVAILABLE)
    assert bench.imports.started == 1


@ensureDeferred
async def test_a_lease_outlasts_an_outage_that_is_shorter(served: Bench) -> None:
    outage = Outage(served)
    number = await served.importing()
    for _ in range(3):
        outage.on = True
        await tick(served, LEASE - 2)
        outage.on = False
        await tick(served)
    outage.on = True
    served.imports.runs[0].callback(None)
    await tick(served, PAUSE)
    assert len(served.worker._jobs) == 1
    outage.on = False
    served.clock.advance(PAUSE)
    await served.status(number, Status.AVAILABLE)
    assert served.imports.started == 1


@ensureDeferred
async def test_a_lease_from_before_the_clock_was_set_back_is_shortened(served: Bench) -> None:
    number = await served.importing()
    dead = await served.add(image=None, name="dead")
    far = claims.LeaseClock() + 3600
    table = schema.volumes
    await served.database.write(
        lambda db: db.execute(
            update(table).where(table.c.id == dead).values(worker="dead/1", lease_until=far)
        )
    )
    left = select(table.c.lease_until - claims.LeaseClock()).where(table.c.id == dead)

    async def seconds() -> float:
        found: float = await served.database.read(lambda db: db.execute(left).scalar_one())
        return found

    assert await seconds() > 3000
    await tick(served, POLL)
    await until(seconds, lambda found: found <= LEASE)
    assert (await served.get(dead)).status is Status.CREATING
    assert served.imports.volumes == [number]


@ensureDeferred
async def test_nothing_goes_on_without_a_lease(served: Bench) -> None:
    outage = Outage(served)
    number = await served.importing()
    outage.on = True
    await tick(served, LEASE - 1)
    assert served.imports.runs
    await tick(served, 1)
    assert not served.imports.runs
    await tick(served, LEASE)
    outage.on = False
    served.clock.advance(POLL)
    await served.until(lambda: served.imports.started == 2)
    served.imports.runs[0].callback(None)
    await served.status(number, Status.AVAILABLE)


@ensureDeferred
async def test_a_claim_in_a_file_is_let_go_of_after_an_outage(bench: Bench) -> None:
    outage = Outage(bench)
    number = await bench.importing()
    await bench.database.write(states.apply_event, Kind.VOLUME, number, Event.DELETE)
    outage.on = True
    bench.worker.stop_making(Kind.VOLUME, number)
    for _ in range(3):
        await tick(bench, PAUSE)
    outage.on = False
    bench.clock.advance(PAUSE)
    await bench.status(number, Status.GONE)


@ensureDeferred
async def test_an_end_does_not_wait_for_an_outage(bench: Bench) -> None:
    outage = Outage(bench)
    await bench.importing()
    outage.on = True
    bench.database.end_soon()
    await bench.worker.stopService()
    assert not bench.worker._jobs


@pytest.mark.parametrize("error", [RuntimeError("defect"), ImageTooLarge()])
@ensureDeferred
async def test_a_failure_during_an_outage_is_logged(bench: Bench, error: Exception) -> None:
    outage = Outage(bench)
    await bench.importing()
    outage.on = True
    with capturedLogs() as logged:
        bench.imports.runs[0].errback(error)
        await bench.until(lambda: not bench.imports.runs)
        bench.database.end_soon()
        await bench.worker.stopService()
    (told,) = [each for each in logged if "failed" in (formatEvent(each) or "")]
    if isinstance(error, RuntimeError):
        assert told["log_failure"].value is error
    else:
        assert "image-too-large" in (formatEvent(told) or "")


@pytest.mark.parametrize("error", [DatabaseUnavailable, BackendInterrupted])
@ensureDeferred
async def test_what_always_fails_of_others_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: type[BootvolError]
) -> None:
    tries: list[int] = []

    def failing(db: Connection, *_: object) -> None:
        tries.append(1)
        raise error

    monkeypatch.setattr(snapshots, "get", failing)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    wanted = Volume(0, "v", "t", "u", 1, Status.CREATING, now, "n", "b", snapshot_id=1)
    number = (await bench.database.write(volumes.add, wanted)).id
    bench.worker.wake()
    for failures in range(MOST_FAILURES):
        so_many = [1] * (failures + 1)
        await until(tries.copy, so_many.__eq__)
        await bench.until(lambda: all(job.failed for job in bench.worker._jobs))
        # Each pause is longer than the one before, up to the length of a lease.
        (job,) = bench.worker._jobs
        assert not job.task.lane_place.held
        bench.clock.advance(min(LEASE, PAUSE * 2**failures) - 0.1)
        await bench.database.write_without_invalidation(lambda _: None)
        assert bench.worker._jobs == {job}
        bench.clock.advance(0.1)
    failed = await bench.status(number, Status.ERROR)
    assert failed is not None
    assert failed.error is not None
    assert failed.error.code == error.code
    assert failed.error.retryable
    assert len(tries) == MOST_FAILURES + 1
    await bench.until(lambda: not bench.worker._jobs)
    assert not bench.worker._failures
