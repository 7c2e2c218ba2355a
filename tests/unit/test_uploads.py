"""Streamed bodies, by a clock controlled by the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from klein import Klein
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from bootvol.api.channels import LINGER, WHOLE, ApiChannel
from bootvol.api.faults import TITLED_FAULTS
from bootvol.api.http import add_error_handler
from bootvol.api.pieces import CHUNKED
from bootvol.api.root import ApiRoot, Mount, StreamedPath
from bootvol.api.sites import ApiSite
from bootvol.api.uploads import LEAST, MOST_HELD, WINDOW, BodyStream, body_of
from bootvol.errors import BodyIncomplete, BodyTooSlow, Unauthorized

HEAD = b"PUT /image/v2/images/x/file HTTP/1.1\r\nHost: h\r\n"
MIB = 1024 * 1024


class Store:
    """A site with one streamed operation, and a client of the site."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.streams: list[BodyStream] = []
        self.answers: list[Deferred[bytes]] = []
        self.refuses = False
        app = Klein()

        @app.route("/v2/images/<name>/file", methods=["PUT"])
        def upload(request: IRequest, name: str) -> Deferred[bytes]:
            if self.refuses:
                raise Unauthorized
            self.streams.append(body_of(request))
            self.answers.append(Deferred())
            return self.answers[-1]

        add_error_handler(app, TITLED_FAULTS)
        streamed = [StreamedPath(b"PUT", (b"v2", b"images", None, b"file"))]
        root = ApiRoot(
            Mount((b"image",), app, TITLED_FAULTS, streamed), Mount((), app, TITLED_FAULTS)
        )
        self.site = ApiSite(root, self.clock, 2, 1)
        self.site.startFactory()
        self.channel, self.transport = self.connect()

    def connect(self) -> tuple[ApiChannel, StringTransport]:
        """Return a new connection."""
        channel = self.site.buildProtocol(None)
        assert isinstance(channel, ApiChannel)
        transport = StringTransport()
        channel.makeConnection(transport)
        return channel, transport

    def send(self, data: bytes) -> bytes:
        """Send bytes until the daemon reads no more; return all answers so far."""
        for start in range(0, len(data), 65536):
            if self.transport.producerState == "paused":
                break
            self.channel.dataReceived(data[start : start + 65536])
            while self.channel.is_behind:
                self.clock.advance(0)
        self.clock.advance(0)
        return bytes(self.transport.value())

    def begin(self, length: int | None) -> BodyStream:
        """Send a head; return the body."""
        stated = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
        self.send(HEAD + stated + b"\r\n\r\n")
        return self.streams[-1]

    @property
    def paused(self) -> bool:
        """True while the daemon reads nothing from the connection."""
        return self.transport.producerState == "paused"


@pytest.fixture
def store() -> Iterator[Store]:
    """A site.  The fixture stops everything in the site afterwards."""
    store = Store()
    yield store
    if not store.transport.disconnected:
        store.channel.connectionLost(Failure(ConnectionDone()))
    store.site.stopFactory()
    assert store.clock.getDelayedCalls() == []


def read(stream: BodyStream, size: int) -> Deferred[bytes]:
    """Read from a body through memory of some size."""
    buffer = memoryview(bytearray(size))
    return Deferred.fromCoroutine(stream.read_into(buffer)).addCallback(
        lambda count: bytes(buffer[:count])
    )


def result(of: Deferred[bytes]) -> bytes:
    """Return the result of a call that has ended."""
    results: list[bytes] = []
    of.addCallback(results.append)
    return results[0]


def failed(of: Deferred[bytes]) -> Exception:
    """Return the exception of a call that has failed."""
    failures: list[Failure] = []
    of.addErrback(failures.append)
    assert isinstance(failures[0].value, Exception)
    return failures[0].value


