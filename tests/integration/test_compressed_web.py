"""Compressed images from sources that break off or change the image: the import succeeds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bootvol.testing.backends import noise
from bootvol_plugins import directory
from tests.daemons import Running, reactor
from tests.images import PACKERS, convert
from tests.servers import Server, serve

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


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("inside", ["raw", "qcow2"])
@ensureDeferred
async def test_a_connection_that_breaks_once(
    tmp_path: Path, web: Breaking, server: Server, kind: str, inside: str
) -> None:
    """The break happens while the decompressor waits for the source: bootvol retries, without
    reporting a defect.
    """
    content = convert(tmp_path, "qcow2", disk=DISK) if inside == "qcow2" else DISK
    web.content = PACKERS[kind](content)
    web.stops = [len(web.content) // 2] * (1 + (inside == "qcow2"))
    running = Running(tmp_path, CONFIG.format(url=server.url))
    try:
        await imported(running, server)
    finally:
        await running.stop()


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("inside", ["raw", "qcow2"])
@ensureDeferred
async def test_connections_that_all_break(
    tmp_path: Path, web: Breaking, server: Server, kind: str, inside: str
) -> None:
    """Decompression continues after each break, as long as each connection brings some bytes."""
    content = convert(tmp_path, "qcow2", disk=DISK) if inside == "qcow2" else DISK
    web.content = PACKERS[kind](content)
    web.stops = [3 * MIB // 4] * 20
    running = Running(tmp_path, CONFIG.format(url=server.url).replace("= 2", "= 0"))
    try:
        await imported(running, server)
        # All bytes of each connection are kept. A recognized container is fetched again into the
        # spool.
        told = web.starts.index(0, 1) if inside == "qcow2" else 0
        assert web.starts[told:] == [n * 3 * MIB // 4 for n in range(len(web.starts) - told)]
        assert len(web.starts) > 3
    finally:
        await running.stop()


@pytest.mark.parametrize("kind", PACKERS)
@ensureDeferred
async def test_an_image_that_changes_while_it_is_unpacked(
    tmp_path: Path, web: Breaking, server: Server, kind: str
) -> None:
    """The server states the same validator; bytes that do not fit are fetched once more."""
    web.content = PACKERS[kind](DISK[::-1])
    web.stops = [5 * MIB // 2]
    running = Running(tmp_path, CONFIG.format(url=server.url))
    fetched = web.render_GET

    def render(request: Request) -> int:
        answer = fetched(request)
        if web.starts:
            web.content = PACKERS[kind](DISK)
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
    read = directory._read
    reads: list[int] = []

    def reading(descriptor: int, offset: int, target: memoryview) -> int:
        count = read(descriptor, offset, target)
        reads.append(offset)
        if len(reads) == 3:
            image.write_bytes(PACKERS[kind](DISK))
        return count

    monkeypatch.setattr(directory, "_read", reading)
    try:
        number = await running.create(image.name)
        assert await running.until(number, "available", "error") == "available"
        (file,) = running.files()
        with file.open("rb") as volume:
            assert volume.read(len(DISK) + MIB) == DISK + bytes(MIB)
    finally:
        await running.stop()
