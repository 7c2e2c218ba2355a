"""The spool of containers is bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from bootvol.errors import SpoolFull
from bootvol.imaging.room import Room, Share
from bootvol.imaging.spool import Spool
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

    Break: `src/bootvol/imaging/spool.py`: `self._share.take(end - self._share.held)` -> `pass`.
    Break: `src/bootvol/imaging/spool.py`: `await self._threads.run(os.close, descriptor)` ->
    `pass`.
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
async def test_imports_wait_for_the_room_of_others(small: Running, tmp_path: Path) -> None:
    """An import that finds no room in the spool waits until another import has ended.

    Break: `src/bootvol/worker/importer.py`: `if progress.stopping or share.is_alone:` -> `if
    share:`.
    """
    for number in range(3):
        content = convert(tmp_path, "vmdk", disk=noise(ROOM * 3 // 8, number))
        (small.images / f"image-{number}").write_bytes(content)
    numbers = [await small.create(f"image-{number}") for number in range(3)]
    for number in numbers:
        settled = await small.until(number, "available", "error")
        assert settled == "available", await small.progress(number)


@ensureDeferred
async def test_room_is_shared(tmp_path: Path, threads: Threads) -> None:
    room = Room(3 * MIB, Clock())
    with room.share() as first, room.share() as second:
        one, other = [Spool(tmp_path, 2 * MIB, share, threads) for share in (first, second)]
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


def test_imports_that_lack_space_go_first() -> None:
    """Other imports leave the import that lacked space first what this import needs.

    Break: `src/bootvol/imaging/room.py`: `max(0, first.needs - first.held)` -> `0`.
    """
    room = Room(100, Clock())
    with ExitStack() as stack:
        greedy = [stack.enter_context(room.share()) for _ in range(3)]
        own = stack.enter_context(room.share())
        for each in greedy:
            each.take(30)
        own.take(10)
        waiting = lacks(own)
        assert not waiting.called
        # The others make room one after the other, and wait, too.
        with pytest.raises(SpoolFull):
            greedy[0].take(1)
        others = [lacks(greedy[0])]
        assert waiting.called
        own.take(39)
        own.take(1)
        waiting = lacks(own)
        with pytest.raises(SpoolFull):
            greedy[1].take(1)
        others.append(lacks(greedy[1]))
        assert waiting.called
        own.take(70)
        own.give_back()
        assert [each.called for each in others] == [False, False]
    assert [each.called for each in others] == [True, True]


def lacks(share: Share) -> Deferred[None]:
    """Have an import lack space, give its space back, and wait."""
    share.lack()
    share.give_back()
    assert not share.is_alone
    return Deferred.fromCoroutine(share.wait())


def test_imports_larger_than_half_of_the_spool() -> None:
    room = Room(100, Clock())
    with room.share() as other:
        with room.share() as one:
            one.take(50)
            other.take(50)
            first, second = lacks(one), lacks(other)
            assert (first.called, second.called) == (True, False)
            one.take(100)
        assert second.called


def test_a_full_disk() -> None:
    """Imports that lack space have the disk alone, one after the other."""
    clock = Clock()
    room = Room(None, clock)
    with room.share() as other:
        with room.share() as one:
            one.take(50)
            other.take(50)
            first = lacks(one)
            with pytest.raises(SpoolFull):
                other.take(1)
            assert not first.called
            second = lacks(other)
            # File systems give space back late.
            assert not first.called
            clock.advance(10)
            assert first.called
            one.take(40)
            # Something else fills the disk.
            one.lack()
            assert one.is_alone
            clock.advance(10)
            assert not second.called
        clock.advance(10)
        assert second.called


@ensureDeferred
async def test_space_that_came_before_the_wait() -> None:
    room = Room(100, Clock())
    with room.share() as one:
        with room.share() as other:
            other.take(60)
            one.take(40)
            one.lack()
            one.give_back()
            other.give_back()
        await one.wait()
        one.take(100)
        assert one.is_alone


def test_a_wait_that_is_cancelled() -> None:
    room = Room(100, Clock())
    with room.share() as one, room.share() as other:
        other.take(60)
        one.take(40)
        waiting = lacks(one)
        waiting.addErrback(lambda failure: failure.trap(CancelledError) and None)
        waiting.cancel()
        assert not one.waits
        other.give_back()
