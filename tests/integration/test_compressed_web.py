"""Compressed images from web servers whose connections break: an import gets over that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bootvol.testing.backends import noise
from tests.daemons import Running, reactor
from tests.images import PACKERS, convert
from tests.servers import Server, serve

MIB = 1024 * 1024
DISK = noise(4 * MIB)
CONFIG = """
[imports]
buffer_kib = 64
checkpoint_mib = 1
retries = 2

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}"]
networks = ["127.0.0.0/8", "::1/128"]
"""


class Breaking(Resource):
    """Sends an image slowly, and breaks connections.

    :ivar content: the image.
    :ivar stops: after how many bytes each answer breaks off, one after the other; those that follow
        are whole.
    :ivar starts: where each answer began.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.content = b""
        self.stops: list[int] = []
        self.starts: list[int] = []

    def render_HEAD(self, request: Request) -> bytes:
        """Promise the image."""
        request.setHeader(b"content-length", str(len(self.content)).encode())
        return b""

    def render_GET(self, request: Request) -> int:
        """Send the image, or what a range asks for of it."""
        whole = len(self.content)
        start = int((request.getHeader(b"range") or b"bytes=0-")[6:-1])
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
    """What a server has."""
    return Breaking()


@pytest.fixture
def server(web: Breaking) -> Iterator[Server]:
    """A server that runs."""
    with serve(web) as server:
        yield server


async def imported(running: Running, server: Server) -> None:
    """Import the image, and see that the volume is the disk in it."""
    number = await running.create(f"{server.url}image")
    status = await running.until(number, "available", "error")
    assert status == "available", await running.progress(number)
    (file,) = running.files()
    with file.open("rb") as volume:
        assert volume.read(len(DISK) + MIB) == DISK + bytes(MIB)


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("inside", ["raw", "qcow2"])
@ensureDeferred
async def test_a_connection_that_breaks_once(
    tmp_path: Path, web: Breaking, server: Server, kind: str, inside: str
) -> None:
    """Unpacking waits for the source just then: that is tried again, and is no defect."""
    content = convert(tmp_path, "qcow2", disk=DISK) if inside == "qcow2" else DISK
    web.content = PACKERS[kind](content)
    web.stops = [len(web.content) // 2] * (1 + (inside == "qcow2"))
    running = Running(tmp_path, CONFIG.format(url=server.url))
    try:
        await imported(running, server)
    finally:
        await running.stop()
