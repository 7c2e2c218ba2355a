"""Short parts of images from web servers, over connections that serve several requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from bootvol.errors import ImageNotFound, SourceFailed
from bootvol.interfaces import IImageStream
from bootvol.jail import Jail
from bootvol.model import Image
from bootvol.testing.answers import answer
from bootvol.testing.backends import noise
from bootvol.testing.habits import HABITS, Habits
from bootvol.testing.sources import CALLER
from bootvol.threads import Threads
from bootvol_plugins.http import requests
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.source import HttpSource
from tests.daemons import reactor
from tests.waiting import until

CONTENT: Final = noise(300_001)
#: Habits of servers that encode each answer, or send another content.
OTHERS: Final = {"encodes", "encodes-zstd", "encodes-twice", "encodes-gz", "until-close-gz"}


class Keeping(Factory):
    """A server that keeps connections.

    :ivar connections: all connections so far.
    :ivar open: the number of open connections.
    :ivar asked: the head of each request.
    :ivar more: text put into the heads of answers.
    """

    noisy = False

    def __init__(self) -> None:
        self.connections: list[_Connection] = []
        self.asked: list[bytes] = []
        self.more = ""
        self.open = 0

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See :meth:`twisted.internet.interfaces.IProtocolFactory.buildProtocol`."""
        self.connections.append(_Connection(self))
        return self.connections[-1]


class _Connection(Protocol):
    transport: ITCPTransport

    def __init__(self, server: Keeping) -> None:
        self._server = server

    def connectionMade(self) -> None:
        self._server.open += 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.open -= 1

    def dataReceived(self, data: bytes) -> None:
        self._server.asked.append(data)
        found = re.search(rb"Range: bytes=(\d+)-(\d+)", data)
        assert found is not None
        start, end = int(found[1]), min(int(found[2]) + 1, len(CONTENT))
        more = [self._server.more] if self._server.more else []
        stated = f"Content-Range: bytes {start}-{end - 1}/{len(CONTENT)}"
        kept = "Connection: keep-alive"
        self.transport.write(
            answer(
                CONTENT[start:end],
                stated,
                'ETag: "e"',
                kept,
                *more,
                status="206 Partial Content",
            )
        )


@pytest.fixture
def server() -> Keeping:
    """The server."""
    return Keeping()


def listening(factory: Factory) -> Iterator[str]:
    """Serve while a fixture waits; yield the URL."""
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    yield f"http://127.0.0.1:{port.getHost().port}/"
    pytest_twisted.blockon(port.stopListening())


@pytest.fixture
def root(server: Keeping) -> Iterator[str]:
    """The URL of the running server."""
    yield from listening(server)


@pytest.fixture
def habits() -> Iterator[str]:
    """The URL of a server with habits."""
    yield from listening(Habits(CONTENT))


def source(root: str, threads: Threads) -> HttpSource:
    """Return a source that may reach the server."""
    options = HttpOptions(allow=[root], checksums="none")
    return HttpSource("web", options, reactor, threads, Jail())


async def read(stream: IImageStream, length: int) -> bytes:
    """Read ``length`` bytes, and close the stream."""
    memory = bytearray(length)
    try:
        assert await stream.read_into(memoryview(memory)) == length
    finally:
        await stream.close()
    return bytes(memory)


def image(root: str) -> Image:
    """Return the image of the server."""
    return Image(f"{root}disk.raw", "web", "disk.raw", size_bytes=len(CONTENT), validator='"e"')


@ensureDeferred
async def test_parts_come_over_one_connection(server: Keeping, root: str, threads: Threads) -> None:
    web = source(root, threads)
    for offset, length in ((0, 1000), (70_000, 200_000), (5, 1), (len(CONTENT) - 9, 9)):
        stream = await web.open_part(image(root), offset, length, '"e"')
        assert (stream.offset, stream.size, stream.validator) == (offset, len(CONTENT), '"e"')
        assert await read(stream, length) == CONTENT[offset : offset + length]
    assert len(server.connections) == 1
    assert b"bytes=70000-269999\r\n" in server.asked[1]
    assert all(b'If-Range: "e"\r\n' in each for each in server.asked)
    await web.close()
    await until(lambda: server.open == 0)


@ensureDeferred
async def test_a_kept_connection_that_the_server_ends(
    server: Keeping, root: str, threads: Threads
) -> None:
    web = source(root, threads)
    for kept in range(3):
        assert len(server.connections) == kept
        stream = await web.open_part(image(root), 9, 1000, '"e"')
        assert await read(stream, 1000) == CONTENT[9:1009]
        # The source learns of the end only by the next request.
        server.connections[-1].transport.loseConnection()
    await web.close()


@ensureDeferred
async def test_a_part_left_unread_ends_its_connection(
    server: Keeping, root: str, threads: Threads
) -> None:
    web = source(root, threads)
    stream = await web.open_part(image(root), 0, len(CONTENT), '"e"')
    assert await read(stream, 100) == CONTENT[:100]
    await until(lambda: server.open == 0)
    stream = await web.open_part(image(root), 3, 10, '"e"')
    assert await read(stream, 10) == CONTENT[3:13]
    assert len(server.connections) == 2
    await web.close()


@ensureDeferred
async def test_the_head_of_each_answer_is_bounded(
    server: Keeping, root: str, threads: Threads
) -> None:
    """The head of a later answer on one connection has the same limit as the first head.

    Break: `plugins/bootvol_plugins/http/keeping.py`: `self.expect_head()` -> `pass`.
    """
    web = source(root, threads)
    for _ in range(2):
        assert await read(await web.open_part(image(root), 0, 9, '"e"'), 9) == CONTENT[:9]
    server.more = "\r\n".join(f"X-{each}: {'x' * 8000}" for each in range(50))
    with pytest.raises(SourceFailed, match="the head of its answer is too long"):
        await web.open_part(image(root), 0, 9, '"e"')
    await web.close()


@pytest.mark.parametrize("habit", HABITS)
@ensureDeferred
async def test_parts_of_servers_with_habits(
    habit: str, habits: str, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source gives the right part, or tells that it begins elsewhere."""
    monkeypatch.setattr(requests, "_NOTICED", (0.0, 0.1))
    web = source(habits, threads)
    found = await web.find(CALLER, f"{habits}{habit}/disk.raw")
    for offset in (0, 5000, len(CONTENT) - 10):
        stream = await web.open_part(found, offset, 10, found.validator)
        assert stream.offset in (0, offset)
        part = await read(stream, 10)
        assert part == CONTENT[stream.offset :][:10] or habit in OTHERS
    await web.close()


@ensureDeferred
async def test_an_image_that_is_gone(habits: str, tmp_path: Path, threads: Threads) -> None:
    web = source(habits, threads)
    with pytest.raises(ImageNotFound):
        await web.open_part(image(f"{habits}nowhere/"), 5, 10, '"e"')
    await web.close()
