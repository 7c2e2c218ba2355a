"""LVM with obstacles: each error names the obstacle, and nothing of others is changed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs

from bootvol.errors import BackendFailed, ConfigurationError, NoSpace, VolumeInUse
from bootvol.interfaces import (
    IBlockBackend,
    ICloningBackend,
    ICountingBackend,
    IGrowingBackend,
    IGuardedBackend,
    IRoutingBackend,
    PluginContext,
)
from bootvol.testing.backends import noise, read, write
from bootvol.threads import Threads
from bootvol_plugins.lvm import PLUGIN, backend, commands
from bootvol_plugins.lvm.options import LvmOptions
from tests.daemons import reactor
from tests.disks import block_device
from tests.lvm.groups import DISKS, empty, fill, group, holds, lvm, names
from tests.waiting import block_until, until

MIB = 1024 * 1024
SIZE = 4 * MIB
NAME = "snapshot-00000000-0000-4000-8000-000000000001"
OTHER = "volume-00000000-0000-4000-8000-000000000002"
MARK = b"what another tenant wrote".ljust(512, b".")

Make = Callable[..., IBlockBackend]


@pytest.fixture
def make(threads: Threads) -> Make:
    """Make a backend from its options."""

    def made(**options: object) -> IBlockBackend:
        context = PluginContext(reactor, threads, "disks")
        return PLUGIN.factory(LvmOptions.model_validate(options), context)

    return made


@pytest.fixture(scope="module")
def groups() -> Iterator[None]:
    """The group ``thick``, with extents larger than volumes, and the group ``thin``, with a small
    pool.
    """
    with group("thick", DISKS[0], extent="16m"), group("thin", DISKS[1], pool="64m"):
        yield


@pytest.fixture
def thick(groups: None, make: Make) -> Iterator[IBlockBackend]:
    """A backend with the group ``thick``."""
    yield make(group="thick")
    empty("thick")


@pytest.fixture
def thin(groups: None, make: Make) -> Iterator[IBlockBackend]:
    """A backend with the pool of the group ``thin``."""
    yield make(group="thin", pool="pool")
    empty("thin")


@pytest.fixture(params=["thick", "thin"])
def either(request: pytest.FixtureRequest) -> tuple[IBlockBackend, str]:
    """A backend of each kind in turn, and its group."""
    return request.getfixturevalue(request.param), request.param


def device(group: str, name: str = NAME) -> str:
    """Return the path of a volume's device."""
    return f"/dev/{group}/bootvol-{name}"


def used() -> float:
    """Return the used part of the pool's data space, in percent."""
    return float(lvm("lvs", "--noheadings", "-o", "data_percent", "thin/pool"))


@ensureDeferred
async def test_a_full_group(thick: IBlockBackend) -> None:
    with pytest.raises(NoSpace, match="disks has no room"):
        await thick.allocate(NAME, 2**40)
    assert names("thick") == []


@ensureDeferred
async def test_a_pool_is_not_filled(thin: IBlockBackend) -> None:
    await thin.allocate(OTHER, SIZE)
    await thin.allocate(NAME, 32 * SIZE)
    writer = await thin.open_writer(NAME)
    content = memoryview(bytearray(noise(SIZE)))

    async def write_all() -> None:
        for offset in range(0, 32 * SIZE, SIZE):
            await writer.write(offset, content)

    with pytest.raises(NoSpace):
        await write_all()
    await writer.flush()
    await writer.close()
    assert 80 < used() <= 90
    # Others use the pool as well: existing volumes stay, but no new one is accepted.
    fill(device("thin", OTHER), MARK)
    assert used() >= 90
    with pytest.raises(NoSpace, match="no data space left"):
        await thin.allocate("volume-3", SIZE)
    with pytest.raises(NoSpace):
        await ICloningBackend(thin).clone(OTHER, "volume-3", SIZE)
    with pytest.raises(NoSpace):
        await write(thin, OTHER, 0, noise(SIZE))
    # The space is free again.
    await thin.delete(NAME)
    assert used() < 20
    await thin.allocate("volume-3", SIZE)


@ensureDeferred
async def test_metadata_that_is_full(groups: None, make: Make) -> None:
    with pytest.raises(NoSpace, match="no metadata space left"):
        await make(group="thin", pool="pool", full_percent=5).allocate(NAME, SIZE)


