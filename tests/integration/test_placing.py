"""Images that are decoded while they arrive, or that need the spool after all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.web.resource import Resource
from twisted.web.server import Request

from bootvol.imaging.placing import PlacingCopy
from bootvol.imaging.spool import Spool
from bootvol.testing.backends import noise
from tests.daemons import Running
from tests.images import MIB, gpt, ova, patched, qemu_img
from tests.servers import Server, serve
from tests.vmdk import Streamed

#: A disk with data behind the part that the first L2 table covers.
FAR = 600 * MIB
CONFIG = """
[[sources]]
name = "web"
plugin = "http"
allow = ["{url}"]
networks = ["127.0.0.0/8", "::1/128"]
"""


def far(folder: Path) -> bytes:
    """Return an image whose second L2 table lies behind its first data."""
    raw, image = folder / "far.raw", folder / "far.qcow2"
    with raw.open("wb") as disk:
        disk.write(noise(2 * MIB))
        disk.seek(FAR)
        disk.write(noise(MIB, 1))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
    raw.unlink()
    return image.read_bytes()


def check_far(file: Path) -> None:
    """Check that a volume has the disk of :func:`far`."""
    with file.open("rb") as volume:
        assert volume.read(3 * MIB) == noise(2 * MIB) + bytes(MIB)
        volume.seek(FAR)
        assert volume.read(2 * MIB) == noise(MIB, 1) + bytes(MIB)


class Habit(Resource):
    """A server of one image.

    :ivar ranges: whether the server gives parts of the image.
    :ivar tags: the ETags of its mirrors, one for each answer in turn.
    """

    isLeaf = True

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content
        self.ranges = True
        self.tags = [b'"one"']
        self.answers = 0

    def render_GET(self, request: Request) -> bytes:
        """Answer with the image, or with the rest of the image."""
        request.setHeader(b"etag", self.tags[self.answers % len(self.tags)])
        self.answers += 1
        span = request.getHeader(b"range")
        if not self.ranges or span is None:
            return self.content
        first, _, last = span.removeprefix(b"bytes=").partition(b"-")
        end = int(last) + 1 if last else len(self.content)
        stated = b"bytes %d-%d/%d" % (int(first), end - 1, len(self.content))
        request.setHeader(b"content-range", stated)
        request.setResponseCode(206)
        return self.content[int(first) : end]


@pytest.fixture
def web(tmp_path: Path) -> Habit:
    """The server of an image whose tables lie far from one another."""
    return Habit(far(tmp_path))


@pytest.fixture
def server(web: Habit) -> Iterator[Server]:
    """The running server."""
    with serve(web) as server:
        yield server


@pytest.fixture
def spooled(monkeypatch: pytest.MonkeyPatch) -> list[Spool]:
    """The spools that were written to."""
    spooled: list[Spool] = []
    renew = Spool.renew

    def noted(spool: Spool) -> Any:
        spooled.append(spool)
        return renew(spool)

    monkeypatch.setattr(Spool, "renew", noted)
    return spooled


@pytest.mark.parametrize("habit", ["ranges", "no ranges", "mirrors"])
@ensureDeferred
async def test_web_servers(
    tmp_path: Path, web: Habit, server: Server, habit: str, spooled: list[Spool]
) -> None:
    """Only an image whose tables cannot be read ahead is spooled."""
    web.ranges = habit != "no ranges"
    web.tags = [b'"one"', b'"two"'] if habit == "mirrors" else [b'"one"']
    running = Running(tmp_path, CONFIG.format(url=server.url))
    try:
        number = await running.create(f"{server.url}image")
        settled = await running.until(number, "available", "error")
        assert settled == "available", await running.progress(number)
        check_far(running.files()[0])
        assert bool(spooled) is (habit != "ranges")
    finally:
        await running.stop()


@pytest.mark.parametrize("pack", [bytes, ova], ids=["plain", "ova"])
@pytest.mark.parametrize("habit", ["ranges", "no ranges", "mirrors"])
@ensureDeferred
async def test_an_image_that_leads_through_itself(
    tmp_path: Path,
    web: Habit,
    server: Server,
    habit: str,
    pack: Callable[[bytes], bytes],
    spooled: list[Spool],
) -> None:
    """A streamed vmdk needs no spool, whatever the server does."""
    disk = noise(510) + b"\x55\xaa" + noise(2 * MIB) + bytes(40 * MIB) + noise(MIB - 512, 1)
    web.content = pack(Streamed().image(disk))
    web.ranges = habit != "no ranges"
    web.tags = [b'"one"', b'"two"'] if habit == "mirrors" else [b'"one"']
    running = Running(tmp_path, CONFIG.format(url=server.url))
    try:
        number = await running.create(f"{server.url}image.vmdk")
        settled = await running.until(number, "available", "error")
        progress = await running.progress(number)
        assert settled == "available", progress
        assert progress["warnings"] == []
        with running.files()[0].open("rb") as volume:
            assert volume.read(len(disk) + MIB) == disk + bytes(MIB)
        assert spooled == []
    finally:
        await running.stop()


@ensureDeferred
async def test_an_odd_image_is_spooled_after_all(running: Running, spooled: list[Spool]) -> None:
    """The tables, which come last, lack the first grain: QEMU has to read the image.

    Break: `src/bootvol/worker/placer.py`: `await progress.forget(filling.heartbeat)` -> `pass`.
    """
    disk = noise(2 * MIB)
    content = Streamed(empty=True).image(disk)
    # QEMU follows the tables: without its entry, the first grain is no part of the disk.
    content = patched(content, len(content) - 4608, bytes(4))
    (running.images / "disk").write_bytes(content)
    number = await running.create("disk")
    settled = await running.until(number, "available", "error")
    progress = await running.progress(number)
    assert settled == "available", progress
    assert [each["code"] for each in progress["warnings"]] == ["unidentified-image"]
    with running.files()[0].open("rb") as volume:
        assert volume.read(3 * MIB) == bytes(65536) + disk[65536:] + bytes(MIB)
    assert len(spooled) == 1


@ensureDeferred
async def test_a_file_that_is_written_to_during_the_import(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest that still runs on the image changes data, but no table.

    Break: `src/bootvol/worker/placer.py`: `await IFileStream(stream).check()` -> `pass`.
    """
    content = far(tmp_path)
    place = content.index(noise(2 * MIB)[:4096])
    image = running.images / "disk"
    image.write_bytes(content)
    run = PlacingCopy.run
    runs: list[PlacingCopy] = []

    async def written_to(copy: PlacingCopy, *arguments: Any) -> None:
        await run(copy, *arguments)
        if not runs:
            with image.open("r+b") as file:
                os.pwrite(file.fileno(), bytes(4096), place)
        runs.append(copy)

    monkeypatch.setattr(PlacingCopy, "run", written_to)
    number = await running.create("disk")
    settled = await running.until(number, "available", "error")
    assert settled == "available", await running.progress(number)
    assert len(runs) == 2
    with running.files()[0].open("rb") as volume:
        assert volume.read(8192) == bytes(4096) + noise(2 * MIB)[4096:8192]


@ensureDeferred
async def test_a_partitioned_disk_is_whole(running: Running, tmp_path: Path) -> None:
    """The disk is longer than the parts that are examined at the end."""
    disk = (gpt(32 * MIB) + noise(MIB)).ljust(32 * MIB, b"\0")
    (tmp_path / "raw").write_bytes(disk)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", tmp_path / "raw", running.images / "disk")
    number = await running.create("disk")
    settled = await running.until(number, "available", "error")
    assert settled == "available", await running.progress(number)
    assert (await running.progress(number))["warnings"] == []
