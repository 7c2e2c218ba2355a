"""Requests of two tenants to one lane, with a real database and real tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from zope.interface import implementer

from bootvol.clocks import sleep
from bootvol.imaging.buffers import Memory
from bootvol.interfaces import IGuardedBackend, IVolumeReader
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Snapshot
from bootvol.store import snapshots, states
from bootvol.testing.memory import MemoryBackend
from bootvol.threads import Threads
from bootvol.worker.copier import Copier, ImportLimits
from bootvol.worker.lane_place import GRACE
from tests.unit.test_worker import Bench, loop
from tests.unit.test_zeroing import Old

SIZE = 64 * 1024
DATE = datetime(2026, 1, 1, tzinfo=UTC)


@implementer(IGuardedBackend)
class Slow(MemoryBackend):
    """A backend with some slow volumes, and some that a program has open.

    :ivar reading: names of the slow volumes in use, once for each reader.
    :ivar opened: the open volumes; their checks wait for the test.
    :ivar waiting: the waiting checks, by the name of the volume.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, loop)
        self.slow: set[str] = set()
        self.reading: list[str] = []
        self.opened: set[str] = set()
        self.waiting: dict[str, Deferred[None]] = {}

    async def check_unused(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IGuardedBackend.check_unused`."""
        if volume in self.opened:
            self.waiting[volume] = Deferred()
            await self.waiting[volume]

    async def open_reader(self, volume: str) -> IVolumeReader:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_reader`."""
        reader = await super().open_reader(volume)
        return SlowReader(self, volume, reader) if volume in self.slow else reader


@implementer(IVolumeReader)
class SlowReader:
    """A reader of a volume that never reaches the end."""

    def __init__(self, backend: Slow, volume: str, reader: IVolumeReader) -> None:
        self._backend, self._volume, self._reader = backend, volume, reader
        backend.reading.append(volume)

    async def read_into(self, offset: int, target: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeReader.read_into`."""
        await sleep(loop, 0.01)
        await self._reader.read_into(offset, target)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeReader.close`."""
        self._backend.reading.remove(self._volume)
        await self._reader.close()


@pytest_twisted.async_yield_fixture
async def bench(tmp_path: Path, threads: Threads) -> AsyncIterator[Bench]:
    """A running worker, with one backend that wipes and one that copies slowly."""
    bench = Bench(tmp_path)
    await bench.worker.stopService()
    bench.backend, bench.spare = Old("b"), Slow("c")
    bench.copier = Copier(ImportLimits(SIZE, 0, tmp_path), Memory(2, SIZE), threads, loop)
    bench.worker = bench.another("w")
    bench.worker.startService()
    yield bench
    await bench.worker.stopService()
    bench.database.stop()


async def blank(bench: Bench, tenant: str, backend: str, *names: str) -> list[int]:
    """Make blank volumes."""
    made = [await bench.add(None, name, backend, tenant=tenant) for name in names]
    bench.worker.wake()
    for number in made:
        await bench.status(number, Status.AVAILABLE, tenant)
    return made


async def snapshot(bench: Bench, tenant: str, volume: int, name: str) -> None:
    """Request a snapshot of a volume."""
    wanted = Snapshot(0, name, tenant, "u", volume, 1, Status.CREATING, DATE, "c")
    await bench.database.write(snapshots.add, wanted)
    bench.worker.wake()


@ensureDeferred
async def test_wiping_for_one_tenant_keeps_no_other_waiting(bench: Bench) -> None:
    """A wipe cannot give way, so one place is kept for a tenant without a place.

    Break: `src/bootvol/worker/worker.py`: `spare=0 if gives_way else 1` -> `spare=0`
    """
    assert isinstance(bench.backend, Old)
    for tenant, names in (("t", ["1", "2", "3", "4"]), ("other", ["5", "6"])):
        for number in await blank(bench, tenant, "b", *names):
            await bench.database.write(states.apply_event, Kind.VOLUME, number, Event.DELETE)
    bench.worker.wake()
    wiping = bench.backend.deleting
    await bench.until(lambda: len(wiping) == 3)
    # The first tenant has two jobs, as if alone; the other tenant has one.
    assert sorted(job.task.tenant for job in bench.worker._jobs) == ["other", "t", "t"]


@ensureDeferred
async def test_slow_copies_of_one_tenant_keep_no_other_waiting(bench: Bench) -> None:
    """A copy gives way in the middle.

    Break: `src/bootvol/worker/clone_or_copy.py`: `stream = YieldingStream(stream, progress.lane_place, copier.clock)` -> `pass`
    """  # noqa: E501
    slow_ones = bench.spare
    assert isinstance(slow_ones, Slow)
    slow = await blank(bench, "t", "c", "1", "2", "3")
    (quick,) = await blank(bench, "other", "c", "4")
    slow_ones.slow |= {"1", "2", "3"}
    for number in slow:
        await snapshot(bench, "t", number, f"of {number}")
    await bench.until(lambda: len(slow_ones.reading) == 2)
    await snapshot(bench, "other", quick, "of the other")
    await bench.until(lambda: "other" in [job.task.tenant for job in bench.worker._jobs])
    turns: dict[str, list[tuple[bool, bool]]] = {"t": [], "other": []}
    for job in bench.worker._jobs:
        turns[job.task.tenant].append((job.task.lane_place.held, job.task.lane_place.wanted))
    assert turns["other"] == [(True, False)]
    # One job waits in the middle of its work, and the third has not begun.
    assert sorted(turns["t"]) == [(False, True), (True, False)]
    assert sorted(slow_ones.reading) == ["1", "2"]


@ensureDeferred
async def test_waits_for_programs_that_end_keep_no_copy_waiting(bench: Bench) -> None:
    """A snapshot gives its place back while a program has the volume open.

    Break: `src/bootvol/worker/tasks/snapshots.py`: `await self.lane_place.rest_if_long(check,
    self._clock)` -> `await check`
    """
    backend = bench.spare
    assert isinstance(backend, Slow)
    numbers = await blank(bench, "t", "c", "1", "2", "3")
    backend.opened |= {"1", "2"}
    for number in numbers:
        await snapshot(bench, "t", number, f"of {number}")
    await bench.until(lambda: backend.waiting.keys() == {"1", "2"})
    assert f"of {numbers[2]}" not in backend.volumes
    bench.clock.advance(GRACE)
    await bench.until(lambda: f"of {numbers[2]}" in backend.volumes)
    for each in backend.waiting.values():
        each.callback(None)
    await bench.until(lambda: {f"of {number}" for number in numbers} <= backend.volumes.keys())
