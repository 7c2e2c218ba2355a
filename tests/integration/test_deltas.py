"""Volumes that are made from the cached image of an earlier release."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bootvol.model import GIB
from bootvol.testing.backends import noise
from tests.ceph import Cluster
from tests.daemons import OTHER_TENANT, Running, pause
from tests.disks import Disk, disk
from tests.images import MIB, gpt, qemu_img
from tests.servers import Server, only_looks, serve

CONFIG = """
[imports]
checkpoint_mib = 1
buffer_kib = 256
retries = 2

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}"]
networks = ["127.0.0.0/8", "::1/128"]
checksums = "none"
"""
DATA = 24 * MIB
ZEROS = bytes(MIB)


def releases() -> tuple[bytes, bytes]:
    """Return two disks: the second differs in places, has fewer data, and is shorter."""
    first = bytearray(gpt(16 * MIB) + noise(DATA - 1024) + bytes(4 * MIB) + noise(8 * MIB, 1))
    second = bytearray(first[: 32 * MIB + 512])
    second[3 * MIB : 3 * MIB + 5000] = noise(5000, 2)
    second[9 * MIB : 14 * MIB] = bytes(5 * MIB)
    second[25 * MIB : 27 * MIB] = noise(2 * MIB, 3)
    return bytes(first), bytes(second)


class Releases(Resource):
    """Serves images by name.

    :ivar images: the images.
    :ivar holding: whether answers stop in the middle of the image.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[str, bytes] = {}
        self.holding = False

    def render_GET(self, request: Request) -> bytes | int:
        """Send an image, or the rest of the image from an offset."""
        name = request.path.rsplit(b"/")[-1].decode()
        content = self.images[name]
        request.setHeader("ETag", f'"{name}"')
        span = request.getHeader(b"range")
        start, end = 0, len(content)
        if span is not None:
            first, _, last = span.removeprefix(b"bytes=").partition(b"-")
            start, end = int(first), int(last) + 1 if last else end
            request.setResponseCode(206)
            request.setHeader("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        if only_looks(request) or not self.holding:
            return content[start:end]
        request.setHeader("Content-Length", str(end - start))
        request.write(content[start : len(content) // 2])
        return NOT_DONE_YET


@pytest.fixture
def web() -> Releases:
    """The resource of the server."""
    return Releases()


@pytest.fixture
def server(web: Releases) -> Iterator[Server]:
    """The running server."""
    with serve(web) as server:
        yield server


@pytest.fixture
def cloning(tmp_path: Path) -> Iterator[Disk]:
    """A disk with block sharing, for the volumes."""
    with disk(tmp_path / "volumes", 3 * GIB, "xfs") as mounted:
        yield mounted


@asynccontextmanager
async def daemon(
    folder: Path, server: Server, backend: str = "delta = true"
) -> AsyncIterator[Running]:
    """A daemon with the server as a source."""
    running = Running(folder, CONFIG.format(url=server.url), backend=backend)
    try:
        yield running
    finally:
        await running.stop()


async def made(running: Running, url: str, disk: bytes, token: str = "ann") -> str:
    """Make a volume of an image; check its bytes; return the log's line about kept bytes."""
    tenant = OTHER_TENANT if token == "bob" else "11692683195772"
    base = f"/v1.1/{tenant}/os-volumes"
    wanted = {"volume": {"size": 1, "imageRef": url}}
    with capturedLogs() as logged:
        answer = await running.request("POST", base, wanted, token=token)
        number = answer.json["volume"]["id"]
        while True:
            shown = (await running.request("GET", f"{base}/{number}", token=token)).json["volume"]
            if shown["status"] in {"available", "error"}:
                break
            await pause(0.02)
        reason = await running.request("GET", f"{base}/{number}/error", token=token)
    assert shown["status"] == "available", reason.json
    path = f"/v1.1/{tenant}/os-volumes/{number}/connection"
    connection = await running.request("GET", path, token="root" if token == "ann" else token)
    if connection.status == 200:
        check(Path(connection.json["connection"]["address"]), disk)
    lines = [formatEvent(each) or "" for each in logged]
    return "\n".join(each for each in lines if " kept " in each or "no base" in each)


def check(volume: Path, disk: bytes) -> None:
    """Check all bytes of a volume of 1 GiB."""
    with volume.open("rb") as file:
        assert file.read(len(disk)) == disk
        assert not any(file.read(-len(disk) % len(ZEROS)))
        while rest := file.read(len(ZEROS)):
            assert rest == ZEROS
        assert file.tell() == GIB


@pytest.mark.parametrize("kind", ["raw", "qcow2", "vdi", "vhdx"])
@ensureDeferred
async def test_the_next_release_writes_what_differs(
    tmp_path: Path, web: Releases, server: Server, cloning: Disk, kind: str
) -> None:
    """Plain images, images decoded as they arrive, and images in the spool."""
    disks = releases()
    for number, content in enumerate(disks, 1):
        raw = tmp_path / "raw"
        raw.write_bytes(content)
        qemu_img("convert", "-f", "raw", "-O", kind, raw, tmp_path / "image")
        web.images[f"disk-{number}"] = (tmp_path / "image").read_bytes()
    async with daemon(tmp_path, server) as running:
        assert not await made(running, f"{server.url}disk-1", disks[0])
        line = await made(running, f"{server.url}disk-2", disks[1])
        kept, written = [int(word) for word in line.split() if word.isdigit()]
        # The qcow2 image of the second disk has its clusters in other places of the file.  Chunks
        # of the disk arrive whole, although the file is cut elsewhere.
        assert kept >= 21
        assert written <= 3
        assert not await made(running, f"{server.url}disk-2", disks[1]), "a clone"
        # The base has a base, too.
        web.images["disk-3"] = web.images["disk-1"]
        assert " kept " in await made(running, f"{server.url}disk-3", disks[0])


@ensureDeferred
async def test_only_if_the_operator_says_so(
    tmp_path: Path, web: Releases, server: Server, cloning: Disk
) -> None:
    disks = releases()
    web.images = {"disk-1": disks[0], "disk-2": disks[1]}
    async with daemon(tmp_path, server, "") as running:
        for name, content in zip(web.images, disks, strict=True):
            assert not await made(running, server.url + name, content)


@ensureDeferred
async def test_images_of_other_tenants_are_no_base(
    tmp_path: Path, web: Releases, server: Server, cloning: Disk
) -> None:
    disks = releases()
    web.images = {"disk-1": disks[0], "disk-2": disks[1]}
    async with daemon(tmp_path, server) as running:
        assert not await made(running, f"{server.url}disk-1", disks[0], token="bob")
        assert not await made(running, f"{server.url}disk-2", disks[1])


@pytest.mark.parametrize("lost", ["the volume", "the index"])
@ensureDeferred
async def test_without_its_base_an_image_is_written_whole(
    tmp_path: Path, web: Releases, server: Server, cloning: Disk, lost: str
) -> None:
    disks = releases()
    web.images = {"disk-1": disks[0], "disk-2": disks[1]}
    async with daemon(tmp_path, server) as running:
        await made(running, f"{server.url}disk-1", disks[0])
        if lost == "the volume":
            (golden,) = running.volumes.glob("golden-*")
            golden.unlink()
        else:
            with closing(sqlite3.connect(tmp_path / "bootvol.db")) as database:
                database.execute("UPDATE disk_indexes SET chunks = substr(chunks, 1, 5000)")
                database.commit()
        assert "is no base" in await made(running, f"{server.url}disk-2", disks[1])


@ensureDeferred
async def test_an_import_that_goes_on_after_a_restart_keeps_nothing(
    tmp_path: Path, web: Releases, server: Server, cloning: Disk
) -> None:
    """The rest of the volume, with bytes of the base, is written and zeroed.

    Break: `src/bootvol/worker/importer.py`: `blank = checkpoint.blank` -> `blank = True`.

    Break: `src/bootvol/worker/progress.py`: `checkpoint.blank if checkpoint else None` -> `None`.

    Break: `src/bootvol/imaging/pipeline.py`: `blank = self._capabilities.reads_zero_when_new` ->
    `blank = True`.
    """
    disks = releases()
    web.images = {"disk-1": disks[0], "disk-2": disks[1][: 20 * MIB]}
    url = f"{server.url}disk-2"
    async with daemon(tmp_path, server) as running:
        await made(running, f"{server.url}disk-1", disks[0])
        web.holding = True
        number = await running.create(url)
        while (await running.progress(number))["bytesDone"] < 8 * MIB:
            await pause(0.02)
        await until_durable(tmp_path / "bootvol.db", number)
    web.holding = False
    async with daemon(tmp_path, server) as running:
        assert await running.until(number, "available", "error") == "available"
        progress = await running.progress(number)
        assert progress["attempt"] == 2
        assert not progress["warnings"], "the import started over"
        connection = await running.call("GET", f"os-volumes/{number}/connection", token="root")
        check(Path(connection.json["connection"]["address"]), web.images["disk-2"])
        with closing(sqlite3.connect(tmp_path / "bootvol.db")) as database:
            (indexes,) = database.execute("SELECT count(*) FROM disk_indexes").fetchone()
        assert indexes == 1, "nobody knows the whole volume of the second release"


async def until_durable(database: Path, volume: int) -> None:
    """Wait until the database has a checkpoint of a volume's import."""
    while True:
        with closing(sqlite3.connect(database)) as connection:
            query = "SELECT durable_bytes FROM imports WHERE volume_id = ?"
            (durable,) = connection.execute(query, (volume,)).fetchone()
        if durable:
            return
        await pause(0.05)


@ensureDeferred
async def test_images_of_a_ceph_cluster(tmp_path: Path, ceph_cluster: Cluster) -> None:
    """Each release is right, and no base has more than one base of its own."""
    running = Running(tmp_path, first=ceph_cluster.table("delta = true"))
    disks = [*releases(), *releases()]

    def look(name: str, disk: bytes) -> None:
        with ceph_cluster.image(name) as image:
            assert image.size() == GIB
            for start in range(0, 40 * MIB, MIB):
                right = disk[start : start + MIB].ljust(MIB, b"\0")
                assert image.read(start, MIB) == right, start

    try:
        kept = []
        for number, content in enumerate(disks, 1):
            (running.images / f"disk-{number}.raw").write_bytes(content)
            with capturedLogs() as logged:
                made = await running.create(f"disk-{number}.raw")
                assert await running.until(made, "available", "error") == "available"
            kept.append(any(" kept " in (formatEvent(each) or "") for each in logged))
            names = await deferToThread(ceph_cluster.images)
            (name,) = [each for each in names if each.startswith("volume-")]
            await deferToThread(look, name, content)
            assert (await running.call("DELETE", f"os-volumes/{made}")).status == 202
            assert await running.until(made, "gone", "error") == "gone"
        # The third release has a base with a base. The fourth begins with the second one.
        assert kept == [False, True, True, True]
        with closing(sqlite3.connect(tmp_path / "bootvol.db")) as database:
            found = database.execute("SELECT depth FROM disk_indexes ORDER BY depth").fetchall()
        assert found == [(0,), (1,), (2,), (2,)]
    finally:
        await running.stop()
