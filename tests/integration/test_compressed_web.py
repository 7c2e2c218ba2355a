"""Compressed images from sources that break off or change the image: the import succeeds."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bootvol.testing.backends import noise
from bootvol_plugins import directory_source
from tests.daemons import Running, reactor
from tests.images import PACKERS, convert, ova
from tests.servers import Server, serve
from tests.vmdk import Streamed
from tests.waiting import until

MIB = 1024 * 1024
DISK = noise(4 * MIB)
CONFIG = """
[imports]
buffer_kib = 64
checkpoint_mib = 1
retries = 4

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}"]
networks = ["127.0.0.0/8", "::1/128"]
"""
#: The rest of the image.
_RANGE = re.compile(rb"bytes=(\d+)-")


#: How an image is compressed, and its format.
INSIDE = [
    *product(PACKERS, ["raw", "qcow2", "vmdk"]),
    # These two need no tables ahead, and so no part of the image twice.
    ("plain", "vmdk"),
    ("ova", "vmdk"),
]


def image(folder: Path, kind: str, inside: str) -> bytes:
    """Return an image of :data:`DISK`.

    :param kind: the compression.
    :param inside: the format.
    """
    content = DISK
    if inside == "qcow2":
        content = convert(folder, "qcow2", disk=DISK)
    if inside == "vmdk":
        content = Streamed().image(DISK)
    return {**PACKERS, "plain": bytes, "ova": ova}[kind](content)


class Breaking(Resource):
    """Sends an image slowly, and breaks connections.

    :ivar content: the image.
    :ivar stops: number of bytes before each answer breaks off; later answers are complete.
    :ivar starts: offset of each answer.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.content = b""
        self.stops: list[int] = []
        self.starts: list[int] = []

    def render_GET(self, request: Request) -> int:
        """Send the image, or the requested range."""
        whole = len(self.content)
        if request.getHeader(b"range") == b"bytes=0-0":
            # The question about the image's headers comes first.
            request.setResponseCode(206)
            request.setHeader(b"etag", b'"one"')
            request.setHeader(b"content-range", b"bytes 0-0/%d" % whole)
            request.write(self.content[:1])
            request.finish()
            return NOT_DONE_YET
        asked = _RANGE.fullmatch(request.getHeader(b"range") or b"")
        start = int(asked[1]) if asked is not None else 0
        self.starts.append(start)
        stop = self.stops.pop(0) if self.stops else whole
        request.setHeader(b"etag", b'"one"')
        request.setHeader(b"content-length", str(whole - start).encode())
        if start:
            request.setResponseCode(206)
            request.setHeader(b"content-range", b"bytes %d-%d/%d" % (start, whole - 1, whole))
        left = memoryview(self.content)[start : start + stop]

        def more() -> None:
            nonlocal left
            request.write(bytes(left[: 128 * 1024]))
            left = left[128 * 1024 :]
            if not left:
                sending.stop()
                if start + stop >= whole:
                    request.finish()
                else:
                    request.channel.loseConnection()

        sending = LoopingCall(more)
        sending.clock = reactor
        gone = request.notifyFinish()
        gone.addErrback(lambda _failure: sending.stop() if sending.running else None)
        sending.start(0.02)
        return NOT_DONE_YET


@pytest.fixture
def web() -> Breaking:
    """The resource of the server."""
    return Breaking()


@pytest.fixture
def server(web: Breaking) -> Iterator[Server]:
    """A running server with only this resource."""
    root = Resource()
    root.putChild(b"image", web)
    with serve(root) as server:
        yield server


async def imported(running: Running, server: Server) -> None:
    """Import the image, and check the volume against the disk in the image."""
    number = await running.create(f"{server.url}image")
    status = await running.until(number, "available", "error")
    assert status == "available", repr(await running.progress(number))
    (file,) = running.files()
    with file.open("rb") as volume:
        assert volume.read(len(DISK) + MIB) == DISK + bytes(MIB)


