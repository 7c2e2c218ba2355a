"""The section of the backend suite about disks that a backend takes over and gives up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from pytest_twisted import ensureDeferred
from zope.interface.verify import verifyObject

from bootvol.errors import (
    BackendFailed,
    DiskNotAdoptable,
    DiskNotFound,
    VolumeInUse,
    VolumeMissing,
)
from bootvol.interfaces import IAdoptingBackend, IBlockBackend, ISnapshotAdoptingBackend
from bootvol.model import StoredDisk
from bootvol.testing.shared import OPENED, opened
from bootvol.testing.volumes import SIZE, VOLUMES, cancelled, noise, read, write

_NAME, _OTHER = VOLUMES
#: The name of a disk that is not bootvol's.
_PLACE: Final = f"contract-{uuid4()}"
#: Larger than the disk, which becomes as large.
_UNIT: Final = 2 * SIZE
#: Names that lead nowhere, or out of the store.
_NOWHERE: Final = (
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "../store",
    f"../{_PLACE}",
    f"./{_PLACE}",
    f"x/{_PLACE}",
    f"{_PLACE}@x",
    f"{_PLACE}\0",
    f"{_PLACE} ",
    f"-{_PLACE}",
    "\u00e9" * 500,
)


class Adopted:
    """Disks change hands without a copy, and no disk is lost or taken away."""

    @ensureDeferred
    async def test_adopts_and_gives_up_if_provided(self, backend: IBlockBackend) -> None:
        if not IAdoptingBackend.providedBy(backend):
            return  # The backend promises nothing: the core refuses to take disks over.
        verifyObject(IAdoptingBackend, backend)
        adopting = IAdoptingBackend(backend)
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, 0, noise(SIZE))
        assert _NAME in {each.volume for each in await adopting.stored_disks()}
        for _ in range(2):
            await adopting.give_up(_NAME, _PLACE)
            with pytest.raises(BackendFailed):
                await backend.open_reader(_NAME)
            with pytest.raises(VolumeMissing):
                await backend.connection(_NAME)
            found = (await _disks(adopting))[_PLACE]
            assert (found.volume, found.obstacle, found.size) == (None, None, SIZE)
            assert await adopting.stored_disk(_PLACE) == found
        # A deletion of the former name leaves the disk alone.
        await backend.delete(_NAME)
        for _ in range(2):
            assert await adopting.adopt(_PLACE, _OTHER, _UNIT) == _UNIT
            assert await read(backend, _OTHER, 0, _UNIT) == noise(SIZE).ljust(_UNIT, b"\0")
            known = await _disks(adopting)
            assert _PLACE not in known
            (ours,) = [each for each in known.values() if each.volume == _OTHER]
            assert ours.size == _UNIT
        # The volume is as good as any other.
        block = backend.capabilities.block_size
        await write(backend, _OTHER, _UNIT - block, noise(block))
        assert await read(backend, _OTHER, _UNIT - block, block) == noise(block)
        await backend.delete(_OTHER)
        assert _OTHER not in {each.volume for each in await adopting.stored_disks()}
        with pytest.raises(DiskNotFound):
            await adopting.adopt(_PLACE, _NAME, _UNIT)

    @ensureDeferred
    async def test_takes_no_volume_of_bootvol_over(self, backend: IBlockBackend) -> None:
        """A volume stays with its owner.

        Break: `plugins/bootvol_plugins/file_adoption.py`: `if place.endswith(SUFFIX):` ->
        `if False:`
        """
        if not IAdoptingBackend.providedBy(backend):
            return
        adopting = IAdoptingBackend(backend)
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, 0, noise(SIZE))
        (ours,) = [each for each in await adopting.stored_disks() if each.volume == _NAME]
        for place in {ours.place, _NAME}:
            with pytest.raises((DiskNotAdoptable, DiskNotFound)):
                await adopting.adopt(place, _OTHER, _UNIT)
        assert await read(backend, _NAME, 0, SIZE) == noise(SIZE)
        with pytest.raises(BackendFailed):
            await backend.open_reader(_OTHER)

    @ensureDeferred
    async def test_takes_nothing_from_outside(self, backend: IBlockBackend) -> None:
        """Names that are paths, or names in other places, lead nowhere.

        Break: `plugins/bootvol_plugins/file_adoption.py`: ` and "/" not in place` -> ``.
        """
        if not IAdoptingBackend.providedBy(backend):
            return
        adopting = IAdoptingBackend(backend)
        await backend.allocate(_NAME, SIZE)
        await adopting.give_up(_NAME, _PLACE)
        for place in _NOWHERE:
            assert await adopting.stored_disk(place) is None
            with pytest.raises((DiskNotAdoptable, DiskNotFound)):
                await adopting.adopt(place, _OTHER, _UNIT)
            with pytest.raises(BackendFailed):
                await backend.open_reader(_OTHER)
        assert await adopting.adopt(_PLACE, _OTHER, SIZE) == SIZE

    @ensureDeferred
    async def test_gives_up_no_others_name(self, backend: IBlockBackend) -> None:
        if not IAdoptingBackend.providedBy(backend):
            return
        adopting = IAdoptingBackend(backend)
        for volume, seed in ((_NAME, 1), (_OTHER, 2)):
            await backend.allocate(volume, SIZE)
            await write(backend, volume, 0, noise(SIZE, seed))
        await adopting.give_up(_NAME, _PLACE)
        with pytest.raises(BackendFailed):
            await adopting.give_up(_OTHER, _PLACE)
        assert await read(backend, _OTHER, 0, SIZE) == noise(SIZE, 2)
        assert await adopting.adopt(_PLACE, _NAME, SIZE) == SIZE
        assert await read(backend, _NAME, 0, SIZE) == noise(SIZE, 1)

    @ensureDeferred
    async def test_a_cancelled_change_of_hands_can_go_on(self, backend: IBlockBackend) -> None:
        if not IAdoptingBackend.providedBy(backend):
            return
        adopting = IAdoptingBackend(backend)
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, 0, noise(SIZE))
        await cancelled(adopting.give_up(_NAME, _PLACE))
        await adopting.give_up(_NAME, _PLACE)
        await cancelled(adopting.adopt(_PLACE, _OTHER, _UNIT))
        assert await adopting.adopt(_PLACE, _OTHER, _UNIT) == _UNIT
        assert await read(backend, _OTHER, 0, SIZE) == noise(SIZE)
        await cancelled(adopting.give_up(_OTHER, _PLACE))
        await adopting.give_up(_OTHER, _PLACE)
        assert await adopting.adopt(_PLACE, _NAME, _UNIT) == _UNIT
        assert await read(backend, _NAME, 0, SIZE) == noise(SIZE)

    @ensureDeferred
    async def test_gives_up_nothing_that_is_open(
        self, backend: IBlockBackend, tmp_path: Path
    ) -> None:
        if not IAdoptingBackend.providedBy(backend):
            return
        adopting = IAdoptingBackend(backend)
        await backend.allocate(_NAME, SIZE)
        connection = await backend.connection(_NAME)
        if connection.kind not in OPENED:
            return  # No other program can open the volume.
        with opened(connection, tmp_path):
            with pytest.raises(VolumeInUse):
                await adopting.give_up(_NAME, _PLACE)
            assert await backend.connection(_NAME) == connection
        await adopting.give_up(_NAME, _PLACE)
        assert _PLACE in await _disks(adopting)
        assert await adopting.adopt(_PLACE, _NAME, SIZE) == SIZE

    @ensureDeferred
    async def test_a_volume_has_no_snapshots_within(self, backend: IBlockBackend) -> None:
        if not ISnapshotAdoptingBackend.providedBy(backend):
            return
        verifyObject(ISnapshotAdoptingBackend, backend)
        adopting = ISnapshotAdoptingBackend(backend)
        await backend.allocate(_NAME, SIZE)
        await adopting.stored_snapshots()
        for place in (*_NOWHERE, _PLACE):
            assert await adopting.adopt_snapshot(_NAME, place, _OTHER, _UNIT) is None
        with pytest.raises(BackendFailed):
            await adopting.adopt_snapshot(_OTHER, _PLACE, f"contract-{uuid4()}", _UNIT)


async def _disks(backend: IAdoptingBackend) -> Mapping[str, StoredDisk]:
    return {each.place: each for each in await backend.stored_disks()}
