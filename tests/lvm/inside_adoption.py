"""The lvm backend takes over the volumes of Cinder's LVM driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from pytest_twisted import ensureDeferred

from bootvol.errors import DiskNotAdoptable, DiskNotFound, VolumeInUse
from bootvol.interfaces import IAdoptingBackend, IBlockBackend, PluginContext
from bootvol.testing.backends import noise, read
from bootvol.threads import Threads
from bootvol_plugins.lvm import PLUGIN, adoption
from bootvol_plugins.lvm.options import LvmOptions
from tests.daemons import reactor
from tests.lvm.groups import DISKS, empty, fill, group, holds, lvm, names

MIB = 1024 * 1024
SIZE = 4 * MIB
NAME = "volume-00000000-0000-4000-8000-000000000001"
OTHER = "volume-00000000-0000-4000-8000-000000000002"
MARK = b"what another tenant wrote".ljust(512, b".")
#: A volume as Cinder names it, and a snapshot.
PLACE = f"volume-{uuid4()}"
SNAPSHOT = f"_snapshot-{uuid4()}"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "LOOK", 0.1)


@pytest.fixture(scope="module")
def groups() -> Iterator[None]:
    """A group without a pool, and one with a pool."""
    with group("thick", DISKS[0]), group("thin", DISKS[1], pool="64m"):
        yield


@pytest.fixture
def make(groups: None, threads: Threads) -> Iterator[Callable[..., IBlockBackend]]:
    """Make a backend from its options."""
    yield lambda **options: PLUGIN.factory(
        LvmOptions.model_validate(options), PluginContext(reactor, threads, "disks")
    )
    for each in ("thick", "thin"):
        empty(each)


@pytest.fixture
def thick(make: Callable[..., IBlockBackend]) -> IBlockBackend:
    """A backend with the group ``thick``."""
    return make(group="thick")


@pytest.fixture
def thin(make: Callable[..., IBlockBackend]) -> IBlockBackend:
    """A backend with the pool of the group ``thin``."""
    return make(group="thin", pool="pool")


def put(group: str, name: str) -> None:
    """Write bytes to a volume."""
    with open(f"/dev/{group}/{name}", "r+b") as device:
        device.write(noise(SIZE))


async def obstacles(backend: IBlockBackend) -> dict[str, str | None]:
    """Return the obstacles by the names of the volumes."""
    return {each.place: each.obstacle for each in await IAdoptingBackend(backend).stored_disks()}


@ensureDeferred
async def test_a_thick_volume_is_renamed_and_nothing_else(thick: IBlockBackend) -> None:
    lvm("lvcreate", "-y", "-L", "4m", "-n", PLACE, "thick")
    put("thick", PLACE)
    assert await obstacles(thick) == {PLACE: None}
    adopting = IAdoptingBackend(thick)
    assert await adopting.adopt(PLACE, NAME, SIZE) == SIZE
    assert names("thick") == [f"bootvol-{NAME}"]
    assert await read(thick, NAME, 0, SIZE) == noise(SIZE)
    # LVM reserves the name without the sign at its beginning.
    await adopting.give_up(NAME, SNAPSHOT[1:])
    assert names("thick") == [SNAPSHOT]
    assert await adopting.adopt(SNAPSHOT[1:], OTHER, SIZE) == SIZE
    await thick.delete(OTHER)
    assert names("thick") == []


@ensureDeferred
async def test_new_extents_show_no_former_data(
    thick: IBlockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash, too, the added part reads as zeros.

    Break: `plugins/bootvol_plugins/lvm/growth.py`:
    `await self._zero(volume, content, end, device)` -> `pass`.
    """
    lvm("lvcreate", "-y", "-l", "100%FREE", "-n", "old", "thick")
    fill("/dev/thick/old", MARK)
    lvm("lvremove", "-y", "thick/old")
    lvm("lvcreate", "-y", "-L", "4m", "-n", PLACE, "thick")
    put("thick", PLACE)

    class Killed(Exception):
        pass

    async def kill(*_: object) -> None:
        raise Killed

    adopting = IAdoptingBackend(thick)
    with monkeypatch.context() as patch:
        patch.setattr(thick, "_zero", kill)
        with pytest.raises(Killed):
            await adopting.adopt(PLACE, NAME, 4 * SIZE)
    assert holds(f"/dev/thick/bootvol-{NAME}", MARK)
    for _ in range(2):
        assert await adopting.adopt(PLACE, NAME, 4 * SIZE) == 4 * SIZE
        assert await read(thick, NAME, 0, 4 * SIZE) == noise(SIZE).ljust(4 * SIZE, b"\0")
    tags = lvm("lvs", "--noheadings", "-o", "lv_tags", f"thick/bootvol-{NAME}")
    assert tags.strip() == "bootvol"


@ensureDeferred
async def test_an_open_volume_stays_with_its_opener(thick: IBlockBackend) -> None:
    lvm("lvcreate", "-y", "-L", "4m", "-n", PLACE, "thick")
    with open(f"/dev/thick/{PLACE}", "rb"):
        assert await obstacles(thick) == {PLACE: "another program has the volume open"}
        with pytest.raises(VolumeInUse):
            await IAdoptingBackend(thick).adopt(PLACE, NAME, SIZE)
    assert names("thick") == [PLACE]


@ensureDeferred
async def test_a_volume_with_snapshots_stays(thick: IBlockBackend) -> None:
    """A deletion would take the snapshots along, and a snapshot needs its volume."""
    lvm("lvcreate", "-y", "-L", "4m", "-n", PLACE, "thick")
    lvm("lvcreate", "-y", "-s", "-L", "4m", "-n", SNAPSHOT, f"thick/{PLACE}")
    found = await obstacles(thick)
    assert "has snapshots" in (found[PLACE] or "")
    assert "extents of its own" in (found[SNAPSHOT] or "")
    for place in (PLACE, SNAPSHOT):
        with pytest.raises(DiskNotAdoptable):
            await IAdoptingBackend(thick).adopt(place, NAME, SIZE)


@ensureDeferred
async def test_a_thin_snapshot_is_a_disk_of_its_own(thin: IBlockBackend) -> None:
    lvm("lvcreate", "-y", "-V", "4m", "-n", PLACE, "--thinpool", "pool", "thin")
    put("thin", PLACE)
    # Such a snapshot is not activated with other volumes.
    lvm("lvcreate", "-y", "-s", "-n", SNAPSHOT, f"thin/{PLACE}")
    assert await obstacles(thin) == {PLACE: None, SNAPSHOT: None}
    adopting = IAdoptingBackend(thin)
    assert await adopting.adopt(SNAPSHOT, NAME, SIZE) == SIZE
    assert await adopting.adopt(PLACE, OTHER, 2 * SIZE) == 2 * SIZE
    await thin.delete(OTHER)
    assert await read(thin, NAME, 0, SIZE) == noise(SIZE)


@ensureDeferred
async def test_no_name_leads_out_of_the_pool(thin: IBlockBackend) -> None:
    lvm("lvcreate", "-y", "-L", "4m", "-n", PLACE, "thin")
    found = await obstacles(thin)
    assert found == {PLACE: "the volume is not in the backend's thin pool"}
    for place in (PLACE, "pool", f"thick/{PLACE}", f"thin/{PLACE}", "--help"):
        with pytest.raises((DiskNotAdoptable, DiskNotFound)):
            await IAdoptingBackend(thin).adopt(place, NAME, SIZE)
    assert names("thin") == [PLACE]