@ensureDeferred
async def test_a_body_in_memory_is_bounded(store: Store) -> None:
    """A connection keeps little more than MOST_HELD bytes, however many the client sends.

    Break: `src/bootvol/api/uploads.py`: `self._held >= MOST_HELD and` -> `False and`.
    """
    stream = store.begin(100 * MIB)
    assert store.paused, "nobody has asked for the body yet"
    reading = read(stream, 1000)
    assert not store.paused
    store.send(b"x" * 10 * MIB)
    assert result(reading) == b"x" * 1000
    assert store.paused
    assert stream._held < MOST_HELD + 2 * 65536
    while (left := stream._held) > 0:
        assert result(read(stream, min(left, 400_000))) == b"x" * min(left, 400_000)
        assert store.paused
    reading = read(stream, 1000)
    assert not store.paused
    store.send(b"y" * MIB)
    assert result(reading) == b"y" * 1000


def test_a_body_is_not_read_before_its_caller_is_admitted(store: Store) -> None:
    """A stranger's body is dropped, and the stranger reads the answer.

    Break: `src/bootvol/api/uploading.py`: `lambda: self._networkProducer.pauseProducing(),` ->
    `lambda: None,`.
    """
    store.refuses = True
    store.channel.dataReceived(HEAD + b"Content-Length: 99999999\r\n\r\n" + b"x" * 65536)
    assert store.paused
    answer = store.send(b"")
    store.clock.advance(0)
    answer = store.send(b"")
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"Connection: close" in answer
    assert not store.transport.disconnecting
    store.send(b"x" * MIB)
    assert bytes(store.transport.value()) == answer
    assert store.channel._come == b""
    store.clock.advance(LINGER)
    assert store.transport.disconnected


@pytest.mark.parametrize("chunks", [True, False])
@ensureDeferred
async def test_the_end_of_a_body(store: Store, chunks: bool) -> None:
    stream = store.begin(None if chunks else 6)
    first = read(stream, 4)
    store.send(b"2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n" if chunks else b"abcdef")
    assert result(first) == b"abcd"
    assert stream.ended
    assert result(read(stream, 4)) == b"ef"
    assert result(read(stream, 4)) == b""
    store.answers[0].callback(b"done")
    assert store.transport.value().endswith(b"\r\n\r\n4\r\ndone\r\n0\r\n\r\n")
    assert store.transport.disconnecting


@ensureDeferred
async def test_an_upload_sent_ahead(store: Store) -> None:
    """An upload behind another request of the connection, before the answer."""
    ahead = b"GET /image/x HTTP/1.1\r\nHost: h\r\n\r\n"
    store.send(ahead + HEAD + b"Content-Length: 6\r\n\r\nabcdef")
    for _ in range(5):
        store.clock.advance(0)
    assert store.transport.value().startswith(b"HTTP/1.1 404")
    assert result(read(store.streams[0], 9)) == b"abcdef"
    store.answers[0].callback(b"done")
    assert store.transport.value().endswith(b"\r\n\r\n4\r\ndone\r\n0\r\n\r\n")
    assert store.transport.disconnecting


@ensureDeferred
async def test_an_empty_body(store: Store) -> None:
    store.send(HEAD + b"Content-Length: 0\r\n\r\n")
    assert result(read(store.streams[0], 4)) == b""
    store.answers[0].callback(b"done")
    assert store.transport.value().endswith(b"\r\n\r\n4\r\ndone\r\n0\r\n\r\n")


@ensureDeferred
async def test_a_client_that_sends_too_slowly(store: Store) -> None:
    """A client has to send some bytes in each minute of waiting.

    Break: `src/bootvol/api/uploads.py`: `self.fail(BodyTooSlow())` -> `pass`.
    """
    stream = store.begin(100 * MIB)
    reading = read(stream, 10 * MIB)
    for _ in range(5):
        store.send(b"x" * LEAST)
        store.clock.advance(WINDOW)
        assert not reading.called
    store.send(b"x" * (LEAST - 1))
    store.clock.advance(WINDOW)
    assert isinstance(failed(reading), BodyTooSlow)


@ensureDeferred
async def test_a_slow_handler_is_not_the_fault_of_the_client(store: Store) -> None:
    stream = store.begin(100 * MIB)
    reading = read(stream, 1000)
    store.send(b"x" * 10 * MIB)
    assert reading.called
    store.clock.advance(100 * WINDOW)
    assert result(read(stream, 1000)) == b"x" * 1000


