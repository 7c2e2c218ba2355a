"""One download for an image, for any number of volumes: single flight and cached images."""

from __future__ import annotations

import gzip
import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from sqlalchemy import Connection
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bootvol.errors import BackendFailed
from bootvol.interfaces import IVolumeReader
from bootvol.model import GIB, DiskIndex
from bootvol.store import image_cache as rows
from bootvol.testing.backends import noise
from bootvol_plugins.file import FileBackend
from tests.daemons import OTHER_TENANT, Running, pause
from tests.disks import Disk, disk
from tests.servers import Server, only_looks, serve
from tests.waiting import until

MIB = 1024 * 1024
CONTENT = noise(9 * MIB + 77)
#: The first bytes of a disk of at least 1 GiB; the file is sparse.
SPACE = 3 * 1024 * MIB
HALF = len(CONTENT) // 2
WEB = """
[quota]
volumes = -1

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}"]
networks = ["127.0.0.0/8", "::1/128"]
{more}
"""


class Web(Resource):
    """Serves one image under every name.

    :ivar asked: number of requests for the bytes, by name.
    :ivar held: waiting requests: for "slow", answered with the second half at the test's command;
        and for "huge", larger than 1 GiB.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.held: list[Request] = []
        self.etag = '"one"'

    def render_GET(self, request: Request) -> bytes | int:
        """Send the image, or hold the request."""
        name = request.path.rsplit(b"/")[-1].decode()
        if name == "SHA256SUMS":
            right = hashlib.sha256(CONTENT).hexdigest()
            return f"{right}  stated\n{right}  slow\n".encode()
        if name != "plain":
            request.setHeader("ETag", self.etag)
        if only_looks(request):
            if name != "huge":
                request.setHeader("Content-Length", str(len(CONTENT)))
            return b""
        self.asked[name] += 1
        if name not in {"slow", "huge"}:
            return CONTENT
        request.setHeader("Content-Length", str(len(CONTENT) if name == "slow" else GIB + 1))
        request.write(CONTENT[:HALF] if name == "slow" else b"\0")
        self.held.append(request)
        return NOT_DONE_YET

    def release(self) -> None:
        """Send the second half."""
        for request in self.held:
            request.write(CONTENT[HALF:])
            request.finish()
        self.held.clear()


@pytest.fixture
def web() -> Web:
    """The resource of the server."""
    return Web()


@pytest.fixture
def server(web: Web) -> Iterator[Server]:
    """The running server."""
    with serve(web) as server:
        yield server


@pytest.fixture(params=["xfs", "btrfs"])
def cloning(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk with block sharing, for the volumes."""
    with disk(tmp_path / "volumes", SPACE, request.param) as mounted:
        yield mounted


@asynccontextmanager
async def daemon(
    folder: Path, server: Server, more: str = 'checksums = "none"', backend: str = ""
) -> AsyncIterator[Running]:
    """A daemon with the server as a source."""
    running = Running(folder, WEB.format(url=server.url, more=more), backend=backend)
    try:
        yield running
    finally:
        await running.stop()


async def made(running: Running, image: str, *, cached: bool) -> int:
    """Make a volume from an image; check the content and the origin."""
    number = await running.create(image)
    settled = await running.until(number, "available", "error")
    progress = await running.progress(number)
    assert settled == "available", progress
    assert progress["cached"] is cached
    assert progress["bytesDone"] == len(CONTENT)
    connection = await running.call("GET", f"os-volumes/{number}/connection", token="root")
    is_right(Path(connection.json["connection"]["address"]))
    return number


def is_right(file: Path) -> None:
    """Check the content of a volume."""
    with file.open("rb") as volume:
        assert volume.read(len(CONTENT)) == CONTENT
        assert not any(volume.read(4 * MIB))


async def goldens(running: Running) -> list[dict[str, object]]:
    """Return the cached images, as shown to admins."""
    return list((await running.call("GET", "golden-volumes", token="root")).json["goldenVolumes"])