@ensureDeferred
async def test_the_name_is_taken(either: tuple[IBlockBackend, str]) -> None:
    backend, group = either
    lvm("lvcreate", "-y", "-L", "16m", "-n", f"bootvol-{NAME}", group)
    await backend.allocate(OTHER, SIZE)
    fill(device(group), MARK)
    for call in (
        lambda: backend.allocate(NAME, 16 * MIB),
        lambda: backend.delete(NAME),
        lambda: backend.open_writer(NAME),
        lambda: backend.connection(NAME),
    ):
        with pytest.raises(BackendFailed, match="does not belong to bootvol"):
            await call()
    if backend.capabilities.clones:
        with pytest.raises(BackendFailed, match="does not belong to bootvol"):
            await ICloningBackend(backend).clone(OTHER, NAME, SIZE)
    assert holds(device(group), MARK)


@ensureDeferred
async def test_what_is_in_use_stays(
    either: tuple[IBlockBackend, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    under_test, group = either
    monkeypatch.setattr(backend, "LOOK", 0.0)
    await under_test.allocate(NAME, SIZE)
    await write(under_test, NAME, 0, noise(SIZE))
    with open(device(group), "rb"), pytest.raises(VolumeInUse):
        await under_test.delete(NAME)
    assert await read(under_test, NAME, 0, SIZE) == noise(SIZE)
    writer = await under_test.open_writer(NAME)
    with pytest.raises(BackendFailed, match="Device or resource busy"):
        await under_test.open_writer(NAME)
    await writer.close()
    await under_test.delete(NAME)
    assert names(group) == []


@ensureDeferred
async def test_no_descriptor_of_a_device_stays_unnoticed(
    either: tuple[IBlockBackend, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest in control of QEMU says that the disk is gone, and keeps the descriptor.

    Break: `plugins/bootvol_plugins/lvm/backend.py`: `if not found.is_open:` -> `if True:`
    """
    under_test, group = either
    monkeypatch.setattr(backend, "LOOK", 0.0)
    await under_test.allocate(NAME, SIZE)
    with open(device(group), "r+b"):
        # No lock tells of this descriptor.
        await IGuardedBackend(under_test).check_unused(NAME)
        with pytest.raises(VolumeInUse):
            await ICountingBackend(under_test).check_closed(NAME)
    monkeypatch.undo()
    await ICountingBackend(under_test).check_closed(NAME)
    await under_test.delete(NAME)


@pytest.mark.parametrize("kind", ["check", "write"])
@ensureDeferred
async def test_work_waits_for_a_check_of_others(
    either: tuple[IBlockBackend, str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Another daemon on the host, or another job, checks the same volume at that moment.

    Break: `plugins/bootvol_plugins/lvm/backend.py`: `looks = LOOKS` -> `looks = 1`.
    """
    under_test, group = either
    await under_test.allocate(NAME, SIZE)
    other = os.open(device(group), os.O_RDONLY | os.O_EXCL)
    ended: list[int] = []

    async def sleep(*_: object) -> None:
        if not ended:
            os.close(other)
        ended.append(other)

    monkeypatch.setattr(backend, "sleep", sleep)
    if kind == "check":
        await IGuardedBackend(under_test).check_unused(NAME)
    else:
        await (await under_test.open_writer(NAME)).close()
    assert ended == [other]
    await under_test.delete(NAME)
    assert names(group) == []


#: Opens a device, and then reads from the device in a thread, after a line of input.
_READER = """
import mmap, os, sys, threading
device = os.open(sys.argv[1], os.O_RDWR | os.O_EXCL | os.O_DIRECT)
print("open", flush=True)
input()
threading.Thread(target=os.preadv, args=(device, [mmap.mmap(-1, 4096)], 0)).start()
"""


@contextmanager
def hanging(path: str) -> Iterator[Callable[[], None]]:
    """Let the thread of a killed process hang on a device; yield what ends that."""
    with subprocess.Popen(
        [sys.executable, "-c", _READER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        subprocess.run(["dmsetup", "suspend", "--noflush", path], check=True)
        try:
            print(file=reader.stdin, flush=True)
            folder = Path(f"/proc/{reader.pid}")
            block_until(lambda: any(state(each) == "D" for each in folder.glob("task/*")))
            reader.kill()
            block_until(lambda: state(folder) == "Z")
            yield lambda: _resume(path)
        finally:
            _resume(path)


def _resume(path: str) -> None:
    # A device that was resumed may have been deleted by now.
    subprocess.run(["dmsetup", "resume", path], check=os.path.exists(path))


def state(thread: Path) -> str:
    """Return the state of a process or thread."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("kind", ["write", "delete"])
@ensureDeferred
async def test_a_thread_of_an_earlier_daemon_hangs(
    either: tuple[IBlockBackend, str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Work waits for the disk, and does not fail because the volume is in use.

    Break: `plugins/bootvol_plugins/lvm/holders.py`: `if _state(process) == _ENDED` -> `if False`.
    """
    under_test, group = either
    monkeypatch.setattr(backend, "LOOK", 0.1)
    await under_test.allocate(NAME, SIZE)
    with capturedLogs() as logs, hanging(device(group)) as end:
        if kind == "write":
            work: Deferred[Any] = Deferred.fromCoroutine(under_test.open_writer(NAME))
        else:
            work = Deferred.fromCoroutine(under_test.delete(NAME))
        await until(lambda: any("hangs there" in str(each.get("log_format")) for each in logs))
        assert not work.called
        end()
        writer = await work
    if kind == "write":
        await writer.close()
    await under_test.delete(NAME)
    assert names(group) == []


@ensureDeferred
async def test_old_blocks_are_never_seen(thick: IBlockBackend) -> None:
    """Neither bootvol nor others read the old content of blocks on a volume.

    Break: `plugins/bootvol_plugins/lvm/thick.py`: `await self._wipe(volume, 0, found.size)` ->
    `pass`.
    """
    lvm("lvcreate", "-y", "-L", "64m", "-n", "others", "thick")
    fill("/dev/thick/others", MARK)
    lvm("lvremove", "-y", "thick/others")
    await thick.allocate(NAME, SIZE)
    # The core zeroes the requested size; the core does not know the rest of the extent.
    writer = await thick.open_writer(NAME)
    await writer.zero(0, SIZE)
    await writer.close()
    assert not holds(device("thick"), MARK)
    # Others cannot read the volume's own blocks later, either.
    fill(device("thick"), MARK)
    await thick.delete(NAME)
    lvm("lvcreate", "-y", "-L", "16m", "-n", "others", "thick")
    assert not holds("/dev/thick/others", MARK)


def old_data(size: str) -> None:
    """Fill the first free extents of the group ``thick`` with data of others."""
    lvm("lvcreate", "-y", "-L", size, "-n", "others", "thick")
    fill("/dev/thick/others", MARK)
    lvm("lvremove", "-y", "thick/others")


@ensureDeferred
async def test_a_growth_that_was_killed(
    thick: IBlockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees old data, neither meanwhile nor later.

    Break: `plugins/bootvol_plugins/lvm/backend.py`: `if found.content is not None:` -> `if False:`
    """
    old_data("64m")
    growing = IGrowingBackend(thick)
    await thick.allocate(NAME, 16 * MIB)
    await write(thick, NAME, 0, noise(SIZE) * 4)

    class Killed(Exception):
        pass

    async def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(thick, "_zero", kill)
        with pytest.raises(Killed):
            await growing.grow(NAME, 3 * SIZE * 4)
    assert holds(device("thick"), MARK)
    for call in thick.open_reader, thick.connection, IRoutingBackend(thick).route:
        with pytest.raises(BackendFailed, match="not zeroed yet"):
            await call(NAME)
    # A late call for a smaller size ends the growth as well, while a guest uses the volume.
    with open(device("thick"), "r+b"):
        await growing.grow(NAME, 2 * SIZE * 4)
    assert await read(thick, NAME, 0, 48 * MIB) == (noise(SIZE) * 4).ljust(48 * MIB, b"\0")
    assert lvm("lvs", "--noheadings", "-o", "lv_tags", "thick").split() == ["bootvol"]


@ensureDeferred
async def test_a_growth_that_fails_is_taken_back(
    thick: IBlockBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break: `plugins/bootvol_plugins/lvm/growth.py`: `await self._shorten(volume, content)` ->
    `pass`
    """
    old_data("64m")
    growing = IGrowingBackend(thick)
    await thick.allocate(NAME, 16 * MIB)
    await write(thick, NAME, 0, noise(SIZE) * 4)

    async def fail(*_: object) -> None:
        raise BackendFailed("The disk is broken.")

    # A guest may use the volume meanwhile.
    with monkeypatch.context() as patch, open(device("thick"), "r+b"):
        patch.setattr(thick, "_zero", fail)
        with pytest.raises(BackendFailed, match="is broken"):
            await growing.grow(NAME, 32 * MIB)
    with pytest.raises(NoSpace):
        await growing.grow(NAME, 2**40)
    await (await thick.open_reader(NAME)).close()
    assert not holds(device("thick"), MARK)
    shown = lvm("lvs", "--noheadings", "--units", "m", "-o", "lv_size,lv_tags", "thick")
    assert shown.split() == ["16.00m", "bootvol"]


@ensureDeferred
async def test_a_late_growth_zeroes_nothing(thick: IBlockBackend, make: Make) -> None:
    """Another daemon has made the volume larger, while this one slept between two calls.

    Break: `plugins/bootvol_plugins/lvm/growth.py`: `found = await self._active(volume)
            if found.content is None and` -> `if found.content is None and`
    """
    await thick.allocate(NAME, 16 * MIB)
    late = make(group="thick")
    opened = late._open_to_write  # type: ignore[attr-defined]

    async def slept(volume: str) -> object:
        await IGrowingBackend(thick).grow(NAME, 32 * MIB)
        await write(thick, NAME, 16 * MIB, noise(SIZE))
        return await opened(volume)

    late._open_to_write = slept  # type: ignore[attr-defined]
    await IGrowingBackend(late).grow(NAME, 32 * MIB)
    assert await read(thick, NAME, 16 * MIB, SIZE) == noise(SIZE)


@ensureDeferred
async def test_a_full_pool_lets_no_volume_grow(groups: None, make: Make) -> None:
    thin = make(group="thin", pool="pool")
    await thin.allocate(NAME, SIZE)
    full = make(group="thin", pool="pool", full_percent=5)
    with pytest.raises(NoSpace, match="no metadata space left"):
        await IGrowingBackend(full).grow(NAME, 2 * SIZE)
    await thin.delete(NAME)


@ensureDeferred
async def test_a_wipe_that_was_cancelled(thick: IBlockBackend) -> None:
    """A volume with an interrupted wipe stays until it is wiped."""
    await thick.allocate(NAME, SIZE)
    fill(device("thick"), MARK)
    task = Deferred.fromCoroutine(thick.delete(NAME))
    task.cancel()
    with pytest.raises(CancelledError):
        await task
    assert names("thick") == [f"bootvol-{NAME}"]
    await thick.delete(NAME)
    assert names("thick") == []


@ensureDeferred
async def test_snapshots_that_others_made_stay(either: tuple[IBlockBackend, str]) -> None:
    backend, group = either
    await backend.allocate(NAME, SIZE)
    fill(device(group), MARK)
    if not backend.capabilities.clones:
        # LVM would remove the snapshot with the volume.
        lvm("lvcreate", "-y", "-s", "-L", "16m", "-n", "others", f"{group}/bootvol-{NAME}")
        with pytest.raises(BackendFailed, match="has snapshots"):
            await backend.delete(NAME)
        assert holds(device(group), MARK)
    else:
        lvm("lvcreate", "-y", "-s", "-kn", "-n", "others", f"{group}/bootvol-{NAME}")
        await backend.delete(NAME)
    assert holds(f"/dev/{group}/others", MARK)


@ensureDeferred
async def test_what_lies_at_the_path_is_another(either: tuple[IBlockBackend, str]) -> None:
    """A device at a volume's path is not opened if it is another volume.

    Break: `plugins/bootvol_plugins/lvm/volumes.py`: `if not self._is_this(descriptor):` -> `if not
    descriptor:`.
    """
    backend, group = either
    for name in NAME, OTHER:
        await backend.allocate(name, SIZE)
        fill(device(group, name), MARK)
    path = Path(device(group))
    right = path.resolve()
    for wrong in Path(device(group, OTHER)).resolve(), Path("/etc/hostname"):
        path.unlink()
        path.symlink_to(wrong)
        with pytest.raises(BackendFailed, match="is not the logical volume"):
            await backend.open_writer(NAME)
    path.unlink()
    path.symlink_to(right)
    assert holds(device(group, OTHER), MARK)


@ensureDeferred
async def test_what_is_not_active_is_activated(either: tuple[IBlockBackend, str]) -> None:
    backend, group = either
    await backend.allocate(NAME, SIZE)
    await write(backend, NAME, 0, noise(SIZE))
    lvm("vgchange", "-an", group)
    assert not Path(device(group)).exists()
    await backend.allocate(OTHER, SIZE)
    assert await read(backend, NAME, 0, SIZE) == noise(SIZE)


@ensureDeferred
async def test_the_group_is_gone(either: tuple[IBlockBackend, str]) -> None:
    backend, group = either
    await backend.allocate(NAME, SIZE)
    lvm("vgrename", group, "elsewhere")
    try:
        for call in (
            lambda: backend.allocate(OTHER, SIZE),
            lambda: backend.open_reader(NAME),
            lambda: backend.delete(NAME),
        ):
            with pytest.raises(BackendFailed, match=f'Volume group "{group}" not found'):
                await call()
    finally:
        lvm("vgrename", "elsewhere", group)
    await backend.delete(NAME)


@ensureDeferred
async def test_the_device_is_gone(make: Make, tmp_path: Path) -> None:
    with block_device(tmp_path / "disk", 64 * MIB) as disk, group("broken", str(disk.path)):
        backend = make(group="broken")
        await backend.allocate(NAME, SIZE)
        writer = await backend.open_writer(NAME)
        await writer.write(0, memoryview(bytearray(noise(SIZE))))
        await writer.flush()
        disk.break_after(4096)
        # Misaligned memory for direct I/O: the write goes through the page cache.
        await writer.write(0, memoryview(bytearray(SIZE + 1))[1:])
        with pytest.raises(BackendFailed, match="Input/output error"):
            await writer.flush()
        with pytest.raises(BackendFailed):
            await writer.zero(0, SIZE)
        await writer.close()
        for call in (
            lambda: backend.allocate(OTHER, SIZE),
            lambda: read(backend, NAME, 0, SIZE),
            lambda: backend.delete(NAME),
        ):
            with pytest.raises(BackendFailed):
                await call()
        disk.break_after(0)
        assert await read(backend, NAME, 0, SIZE) == noise(SIZE)
        await backend.delete(NAME)
        assert names("broken") == []


@contextmanager
def busy(group: str) -> Iterator[None]:
    """Hold a group's lock, as a slow command of LVM does."""
    descriptor = os.open(f"/run/lock/lvm/V_{group}", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@ensureDeferred
async def test_lvm_does_not_answer(thick: IBlockBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_LIMIT", 0.5)
    with busy("thick"), pytest.raises(BackendFailed, match="did not answer in time"):
        await thick.connection(NAME)


@ensureDeferred
async def test_who_is_cancelled_waits_for_lvm(thick: IBlockBackend) -> None:
    await thick.allocate(NAME, SIZE)
    await write(thick, NAME, 0, bytes(SIZE))
    ended: list[object] = []
    with busy("thick"):
        task = Deferred.fromCoroutine(thick.delete(NAME))
        task.addBoth(ended.append)
        task.cancel()
        assert ended == []
    while not ended:
        await Deferred.fromCoroutine(thick.connection(NAME))
    assert names("thick") == [f"bootvol-{NAME}"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group": "absent"}, 'Volume group "absent" not found'),
        ({"group": "thin", "pool": "absent"}, "lvcreate --type thin-pool"),
        ({"group": "thick", "pool": "linear"}, "thick has no thin pool 'linear'"),
        ({"group": "thick", "pool": "old"}, "lvchange --zero y thick/old"),
        ({"group": "thick", "pool": "greedy"}, "lvchange --discards passdown thick/greedy"),
    ],
)
def test_what_is_not_fit_is_said_at_the_start(
    thick: IBlockBackend, make: Make, options: dict[str, str], words: str
) -> None:
    lvm("lvcreate", "-y", "-L", "16m", "-n", "linear", "thick")
    pool = ("lvcreate", "-y", "--type", "thin-pool", "-L", "16m")
    lvm(*pool, "--zero", "n", "-n", "old", "thick")
    lvm(*pool, "--discards", "ignore", "-n", "greedy", "thick")
    try:
        with pytest.raises(ConfigurationError, match=words):
            make(**options)
    finally:
        lvm("lvremove", "-y", "thick/old", "thick/greedy")
