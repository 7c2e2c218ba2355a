"""Volumes on failing disks: real file systems, real faults.

Each time, the volume goes to ``error`` or waits with a useful reason, and the daemon is well. When
the disk recovers, the rest can be deleted, and the next import succeeds.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bootvol.errors import BackendFailed
from bootvol.model import GIB
from bootvol.testing.backends import noise
from bootvol.threads import Threads
from bootvol.worker import stores
from bootvol_plugins.file import FileBackend
from tests.daemons import EMBEDDED, Running, pause
from tests.disks import Disk, disk
from tests.servers import Server, only_looks, serve
from tests.waiting import until

MIB = 1024 * 1024
#: Room for sparse volumes of 1 GiB.
DISK = 1400 * MIB
#: Bytes that arrive before the fault, and after it.
HALF = 8 * MIB
CONTENT = noise(2 * HALF)
#: The working part of a broken disk. More bytes are written after the fault, so that some of them
#: hit the broken part.
WELL = 32 * MIB
LARGE = noise(HALF + WELL + 8 * MIB)
KINDS = ["ext4", "xfs", "btrfs"]
GONE = "The directory of backend local is gone."
UNMOUNTED = "Nothing is mounted on the directory of backend local."


class Halves(Resource):
    """Serves the first half of an image at once, and the rest at the test's command.

    :ivar waiting: the requests with the first half, by the image's name.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[str, Request] = {}

    def render_HEAD(self, request: Request) -> bytes:
        """State that the image exists, without its length."""
        return b""

    def render_GET(self, request: Request) -> bytes | int:
        """Send the first half."""
        if only_looks(request):
            return self.render_HEAD(request)
        request.write(CONTENT[:HALF])
        self.waiting[request.path.rsplit(b"/")[-1].decode()] = request
        return NOT_DONE_YET

    async def goes_on(self, name: str) -> None:
        """Wait until an image is requested again, and send all of it."""
        while name not in self.waiting:
            await pause(0.05)
        self.finish(name)

    def finish(self, name: str, content: bytes = CONTENT) -> None:
        """Send the rest."""
        request = self.waiting.pop(name)
        request.write(content[HALF:])
        request.finish()


@pytest.fixture
def halves() -> Halves:
    """Images in two halves."""
    return Halves()


@pytest.fixture
def server(halves: Halves) -> Iterator[Server]:
    """The running server."""
    with serve(halves) as server:
        yield server


@pytest.fixture
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk for the volumes only. The test's parameter chooses the kind."""
    with disk(tmp_path / "volumes", DISK, request.param) as mounted:
        yield mounted


class Faulty(Running):
    """A daemon with volumes on a disk that is about to fail."""

    def __init__(self, folder: Path, server: Server, state: str = EMBEDDED) -> None:
        self._server = server
        source = f"""
[[sources]]
name = "web"
plugin = "http"
allow = ["{server.url}images/"]
networks = ["127.0.0.0/8", "::1/128"]
checksums = "none"
"""
        super().__init__(
            folder,
            f"{source}[imports]\nbuffer_kib = 1024\n",
            backend="cache_gib = 0",
            state=state,
        )
        (self.images / "whole").write_bytes(CONTENT)

    async def halfway(self, name: str = "disk") -> int:
        """Start an import; return the volume after the first half is written."""
        number = await self.create(f"{self._server.url}images/{name}")
        await until(lambda: self.progress(number), lambda found: found["bytesDone"] == HALF)
        return number

    async def reason(self, number: int) -> dict[str, Any]:
        """Wait until a volume is in error; return the reason."""
        assert await self.until(number, "available", "error") == "error"
        error = (await self.call("GET", f"os-volumes/{number}/error")).json["error"]
        assert error["remedy"]
        return dict(error)

    async def why_waiting(self, number: int) -> dict[str, Any]:
        """Wait until a waiting volume shows a reason; return the reason."""
        answer = await until(
            lambda: self.call("GET", f"os-volumes/{number}/error"),
            lambda found: found.status == 200 and found.json["error"] is not None,
        )
        assert await self.status(number) != "error"
        assert answer.json["error"]["remedy"]
        return dict(answer.json["error"])

    async def waits_for_the_disk(self, number: int) -> None:
        """Check that a volume waits, since the disk fails as a whole."""
        error = await self.why_waiting(number)
        assert error["code"] == "store-unusable"
        assert re.fullmatch(
            "The directory of backend local cannot be used:"
            r" (Input/output error|Read-only file system)\.",
            error["message"],
        )

    async def delete(self, number: int) -> None:
        """Request the deletion of a volume."""
        assert (await self.call("DELETE", f"os-volumes/{number}")).status == 202

    async def is_well(self, *left: int) -> None:
        """Check that the given volumes can be deleted, and that a new import succeeds."""
        for number in left:
            await self.delete(number)
            assert await self.until(number, "gone", "error") == "gone"
        number = await self.create("whole")
        assert await self.until(number, "available", "error") == "available"
        (file,) = self.raw()
        check(file)

    def raw(self) -> list[Path]:
        """Return the files of the volumes."""
        return [file for file in self.files() if file.suffix == ".raw"]


