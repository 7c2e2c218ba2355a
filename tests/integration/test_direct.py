"""Bodies received directly from their sockets, past the transport. A test controls the server's
pieces.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from zope.interface import implementer

from bootvol.clocks import sleep
from bootvol.errors import ImageTruncated, SourceFailed
from bootvol.testing.sources import read_all
from bootvol_plugins.http.addresses import ANYWHERE, CheckedEndpoints
from bootvol_plugins.http.client import Client
from bootvol_plugins.http.direct import DirectAgent, SocketReader
from bootvol_plugins.http.stream import BodyStream
from tests.daemons import reactor

#: Seconds.
STALL = 0.2
MIB = 1024 * 1024
BODY = os.urandom(3 * MIB)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@attrs.define
class Script(Factory):
    """Sends pieces with pauses between them, then ends: by ``reset``, or in good order.

    :ivar stay: keep the connection, and answer again.
    """

    pieces: Sequence[bytes]
    reset: bool = False
    stay: bool = False
    connections: int = 0

    def buildProtocol(self, _address: object) -> Protocol:
        self.connections += 1
        return _Scripted(self)


class _Scripted(Protocol):
    def __init__(self, script: Script) -> None:
        self._script = script

    def dataReceived(self, _data: bytes) -> None:
        Deferred.fromCoroutine(self._send())

    async def _send(self) -> None:
        assert self.transport is not None
        for piece in self._script.pieces:
            self.transport.write(piece)
            await sleep(reactor, 0.01)
        if self._script.stay:
            return
        if self._script.reset:
            self.transport.abortConnection()  # type: ignore[attr-defined]
        else:
            self.transport.loseConnection()


class _Endless(Factory):
    """Answers without end.

    :ivar sent: number of bytes sent.
    :ivar ended: fires when the other side has closed the connection.
    """

    def __init__(self, first: bytes, line: bytes) -> None:
        self.sent = 0
        self.ended: Deferred[None] = Deferred()
        self._first = first
        self._more = line * (65536 // len(line))

    def buildProtocol(self, _address: object) -> Protocol:
        return _EndlessAnswer(self)

    def more(self, first: bool) -> bytes:
        """Return the next piece."""
        piece = self._first if first else self._more
        self.sent += len(piece)
        return piece


@implementer(IPullProducer)
class _EndlessAnswer(Protocol):
    def __init__(self, script: _Endless) -> None:
        self._script = script

    def dataReceived(self, _data: bytes) -> None:
        transport: Any = self.transport
        transport.write(self._script.more(first=True))
        transport.registerProducer(self, streaming=False)

    def resumeProducing(self) -> None:
        transport: Any = self.transport
        transport.write(self._script.more(first=False))

    def stopProducing(self) -> None:
        """See IPullProducer: the connection has been lost."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._script.ended.callback(None)