@ensureDeferred
async def test_the_second_volume_needs_no_copy(
    tmp_path: Path, web: Web, server: Server, cloning: Disk
) -> None:
    async with daemon(tmp_path, server) as running:
        url = f"{server.url}disk"
        first = await made(running, url, cached=False)
        free = cloning.free()
        second = await made(running, url, cached=True)
        assert free - cloning.free() < MIB, "their blocks are shared"
        assert web.asked["disk"] == 1
        (golden,) = await goldens(running)
        assert (golden["imageRef"], golden["hits"]) == (url, 1)
        use = (await running.call("GET", "golden-volumes", token="root")).json["use"]
        assert use == {"local": {"hits": 1, "misses": 1}}
        assert (await running.call("GET", "golden-volumes")).status == 403
        # The second volume needs neither the first one nor the cached image.
        for number in (first, second):
            await running.call("DELETE", f"os-volumes/{number}")
            await running.until(number, "gone")
        # The cache is visible only to a tenant with an older volume of the image.
        await made(running, url, cached=False)
        assert web.asked["disk"] == 1


@ensureDeferred
async def test_an_image_file_that_was_overwritten_is_read_anew(
    tmp_path: Path, web: Web, server: Server, cloning: Disk
) -> None:
    """``cp --preserve`` writes into the same file, and may keep size and time of change."""
    async with daemon(tmp_path, server) as running:
        image = running.images / "disk"
        image.write_bytes(CONTENT[::-1])
        before = image.stat()
        await running.until(await running.create("disk"), "available")
        assert len(await goldens(running)) == 1
        image.write_bytes(CONTENT)
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
        await made(running, "disk", cached=False)
        await made(running, "disk", cached=True)


