"""The spool of containers is bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.errors import SpoolFull
from bootvol.imaging.spool import Room, Spool
from bootvol.testing.backends import noise
from bootvol.threads import Threads
from tests.daemons import Running
from tests.disks import disk
from tests.images import MIB, convert

ROOM = 16 * MIB


@pytest_twisted.async_yield_fixture(params=["all together", "the disk"])
async def small(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon with room for small containers only."""
    if request.param == "the disk":
        with disk(tmp_path / "spool", ROOM, "ext4"):
            running = Running(tmp_path, '[imports]\nspool = "spool"\n')
            yield running
            await running.stop()
    else:
        running = Running(tmp_path, f"[imports]\nspool_gib = {ROOM / 1024**3}\n")
        yield running
        await running.stop()


@ensureDeferred
async def test_a_container_that_there_is_no_room_for(small: Running, tmp_path: Path) -> None:
    """A container beyond the spool's limit fails, and gives its room back.

    Break: `src/bootvol/imaging/spool.py`: `self._room.take(end - self._taken)` -> `pass`.
    Break: `src/bootvol/imaging/spool.py`: `self._room.give(self._taken)` -> `pass`.
    """
    (small.images / "large").write_bytes(convert(tmp_path, "vmdk", disk=noise(ROOM + MIB)))
    (small.images / "small").write_bytes(convert(tmp_path, "vmdk"))
    for _ in range(2):
        number = await small.create("large")
        assert await small.until(number, "available", "error") == "error"
        error = (await small.progress(number))["error"]
        assert (error["code"], error["retryable"]) == ("spool-full", True)
        assert small.files() == []
    # Space is given back, repeatedly.
    for _ in range(5):
        number = await small.create("small")
        settled = await small.until(number, "available", "error")
        assert settled == "available", await small.progress(number)


@ensureDeferred
async def test_room_is_shared(tmp_path: Path, threads: Threads) -> None:
    room = Room(3 * MIB)
    one, other = [Spool(tmp_path, 2 * MIB, room, threads) for _ in range(2)]
    data = memoryview(bytearray(MIB))

    async def written(spool: Spool, offset: int) -> None:
        writer = await spool.open_writer()
        try:
            await writer.write(offset, data)
            await writer.flush()
        finally:
            await writer.close()

    await one.renew()
    await other.renew()
    await written(one, MIB)
    await written(one, 0)
    await written(one, MIB)
    await written(other, 0)
    with pytest.raises(SpoolFull):
        await written(other, MIB)
    await one.renew()
    await written(other, MIB)
    await other.close()
    await other.close()
    await written(one, 2 * MIB)
    with pytest.raises(SpoolFull):
        await written(one, 3 * MIB)
    await one.close()