@pytest_twisted.async_yield_fixture
async def on_disk(
    mounted: Disk, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Faulty]:
    """A daemon with its volumes on the disk."""
    monkeypatch.setattr(stores, "POLL", 0.3)
    daemon = Faulty(tmp_path, server)
    yield daemon
    await daemon.stop()


@pytest_twisted.async_yield_fixture
async def in_folder(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Faulty]:
    """A daemon with its volumes in a folder of a shared disk."""
    monkeypatch.setattr(stores, "POLL", 0.3)
    daemon = Faulty(tmp_path, server)
    yield daemon
    await daemon.stop()


def check(file: Path) -> None:
    """Check the whole content of a volume."""
    assert file.stat().st_size == GIB
    with file.open("rb") as volume:
        assert volume.read(len(CONTENT)) == CONTENT
        assert not any(volume.read(MIB))


@pytest.mark.parametrize("mounted", KINDS, indirect=True)
@ensureDeferred
async def test_a_full_disk(mounted: Disk, on_disk: Faulty, halves: Halves) -> None:
    first, second, third = [await on_disk.halfway(name) for name in ("a", "b", "c")]
    # Three volumes were promised 1 GiB each; now the rest of one of them would fit.
    others = mounted.folder / "others"
    await deferToThread(mounted.fill, others, HALF * 3 // 2)
    halves.finish("a")
    assert await on_disk.until(first, "available", "error") == "available"
    free = await deferToThread(mounted.free)
    halves.finish("b")
    error = await on_disk.reason(second)
    assert error["code"] == "no-space"
    assert error["message"].endswith("No space left on device.")
    assert len(on_disk.raw()) == 2
    assert await deferToThread(mounted.free) >= free + HALF - MIB, "its space is given back"
    halves.finish("c")
    assert await on_disk.until(third, "available", "error") == "available", "and used again"
    for file in on_disk.raw():
        check(file)
    # A new volume may need the space taken by one volume.
    others.unlink()
    await deferToThread(mounted.fill, others, HALF)
    refused = await on_disk.create("whole")
    error = await on_disk.reason(refused)
    assert error["code"] == "no-space"
    assert error["message"].endswith("No space left on device.")
    assert len(on_disk.raw()) == 2
    await on_disk.delete(third)
    await on_disk.until(third, "gone")
    fits = await on_disk.create("whole")
    assert await on_disk.until(fits, "available", "error") == "available"
    for file in on_disk.raw():
        check(file)
    others.unlink()
    await on_disk.delete(fits)
    await on_disk.until(fits, "gone")
    await on_disk.is_well(first, second, refused)


@pytest_twisted.async_yield_fixture
async def with_database(mounted: Disk, tmp_path: Path, server: Server) -> AsyncIterator[Faulty]:
    """A daemon whose database lies on the disk of its volumes."""
    (mounted.folder / "state").mkdir()
    daemon = Faulty(tmp_path, server, 'url = "sqlite:///volumes/state/bootvol.db"')
    yield daemon
    await daemon.stop()


@pytest.mark.parametrize("mounted", KINDS, indirect=True)
@ensureDeferred
async def test_a_disk_that_is_full_for_the_database_as_well(
    mounted: Disk, with_database: Faulty
) -> None:
    """The import fills the disk, and gives its space back before the database takes the reason."""
    others = mounted.folder / "others"
    await deferToThread(mounted.fill, others, HALF)
    refused = await with_database.create("whole")
    error = await with_database.reason(refused)
    assert error["code"] == "no-space"
    assert with_database.raw() == []
    others.unlink()
    await with_database.is_well(refused)


@pytest.mark.parametrize("mounted", ["ext4", "xfs"], indirect=True)
@ensureDeferred
async def test_a_deletion_makes_room_for_the_database_as_well(
    mounted: Disk, with_database: Faulty
) -> None:
    """Guests may fill the disk at any moment: the database has a reserve."""
    volume = await with_database.create("whole")
    assert await with_database.until(volume, "available", "error") == "available"
    await deferToThread(mounted.fill_up, mounted.folder / "others")
    refused = await with_database.create("whole")
    assert (await with_database.reason(refused))["code"] == "no-space"
    await with_database.delete(volume)
    assert await with_database.until(volume, "gone", "error") == "gone"
    await with_database.is_well(refused)


@pytest.mark.parametrize("mounted", KINDS, indirect=True)
@ensureDeferred
async def test_a_daemon_that_starts_on_a_full_disk(
    mounted: Disk, tmp_path: Path, server: Server
) -> None:
    """Only a running daemon can delete volumes, and so make room."""
    daemon = Faulty(tmp_path, server)
    volume = await daemon.create("whole")
    assert await daemon.until(volume, "available", "error") == "available"
    await daemon.stop()
    others = mounted.folder / "others"
    await deferToThread(mounted.fill_up, others)
    daemon = Faulty(tmp_path, server)
    try:
        refused = await daemon.create("whole")
        assert (await daemon.reason(refused))["code"] == "no-space"
        await daemon.delete(volume)
        assert await daemon.until(volume, "gone", "error") == "gone"
        others.unlink()
        await daemon.is_well(refused)
    finally:
        await daemon.stop()


@pytest.mark.parametrize("mounted", KINDS, indirect=True)
@ensureDeferred
async def test_a_daemon_that_starts_on_a_read_only_disk(
    mounted: Disk, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "POLL", 0.3)
    daemon = Faulty(tmp_path, server)
    earlier = await daemon.create("whole")
    assert await daemon.until(earlier, "available", "error") == "available"
    await daemon.stop()
    await deferToThread(mounted.remount, "ro")
    daemon = Faulty(tmp_path, server)
    try:
        assert await daemon.status(earlier) == "available"
        made = await daemon.create("whole")
        await daemon.waits_for_the_disk(made)
        await deferToThread(mounted.remount, "rw")
        assert await daemon.until(made, "available", "error") == "available"
        await daemon.is_well(earlier, made)
    finally:
        await daemon.stop()


@pytest.mark.parametrize("mounted", KINDS, indirect=True)
@ensureDeferred
async def test_the_sizes_of_all_volumes_may_exceed_the_disk(mounted: Disk, on_disk: Faulty) -> None:
    volume = await on_disk.create("whole")
    assert await on_disk.until(volume, "available", "error") == "available"
    await deferToThread(mounted.fill, mounted.folder / "others", 8 * HALF)
    blank = await on_disk.create()
    assert await on_disk.until(blank, "available", "error") == "available"
    snapshot = await on_disk.snapshot(volume)
    assert await on_disk.until(snapshot, "available", "error", kind="snapshot") == "available"
    larger = await on_disk.create(size=2)
    error = await on_disk.reason(larger)
    assert error["code"] == "no-space"
    assert re.fullmatch(
        r"Backend local has no room for volume-\S+: its disk is smaller\.", error["message"]
    )


@pytest.mark.parametrize("mounted", ["ext4"], indirect=True)
@ensureDeferred
async def test_a_disk_that_is_broken_in_part(
    mounted: Disk, on_disk: Faulty, halves: Halves
) -> None:
    number = await on_disk.halfway()
    free = mounted.free()
    mounted.device.break_after(WELL)
    halves.finish("disk", LARGE)
    error = await on_disk.reason(number)
    assert error["code"] == "backend-failed"
    assert error["message"].startswith("Writing volume-")
    assert error["message"].endswith(" on backend local failed: Input/output error.")
    assert on_disk.raw() == []
    assert mounted.free() > free, "its space is given back"
    # The disk is still broken, and loses the changes that it has to lose.
    await on_disk.delete(number)
    await on_disk.until(number, "gone")
    mounted.device.break_after(0)
    await on_disk.is_well()


@pytest.mark.parametrize("mounted", KINDS, indirect=True)
@ensureDeferred
async def test_a_disk_that_is_dead(mounted: Disk, on_disk: Faulty, halves: Halves) -> None:
    earlier = await on_disk.create()
    await on_disk.until(earlier, "available")
    number = await on_disk.halfway()
    with capturedLogs() as logged:
        mounted.device.break_after(4096)
        halves.finish("disk")
        await on_disk.waits_for_the_disk(number)
        # New requests wait for the same reason; some file systems have turned read-only.
        created = await on_disk.create("whole")
        await on_disk.waits_for_the_disk(created)
        await on_disk.delete(earlier)
        await on_disk.waits_for_the_disk(earlier)
        mounted.device.break_after(0)
        await deferToThread(mounted.unmount)
        await deferToThread(mounted.mount)
        await halves.goes_on("disk")
        for made in (number, created):
            assert await on_disk.until(made, "available", "error") == "available"
        assert await on_disk.until(earlier, "gone", "error") == "gone"
    assert not [each for each in logged if each.get("log_failure")], "no traceback is logged"
    await on_disk.is_well(created, number)


@pytest.mark.parametrize("mounted", KINDS, indirect=True)
@ensureDeferred
async def test_a_deletion_that_is_not_written_down(mounted: Disk, threads: Threads) -> None:
    backend = FileBackend("local", mounted.folder, threads, mounted=True)
    await backend.allocate("volume-1", GIB)
    mounted.device.break_after(4096)
    # The volume seems gone, but only until the next mount; the file system reports the fault just
    # once.
    for _ in range(3):
        with pytest.raises(BackendFailed):
            await backend.delete("volume-1")
    mounted.device.break_after(0)
    mounted.unmount()
    mounted.mount()
    await backend.connection("volume-1")
    await backend.delete("volume-1")
    with pytest.raises(BackendFailed):
        await backend.connection("volume-1")


@pytest.mark.parametrize("mounted", ["ext4"], indirect=True)
@ensureDeferred
async def test_a_disk_that_turns_read_only(mounted: Disk, on_disk: Faulty, halves: Halves) -> None:
    number = await on_disk.halfway()
    await deferToThread(mounted.remount, "abort")
    halves.finish("disk")
    await on_disk.waits_for_the_disk(number)
    await deferToThread(mounted.unmount)
    await deferToThread(mounted.mount)
    await halves.goes_on("disk")
    assert await on_disk.until(number, "available", "error") == "available"
    await on_disk.is_well(number)


@pytest.mark.parametrize("mounted", KINDS, indirect=True)
@ensureDeferred
async def test_a_disk_that_is_read_only(mounted: Disk, on_disk: Faulty) -> None:
    earlier = await on_disk.create("whole")
    await on_disk.until(earlier, "available")
    await deferToThread(mounted.remount, "ro")
    made = [await on_disk.create("whole"), await on_disk.create()]
    await on_disk.delete(earlier)
    for number in (*made, earlier):
        await on_disk.waits_for_the_disk(number)
    check(*on_disk.raw())
    await deferToThread(mounted.remount, "rw")
    for number in made:
        assert await on_disk.until(number, "available", "error") == "available"
    assert await on_disk.until(earlier, "gone", "error") == "gone"
    await on_disk.is_well(*made)


@pytest.mark.parametrize("mounted", ["ext4"], indirect=True)
@ensureDeferred
async def test_a_disk_that_is_unmounted(mounted: Disk, on_disk: Faulty, halves: Halves) -> None:
    number, unwanted = await on_disk.halfway(), await on_disk.halfway("unwanted")
    await deferToThread(mounted.unmount, lazily=True)
    halves.finish("disk")
    assert (await on_disk.why_waiting(number))["message"] == UNMOUNTED
    created = await on_disk.create("whole")
    assert (await on_disk.why_waiting(created))["message"] == UNMOUNTED
    # A volume that will reappear must not count as deleted.
    await on_disk.delete(unwanted)
    assert (await on_disk.why_waiting(unwanted))["message"] == UNMOUNTED
    assert on_disk.files() == [], "nothing is written beneath the disk"
    await deferToThread(mounted.mount)
    await halves.goes_on("disk")
    for made in (number, created):
        assert await on_disk.until(made, "available", "error") == "available"
    assert await on_disk.until(unwanted, "gone", "error") == "gone"
    assert len(on_disk.raw()) == 2
    await on_disk.is_well(number, created)


@ensureDeferred
async def test_a_folder_that_is_moved_away(in_folder: Faulty, halves: Halves) -> None:
    number = await in_folder.halfway()
    elsewhere = in_folder.volumes.rename(in_folder.folder / "elsewhere")
    halves.finish("disk")
    assert (await in_folder.why_waiting(number))["message"] == GONE
    created = await in_folder.create("whole")
    assert (await in_folder.why_waiting(created))["message"] == GONE
    await in_folder.delete(number)
    assert (await in_folder.why_waiting(number))["message"] == GONE
    assert not in_folder.volumes.exists(), "it is not made again"
    elsewhere.rename(in_folder.volumes)
    assert await in_folder.until(number, "gone", "error") == "gone"
    assert await in_folder.until(created, "available", "error") == "available"
    await in_folder.is_well(created)


@ensureDeferred
async def test_a_folder_that_is_another_by_now(in_folder: Faulty, halves: Halves) -> None:
    """A directory that is another one by now is not used.

    Break: `plugins/bootvol_plugins/file_folder.py`: `if found != self._expected:` -> `if False:`
    """
    number = await in_folder.halfway()
    in_folder.volumes.rename(in_folder.folder / "elsewhere")
    in_folder.volumes.mkdir()
    halves.finish("disk")
    error = await in_folder.why_waiting(number)
    assert error["code"] == "wrong-store"
    assert "Backend local has another directory" in error["message"]
    in_folder.volumes.rmdir()
    (in_folder.folder / "elsewhere").rename(in_folder.volumes)
    await halves.goes_on("disk")
    assert await in_folder.until(number, "available", "error") == "available"
    check(*in_folder.raw())
    await in_folder.is_well(number)