@ensureDeferred
async def test_golden_volumes_stand_back(
    tmp_path: Path, web: Web, server: Server, cloning: Disk
) -> None:
    async with daemon(tmp_path, server) as running:
        first = await made(running, f"{server.url}disk", cached=False)
        await running.call("DELETE", f"os-volumes/{first}")
        await running.until(first, "gone")
        assert len(await goldens(running)) == 1
        # A new volume needs the space of the cached image.
        await deferToThread(cloning.fill, cloning.folder / "others", len(CONTENT) // 2)
        number = await running.create(f"{server.url}other")
        assert await running.until(number, "available", "error") == "available"
        (golden,) = await goldens(running) or [{"hits": 0}]
        assert golden["hits"] == 0


@ensureDeferred
async def test_a_volume_too_small_for_the_disk_is_refused(
    tmp_path: Path, web: Web, server: Server, cloning: Disk
) -> None:
    async with daemon(tmp_path, server) as running:
        disk = gzip.compress(bytes(1025 * MIB) + CONTENT, 1)
        (running.images / "large").write_bytes(disk)
        number = await running.create("large", size=2)
        assert await running.until(number, "available", "error") == "available"
        number = await running.create("large", size=1)
        assert await running.until(number, "available", "error") == "error"
        assert (await running.progress(number))["error"]["code"] == "image-too-large"
        assert len(running.files()) == 2


@ensureDeferred
async def test_nothing_shows_of_another_tenants_images(
    tmp_path: Path, web: Web, server: Server
) -> None:
    """A second tenant's import of the same image seems to be a download, but downloads nothing.

    Break: `src/bootvol/store/imports.py`: `import_queue.leader(connection, volume_id, tenant)` ->
    `import_queue.leader(connection, volume_id)`

    Break: `src/bootvol/store/imports.py`: `if found.cached and not` -> `if False and not`
    """
    async with daemon(tmp_path, server, backend="cache_gib = 1") as running:
        base, url = f"/v1.1/{OTHER_TENANT}", f"{server.url}slow"

        async def theirs() -> int:
            wanted = {"volume": {"size": 1, "imageRef": url}}
            made = await running.request("POST", f"{base}/os-volumes", wanted, token="bob")
            number: int = made.json["volume"]["id"]
            return number

        async def shown(number: int) -> Any:
            path = f"{base}/hp-bootable-volumes/{number}/import"
            return (await running.request("GET", path, token="bob")).json["import"]

        mine = await running.create(url)
        while (await running.progress(mine))["bytesDone"] < MIB:
            await pause(0.05)
        first, second = await theirs(), await theirs()
        seen = [await shown(first)]
        assert (seen[0]["phase"], seen[0]["position"], seen[0]["bytesDone"]) == ("queued", 1, 0)
        assert (await shown(second))["position"] == 2
        web.release()
        while seen[-1]["phase"] not in {"done", "failed"}:
            seen.append(await shown(first))
            await pause(0.01)
        assert seen[-1]["phase"] == "done"
        assert {each["phase"] for each in seen}.isdisjoint({"waiting", "cloning"})
        assert {each["cached"] for each in seen} <= {None, False}
        while (await shown(second))["phase"] != "done":
            await pause(0.05)
        assert (await shown(second))["cached"], "by an older volume of their own"
        assert web.asked["slow"] == 1


@ensureDeferred
async def test_fifty_at_once_cause_one_download(tmp_path: Path, web: Web, server: Server) -> None:
    async with daemon(tmp_path, server) as running:
        url = f"{server.url}slow"
        numbers = [await running.create(url) for _ in range(50)]
        while not web.held:
            await pause(0.05)
        while (await running.progress(numbers[0]))["bytesDone"] < MIB:
            await pause(0.05)
        leader, follower = [await running.progress(each) for each in (numbers[0], numbers[30])]
        assert leader["phase"] == "downloading"
        assert (follower["phase"], follower["position"]) == ("waiting", None)
        assert follower["bytesDone"] >= MIB
        assert follower["bytesTotal"] == len(CONTENT)
        # Imports of another image do not wait.
        await made(running, f"{server.url}other", cached=False)
        web.release()
        for number in numbers:
            assert await running.until(number, "available", "error") == "available"
        assert web.asked["slow"] == 1
        cached = [(await running.progress(number))["cached"] for number in numbers]
        assert cached == [False] + 49 * [True]
        while await goldens(running):
            await pause(0.05)
        files = running.files()
        assert len(files) == 51, "where a golden volume costs space it goes with its use"
        for file in files:
            is_right(file)


@ensureDeferred
async def test_when_the_leader_fails_another_leads(
    tmp_path: Path, web: Web, server: Server
) -> None:
    async with daemon(tmp_path, server) as running:
        url = f"{server.url}slow"
        first, second, third = [await running.create(url) for _ in range(3)]
        while not web.held:
            await pause(0.05)
        web.held.clear()
        await running.call("DELETE", f"os-volumes/{first}")
        while not web.held:
            await pause(0.05)
        web.release()
        for number in (second, third):
            assert await running.until(number, "available", "error") == "available"
        assert web.asked["slow"] == 2
        assert await running.until(first, "gone") == "gone"


@ensureDeferred
async def test_what_is_wrong_with_an_image_is_found_once(
    tmp_path: Path, web: Web, server: Server
) -> None:
    async with daemon(tmp_path, server, 'checksums = "SHA256SUMS"') as running:
        url = f"{server.url}slow"
        numbers = [await running.create(url) for _ in range(5)]
        while not web.held:
            await pause(0.05)
        (request,) = web.held
        request.write(CONTENT[HALF:-1] + b"?")
        request.finish()
        for number in numbers:
            assert await running.until(number, "available", "error") == "error"
            progress = await running.progress(number)
            assert (progress["phase"], progress["error"]["code"]) == ("failed", "digest-mismatch")
        assert web.asked["slow"] == 1
        assert running.files() == []
        # A later volume begins a new attempt.
        web.held.clear()
        later = await running.create(url)
        while not web.held:
            await pause(0.05)
        web.release()
        assert await running.until(later, "available", "error") == "available"


@ensureDeferred
async def test_what_is_wrong_with_a_volume_is_its_own_matter(
    tmp_path: Path, web: Web, server: Server
) -> None:
    async with daemon(tmp_path, server) as running:
        small, large = [await running.create(f"{server.url}huge", size) for size in (1, 2)]
        while not web.held:
            await pause(0.05)
        web.held.pop().write(CONTENT)
        assert await running.until(small, "error") == "error"
        assert (await running.progress(small))["error"]["code"] == "image-too-large"
        while not web.held:
            await pause(0.05)
        assert await running.until(large, "downloading", "error") == "downloading"


@ensureDeferred
async def test_an_image_that_changed_is_another(tmp_path: Path, web: Web, server: Server) -> None:
    async with daemon(tmp_path, server, backend="cache_gib = 1") as running:
        url = f"{server.url}disk"
        await made(running, url, cached=False)
        await made(running, url, cached=True)
        web.etag = '"two"'
        await made(running, url, cached=False)
        # The same bytes under another name may belong to another tenant.
        await made(running, f"{server.url}copy", cached=False)
        # Without a validator, nobody knows if the image is the same.
        await made_unknown(running, f"{server.url}plain")
        await made_unknown(running, f"{server.url}plain")
        assert web.asked == {"disk": 2, "copy": 1, "plain": 2}


async def made_unknown(running: Running, image: str) -> None:
    """Make a volume from an image without identity."""
    number = await running.create(image)
    assert await running.until(number, "available", "error") == "available"
    assert (await running.progress(number))["cached"] is None


@ensureDeferred
async def test_a_stated_digest_needs_no_validator(tmp_path: Path, web: Web, server: Server) -> None:
    more = 'checksums = "SHA256SUMS"'
    async with daemon(tmp_path, server, more, "cache_gib = 1") as running:
        url = f"{server.url}stated"
        await made(running, url, cached=False)
        web.etag = '"two"'
        await made(running, url, cached=True)
        assert web.asked["stated"] == 1


@ensureDeferred
async def test_a_golden_volume_that_went_bad_is_not_used(
    tmp_path: Path, web: Web, server: Server
) -> None:
    async with daemon(tmp_path, server, backend="cache_gib = 1") as running:
        url = f"{server.url}disk"
        await made(running, url, cached=False)
        (golden,) = [file for file in running.files() if file.name.startswith("golden-")]
        with golden.open("r+b") as file:
            file.seek(MIB)
            file.write(b"rotten")
        await made(running, url, cached=False)
        await until(lambda: not golden.exists())
        await made(running, url, cached=True)


@ensureDeferred
async def test_a_golden_volume_that_has_gone_is_made_anew(
    tmp_path: Path, web: Web, server: Server
) -> None:
    async with daemon(tmp_path, server, backend="cache_gib = 1") as running:
        url = f"{server.url}disk"
        await made(running, url, cached=False)
        (golden,) = [file for file in running.files() if file.name.startswith("golden-")]
        golden.unlink()
        with capturedLogs() as logs:
            await made(running, url, cached=False)
        assert any("is of no use: " in (formatEvent(each) or "") for each in logs)
        # A file that was removed is no fault of the program, so the log has no traceback.
        assert not any("log_failure" in each for each in logs)
        await made(running, url, cached=True)
        assert web.asked["disk"] == 2


@ensureDeferred
async def test_a_clone_that_went_bad_is_not_used(
    tmp_path: Path, web: Web, server: Server, cloning: Disk
) -> None:
    async with daemon(tmp_path, server, '[imports]\nverify = "read-back"') as running:
        url = f"{server.url}disk"
        await made(running, url, cached=False)
        await made(running, url, cached=True)
        (golden,) = [file for file in running.files() if file.name.startswith("golden-")]
        with golden.open("r+b") as file:
            file.seek(MIB)
            file.write(b"rotten")
        await made(running, url, cached=False)
        await made(running, url, cached=True)


@ensureDeferred
async def test_a_backend_that_fails_says_nothing_of_its_golden_volumes(
    tmp_path: Path, web: Web, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemon(tmp_path, server, backend="cache_gib = 1") as running:
        url = f"{server.url}disk"
        await made(running, url, cached=False)
        # The failure lasts for a while.
        elsewhere = running.volumes.rename(tmp_path / "elsewhere")
        number = await running.create(url)
        while (error := (await running.progress(number))["error"]) is None:
            await pause(0.05)
        assert error["code"] == "wrong-store"
        elsewhere.rename(running.volumes)
        assert await running.until(number, "available", "error") == "available"
        assert (await running.progress(number))["cached"]
        # The failure lasts for a moment.
        fails = [BackendFailed()]
        opened = FileBackend.open_reader

        async def open_reader(self: FileBackend, volume: str) -> IVolumeReader:
            if fails and volume.startswith("golden-"):
                raise fails.pop()
            return await opened(self, volume)

        monkeypatch.setattr(FileBackend, "open_reader", open_reader)
        await made(running, url, cached=True)
        assert not fails
        assert web.asked["disk"] == 1


@ensureDeferred
async def test_what_is_doomed_goes_when_the_daemon_starts(
    tmp_path: Path, web: Web, server: Server
) -> None:
    async with daemon(tmp_path, server, backend="cache_gib = 1") as running:
        await made(running, f"{server.url}disk", cached=False)
        assert len(running.files()) == 2
    with sqlite3.connect(tmp_path / "bootvol.db") as database:
        assert database.execute("UPDATE goldens SET state = 'doomed'").rowcount == 1
    database.close()
    async with daemon(tmp_path, server, backend="cache_gib = 1") as running:
        (left,) = await until(running.files, lambda found: len(found) == 1)
        assert left.name.startswith("volume-")


@ensureDeferred
async def test_the_longest_unused_goes_first(tmp_path: Path, web: Web, server: Server) -> None:
    """Cached images beyond the limit are removed, the longest unused ones first.

    Break: `src/bootvol/store/image_cache.py`: `if total > limit and not row.wanted:` -> `if
    False:`.
    """
    async with daemon(tmp_path, server, backend="cache_gib = 1") as running:
        for name in "abc":
            with (running.images / name).open("wb") as image:
                image.write(CONTENT)
                image.truncate(400 * MIB)
        for name in "abac":
            number = await running.create(name)
            assert await running.until(number, "available", "error") == "available"
        await until(
            lambda: goldens(running),
            lambda found: [golden["imageRef"] for golden in found] == ["c", "a"],
        )
        # The file of a removed cached image goes after its row has changed.
        await until(lambda: len(running.files()) == 4 + 2)


@ensureDeferred
async def test_what_a_daemon_left_unfinished_goes(tmp_path: Path, web: Web, server: Server) -> None:
    """The daemon ended while making a cached image: the import ends well, and nothing is left."""
    async with daemon(tmp_path, server, backend="cache_gib = 1") as running:
        number = await running.create(f"{server.url}disk")
        while not [file for file in running.files() if file.name.startswith("golden-")]:
            await pause(0)
    async with daemon(tmp_path, server, backend="cache_gib = 1") as running:
        assert await running.until(number, "available", "error") == "available"
        await gatherResults([Deferred.fromCoroutine(settled(running))])
        (kept,) = await goldens(running)
        names = sorted(file.stem for file in running.files())
        assert len(names) == 2
        assert kept["name"] in names


@pytest.mark.parametrize("error", [RuntimeError("a defect"), BackendFailed()])
@ensureDeferred
async def test_what_cannot_be_kept_leaves_nothing(
    tmp_path: Path,
    web: Web,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    fails = [error]
    complete = rows.complete

    def completed(connection: Connection, name: str, index: DiskIndex | None) -> bool:
        if fails:
            raise fails.pop()
        return complete(connection, name, index)

    monkeypatch.setattr(rows, "complete", completed)
    async with daemon(tmp_path, server, backend="cache_gib = 1") as running:
        await made(running, f"{server.url}disk", cached=False)
        while len(running.files()) > 1:
            await pause(0.05)
        await made(running, f"{server.url}disk", cached=False)
        assert len(await goldens(running)) == 1
        await made(running, f"{server.url}disk", cached=True)


async def settled(running: Running) -> None:
    """Wait until only a volume and its cached image are left."""
    while len(running.files()) > 2:
        await pause(0.05)
