"""Blocks with old content are zeroed completely, in a separate lane, before anybody sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import GIB
from bootvol.store import states
from bootvol.testing.backends import read
from bootvol.testing.memory import MemoryBackend
from tests.unit.test_worker import Bench, loop

MIB = 1024 * 1024


class Old(MemoryBackend):
    """A backend full of old bytes, with slow deletion.

    :ivar deleting: the waiting deletions.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, loop, fill=0xAA)
        self.deleting: list[Deferred[None]] = []

    async def delete(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.delete`."""
        waiting: Deferred[None] = Deferred()
        self.deleting.append(waiting)
        await waiting
        await super().delete(volume)


@pytest_twisted.async_yield_fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A running worker; its first backend is an :class:`Old` one."""
    bench = Bench(tmp_path)
    await bench.worker.stopService()
    bench.backend = Old("b")
    bench.worker = bench.another("w")
    bench.worker.startService()
    yield bench
    await bench.worker.stopService()
    bench.database.stop()


@ensureDeferred
async def test_a_blank_volume_is_blank(bench: Bench) -> None:
    """A blank volume reads as zeros on a backend with old bytes.

    Break: `src/bootvol/worker/tasks/volumes.py`: `await writer.zero(0, self._size)` -> `await
    writer.zero(0, 4096)`.
    """
    number = await bench.add(image=None)
    bench.worker.wake()
    await bench.status(number, Status.AVAILABLE)
    for offset in (0, GIB // 2 + 4096, GIB - MIB):
        assert not any(await read(bench.backend, "v", offset, MIB))


@ensureDeferred
async def test_wiping_keeps_nobody_waiting(bench: Bench) -> None:
    """Other volumes are deleted at once, no matter how many are being wiped; wipes take turns."""
    slow = [await bench.add(image=None, name=f"v{each}") for each in range(6)]
    quick = await bench.add(image=None, name="v", backend="c")
    bench.worker.wake()
    for number in (*slow, quick):
        await bench.status(number, Status.AVAILABLE)
    for number in (*slow, quick):
        await bench.database.write(states.apply_event, Kind.VOLUME, number, Event.DELETE)
    bench.worker.wake()
    await bench.status(quick, Status.GONE)
    assert isinstance(bench.backend, Old)
    wiping = bench.backend.deleting
    for _ in slow:
        await bench.until(lambda: bool(wiping))
        assert len(wiping) <= 2
        wiping.pop(0).callback(None)
    for number in slow:
        await bench.status(number, Status.GONE)