@pytest.fixture
def past_transports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the reads from a socket."""
    times = [0]
    read = SocketReader.doRead

    def noting(self: SocketReader) -> None:
        times[0] += 1
        read(self)

    monkeypatch.setattr(SocketReader, "doRead", noting)
    return times


async def opened(port: int, stall: float = 5) -> BodyStream:
    """Return the body of the answer from a port."""
    endpoints = CheckedEndpoints(reactor, ANYWHERE, BrowserLikePolicyForHTTPS(), 5, "test")
    client = Client(DirectAgent(reactor, endpoints), reactor, 5)
    response = await client.request("GET", f"http://127.0.0.1:{port}/", "test")
    return BodyStream(response, reactor, stall, None, 0, None)


@asynccontextmanager
async def listening(factory: Factory) -> AsyncIterator[int]:
    """Run a server of the factory; the value is the port."""
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()


async def received(script: Script, at_a_time: int) -> bytes:
    """Return the body from a server, read in pieces of a size."""
    async with listening(script) as port:
        return await read_all(await opened(port), at_a_time)


@pytest.mark.parametrize("at_a_time", [len(BODY), len(BODY) // 3, len(BODY) // 2 + 1])
@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD + BODY],
        [HEAD + BODY[:7], BODY[7:]],
        [HEAD, BODY],
        [HEAD[:9], HEAD[9:] + BODY[:70_000], BODY[70_000:-1], BODY[-1:]],
        [HEAD, BODY, b"what does not belong to it"],
    ],
    ids=["at once", "a little with the head", "after the head", "in pieces", "more than stated"],
)
@ensureDeferred
async def test_the_body_comes(
    pieces: Sequence[bytes], at_a_time: int, past_transports: list[int]
) -> None:
    assert await received(Script(pieces), at_a_time) == BODY
    assert past_transports[0]


@ensureDeferred
async def test_a_short_body_comes_with_its_head(past_transports: list[int]) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort"
    assert await received(Script([answer]), 4096) == b"short"
    assert not past_transports[0]


@ensureDeferred
async def test_chunks_come_by_the_transport(past_transports: list[int]) -> None:
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    assert await received(Script([CHUNKED, chunk]), len(BODY)) == BODY
    assert not past_transports[0]


@ensureDeferred
async def test_a_body_comes_without_a_descriptor_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(SocketReader, "__init__", fails)
    assert await received(Script([HEAD, BODY]), len(BODY) // 3) == BODY


@pytest.mark.parametrize("line", [b" \r\n", b"x:\n", b"\nHTTP/1.1 100 \nx:\n", b" " * 9999 + b"\n"])
@ensureDeferred
async def test_a_head_without_an_end(line: bytes) -> None:
    """A server can take neither memory nor time of the daemon.

    Break: `plugins/bootvol_plugins/http/direct.py`: `if self._before_body > LONGEST:` -> `if not
    self._before_body:`.
    """
    endless = _Endless(b"HTTP/1.1 100 Continue\r\nX: x\r\n", line)
    async with listening(endless) as port:
        with pytest.raises(SourceFailed, match="the head of its answer is too long"):
            await opened(port)
        await endless.ended
    assert endless.sent < 4 * MIB, "what the sockets hold"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_secret\r\n",
        b"-ERR unknown command secret\r\n",
        b"HTTP/1.1 secret\r\n\r\n",
        b"HTTP/secret 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: secret\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nsecret",
    ],
)
@ensureDeferred
async def test_what_another_service_says_stays_hidden(answer: bytes) -> None:
    """A tenant cannot read the bytes of a service without HTTP behind an allowed URL.

    Break: `plugins/bootvol_plugins/http/client.py`: `if reasons and reasons[0].check(ParseError,
    ValueError):` -> `if False:`
    """
    async with listening(Script([answer])) as port:
        with pytest.raises(SourceFailed) as caught:
            await opened(port)
    assert "secret" not in caught.value.message
    fault = re.search(" cannot be (reached|read): (.+)", caught.value.message)
    assert fault is not None
    assert fault[2] in {
        "its answer is not valid HTTP.",
        "its Content-Length is no number of bytes.",
        "it states different lengths of the same body.",
    }


@pytest.mark.parametrize(("reset", "error"), [(False, ImageTruncated), (True, SourceFailed)])
@pytest.mark.parametrize("pieces", [[HEAD + BODY[:99]], [HEAD, BODY[:-1]]])
@ensureDeferred
async def test_a_connection_that_ends_early(
    pieces: Sequence[bytes], reset: bool, error: type[Exception], past_transports: list[int]
) -> None:
    with pytest.raises(error):
        await received(Script(pieces, reset), len(BODY) // 2)
    assert past_transports[0]


@ensureDeferred
async def test_nothing_is_read_after_a_cancellation(past_transports: list[int]) -> None:
    """After a cancellation, the memory may belong to another import."""
    script = Script([HEAD + BODY[:99], *(BODY[each : each + 9] for each in range(99, 300, 9))])
    async with listening(script) as port:
        stream = await opened(port)
        reading = Deferred.fromCoroutine(stream.read_into(memoryview(bytearray(len(BODY)))))
        while not past_transports[0]:
            await sleep(reactor, 0.005)
        reading.addErrback(lambda _cancelled: None)
        reading.cancel()
        times = past_transports[0]
        await sleep(reactor, 0.1)
        assert past_transports[0] == times
        await stream.close()


@ensureDeferred
async def test_a_connection_that_is_kept_outlives_its_body() -> None:
    """On a kept connection, nothing is read past the transport: other requests use the connection
    later.
    """
    script = Script([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort"], stay=True)
    pool = HTTPConnectionPool(reactor)
    client = Client(Agent(reactor, pool=pool), reactor, 5)
    async with listening(script) as port:
        for _ in range(3):
            response = await client.request("GET", f"http://127.0.0.1:{port}/", "test")
            stream = BodyStream(response, reactor, 5, None, 0, None)
            assert await read_all(stream, 4096) == b"short"
        assert script.connections == 1
        await pool.closeCachedConnections()


class _Late(Protocol):
    """Sends the end of a body, and then blocks the reactor for a while."""

    def dataReceived(self, _data: bytes) -> None:
        connection = self.transport.getHandle()  # type: ignore[union-attr]
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsho")

        def end() -> None:
            connection.send(b"rt")
            time.sleep(2 * STALL)

        # After this call, the reactor looks at its clock first, then at its sockets.
        reactor.callLater(STALL / 4, reactor.callFromThread, end)


@ensureDeferred
async def test_a_process_that_is_late_does_not_take_the_server_for_stalled() -> None:
    async with listening(Factory.forProtocol(_Late)) as port:
        assert await read_all(await opened(port, STALL), 9) == b"short"