@ensureDeferred
async def test_a_large_body_may_take_its_time(store: Store) -> None:
    """The limits of time of other requests do not count."""
    stream = store.begin(100 * MIB)
    for _ in range(10):
        reading = read(stream, LEAST)
        store.send(b"x" * LEAST)
        assert result(reading) == b"x" * LEAST
        store.clock.advance(WHOLE - 1)
    assert not store.transport.disconnecting


@ensureDeferred
async def test_a_client_that_leaves(store: Store) -> None:
    stream = store.begin(100)
    reading = read(stream, 50)
    store.channel.connectionLost(Failure(ConnectionDone()))
    store.transport.disconnected = True
    assert isinstance(failed(reading), BodyIncomplete)
    assert isinstance(failed(read(stream, 50)), BodyIncomplete)
    store.answers[0].callback(b"")


def test_a_client_that_leaves_before_its_request_begins(store: Store) -> None:
    store.channel.dataReceived(HEAD + b"Content-Length: 100\r\n\r\n")
    store.channel.connectionLost(Failure(ConnectionDone()))
    store.transport.disconnected = True
    store.clock.advance(0)
    assert store.streams == []


def test_an_upload_counts_as_a_request_in_progress(store: Store) -> None:
    """An idle connection in its place would be ended."""
    store.begin(100)
    assert store.site.at_work == 1
    second, _ = store.connect()
    second.dataReceived(HEAD + b"Content-Length: 5\r\n\r\n")
    store.clock.advance(0)
    assert store.site.at_work == 2
    third, transport = store.connect()
    third.dataReceived(HEAD + b"Content-Length: 5\r\n\r\n")
    store.clock.advance(0)
    assert transport.value().startswith(b"HTTP/1.1 503")
    for each in (second, third):
        each.connectionLost(Failure(ConnectionDone()))
    for answer in store.answers:
        answer.callback(b"")


@pytest.mark.parametrize(
    "target",
    [
        b"PUT /image/v2/images/x/y/file",
        b"PUT /image/v2/images//file",
        b"PUT /image/v2/images/x/files",
        b"PUT /v2/images/x/file",
        b"POST /image/v2/images/x/file",
        b"put /image/v2/images/x/file",
    ],
)
def test_other_requests_are_bounded(store: Store, target: bytes) -> None:
    """Only the declared operation takes bodies of any size."""
    answer = store.send(target + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 999999\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"Request is too large." in answer
    store.clock.advance(LINGER)


@pytest.mark.parametrize(
    "target",
    [
        b"/image/v2/images/x/file.json",
        b"/image/v2/images/%2F/file?a=b",
        b"/image/v2/im%61ges/x/file",
        b"http://h/image/v2/images/x/file",
    ],
)
def test_spellings_of_the_operation(store: Store, target: bytes) -> None:
    store.send(b"PUT %b HTTP/1.1\r\nHost: h\r\nContent-Length: 999999\r\n\r\n" % target)
    assert len(store.streams) == 1
    store.answers[0].callback(b"")
    store.clock.advance(LINGER)


@ensureDeferred
async def test_small_chunks_are_parsed_in_small_pieces(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data of a large chunk is parsed at once; tiny chunks take the time of others.

    Break: `src/bootvol/api/uploading.py`: `if self._transferDecoder.state != "BODY":` ->
    `if False:`.
    """
    stream = store.begin(None)
    read(stream, 10 * MIB).addErrback(lambda left: left.trap(BodyIncomplete))
    pieces: list[int] = []
    parse = store.channel.parse

    def counting(data: bytes) -> None:
        pieces.append(len(data))
        parse(data)

    monkeypatch.setattr(store.channel, "parse", counting)
    store.send(b"1\r\nx\r\n" * 5000)
    assert max(pieces) == CHUNKED
    pieces.clear()
    store.send(b"%x\r\n" % MIB + b"y" * MIB + b"\r\n")
    assert len(pieces) < 80