@pytest.mark.parametrize(("kind", "inside"), INSIDE)
@ensureDeferred
async def test_a_connection_that_breaks_once(
    tmp_path: Path, web: Breaking, server: Server, kind: str, inside: str
) -> None:
    """The break happens while the decompressor waits for the source: bootvol retries, without
    reporting a defect.
    """
    web.content = image(tmp_path, kind, inside)
    web.stops = [len(web.content) // 2] * (1 + (inside != "raw"))
    running = Running(tmp_path, CONFIG.format(url=server.url))
    try:
        await imported(running, server)
    finally:
        await running.stop()


@pytest.mark.parametrize(("kind", "inside"), INSIDE)
@ensureDeferred
async def test_connections_that_all_break(
    tmp_path: Path, web: Breaking, server: Server, kind: str, inside: str
) -> None:
    """Decompression continues after each break, as long as each connection brings some bytes."""
    web.content = image(tmp_path, kind, inside)
    web.stops = [3 * MIB // 4] * 20
    running = Running(tmp_path, CONFIG.format(url=server.url).replace("= 64", "= 256"))
    try:
        await imported(running, server)
        # All bytes of each connection are kept. A recognized container is fetched again.
        told = web.starts.index(0, 1) if inside != "raw" else 0
        assert web.starts[told:] == [n * 3 * MIB // 4 for n in range(len(web.starts) - told)]
        assert len(web.starts) > 3
        assert (running.folder / "var" / "spool").exists() is (inside == "qcow2")
    finally:
        await running.stop()


@pytest.mark.parametrize("kind", PACKERS)
@ensureDeferred
async def test_an_image_that_changes_while_it_is_unpacked(
    tmp_path: Path, web: Breaking, server: Server, kind: str
) -> None:
    """The server states the same validator; bytes that do not fit are fetched once more."""
    web.content = PACKERS[kind](DISK[::-1])
    later = PACKERS[kind](DISK)
    web.stops = [5 * MIB // 2]
    running = Running(tmp_path, CONFIG.format(url=server.url))
    fetched = web.render_GET

    def render(request: Request) -> int:
        answer = fetched(request)
        if web.starts:
            web.content = later
        return answer

    web.render_GET = render  # type: ignore[method-assign]
    try:
        await imported(running, server)
        assert web.starts == [0, 5 * MIB // 2, 0]
    finally:
        await running.stop()


@pytest.mark.parametrize("kind", PACKERS)
@ensureDeferred
async def test_a_file_that_is_overwritten_while_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A mix of two images is no broken image: the newer one is imported."""
    running = Running(tmp_path, "[imports]\nbuffer_kib = 64\n")
    image = running.images / f"disk.{kind}"
    image.write_bytes(PACKERS[kind](DISK[::-1]))
    read = directory_source._read
    reads: list[int] = []

    def reading(descriptor: int, offset: int, target: memoryview) -> int:
        count = read(descriptor, offset, target)
        reads.append(offset)
        if len(reads) == 3:
            image.write_bytes(PACKERS[kind](DISK))
        return count

    monkeypatch.setattr(directory_source, "_read", reading)
    try:
        number = await running.create(image.name)
        assert await running.until(number, "available", "error") == "available"
        (file,) = running.files()
        with file.open("rb") as volume:
            assert volume.read(len(DISK) + MIB) == DISK + bytes(MIB)
    finally:
        await running.stop()


class Stating(Resource):
    """Sends the first of two members, and states the length of both only if asked to.

    :ivar states: whether the answers state the length.  Such answers do not end.
    """

    isLeaf = True
    states = False

    def __init__(self, first: bytes, whole: int) -> None:
        super().__init__()
        self._first = first
        self._whole = whole

    def render_GET(self, request: Request) -> int:
        """Send the first member, whatever part is asked for."""
        request.setHeader(b"etag", b'"one"')
        if self.states:
            request.setHeader(b"content-length", str(self._whole).encode())
        request.write(self._first)
        if not self.states:
            request.finish()
        return NOT_DONE_YET


@pytest.fixture
def stating() -> Iterator[tuple[Stating, str]]:
    """The resource of a running server, and its URL."""
    first, second = gzip.compress(DISK[: 2 * MIB], 1), gzip.compress(DISK[2 * MIB :], 1)
    web = Stating(first, len(first) + len(second))
    root = Resource()
    root.putChild(b"image", web)
    with serve(root) as server:
        yield web, server.url


@ensureDeferred
async def test_a_length_that_was_stated_before_a_restart(
    tmp_path: Path, stating: tuple[Stating, str]
) -> None:
    """The first of two members looks like a whole image, and only the earlier length tells."""
    web, url = stating
    running = Running(tmp_path, CONFIG.format(url=url))
    number = await running.create(f"{url}image")
    web.states = True
    await until(lambda: running.progress(number), lambda found: found["bytesDone"] > 0)
    await running.stop()
    web.states = False
    again = Running(tmp_path, CONFIG.format(url=url).replace("retries = 4", "retries = 0"))
    try:
        assert await again.until(number, "available", "error") == "error"
        assert (await again.progress(number))["error"]["code"] == "image-truncated"
    finally:
        await again.stop()
