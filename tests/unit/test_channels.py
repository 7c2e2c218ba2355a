"""The bounds of requests and connections, by a clock controlled by the test."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from klein import Klein
from pytest_twisted import ensureDeferred
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from bootvol import sparing
from bootvol.api import sites
from bootvol.api.addresses import network
from bootvol.api.channels import (
    IDLE,
    LARGEST_BODY,
    LINGER,
    WHOLE,
    ApiChannel,
)
from bootvol.api.faults import TITLED_FAULTS
from bootvol.api.http import add_error_handler, public_url
from bootvol.api.nova import faults
from bootvol.api.pieces import CHUNKED
from bootvol.api.proxied import Proxied, service
from bootvol.api.root import ApiRoot, Mount
from bootvol.api.sites import ApiSite, BoundedRequest
from bootvol.api.targets import MOST_PARAMETERS, MOST_SEGMENTS
from bootvol.errors import IdentityUnavailable
from tests.daemons import reactor
from tests.fuzzing import fuzz
from tests.waiting import until

MOST, SPARE = 3, 2
#: Bytes of a large answer.
LARGE = 400_000
GET = b"GET /v1.1/x HTTP/1.1\r\nHost: h\r\n\r\n"
HEAD = b"POST /v1.1/x HTTP/1.1\r\nHost: h\r\n"


class Served:
    """A site with one resource: the resource returns the size of the body, or never answers."""

    def __init__(self) -> None:
        self.clock = Clock()
        #: The token of each request.
        self.known: str | None = None
        self.bodies: list[bytes] = []
        self.cookies: list[object] = []
        #: The path of each request, and the URL of the API for the client.
        self.targets: list[tuple[bytes, str]] = []
        self.slow: list[Deferred[bytes]] = []
        app = Klein()

        @app.route("/", branch=True)
        def answer(request: IRequest) -> bytes | Deferred[bytes]:
            self.bodies.append(request.content.read())
            self.cookies.append(request.received_cookies)  # type: ignore[attr-defined]
            self.targets.append((request.path, public_url(request)))
            request.tenant = self.known  # type: ignore[attr-defined]
            if request.path == b"/large":
                return bytes(LARGE)
            if request.path == b"/fails":
                raise IdentityUnavailable(1)
            if request.path == b"/slow":
                self.slow.append(Deferred())
                return self.slow[-1]
            return b"done"

        add_error_handler(app, faults.NOVA_FAULTS)
        root = ApiRoot(
            Mount((b"identity",), app, TITLED_FAULTS), Mount((), app, faults.NOVA_FAULTS)
        )
        self.site = ApiSite(root, self.clock, MOST, SPARE)
        self.site.startFactory()

    def connect(self, address: str = "192.0.2.1") -> Connection:
        """Open a connection from an address."""
        return Connection(self.site.buildProtocol(None), address, self.clock)


class Connection:
    """The client's side of a connection."""

    def __init__(self, channel: Any, address: str, clock: Clock) -> None:
        self.channel = channel
        self.clock = clock
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", address, 54321))
        channel.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """Send bytes; return all answers so far, when all bytes have had their turn."""
        self.channel.dataReceived(data)
        while self.channel.is_behind:
            turn(self.clock)
        return bytes(self.transport.value())

    @property
    def ended(self) -> bool:
        """True once the daemon has closed the connection."""
        return bool(self.transport.disconnecting or self.transport.disconnected)

    def close(self) -> None:
        """Close the connection."""
        self.channel.connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def served() -> Iterator[Served]:
    """A site. The fixture stops everything in the site afterwards."""
    served = Served()
    yield served
    served.site.stopFactory()


def refused(answer: bytes, status: bytes, key: str) -> bool:
    """Return whether an answer is complete and has the fault."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"Content-Length: %d" % len(body) in head
    assert b"Connection: close" in head
    return list(orjson.loads(body)) == [key]


def body(length: int) -> bytes:
    """Return a request with a body."""
    return HEAD + b"Content-Length: %d\r\n\r\n" % length + b"x" * length


def chunks(length: int) -> bytes:
    """Return a request with a body of unstated length."""
    piece = b"400\r\n" + b"x" * 1024 + b"\r\n"
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + piece * (length // 1024) + b"0\r\n\r\n"


def test_requests_within_all_bounds(served: Served) -> None:
    connection = served.connect()
    assert connection.send(body(LARGEST_BODY)).count(b"200 OK") == 1
    assert connection.send(chunks(LARGEST_BODY)).count(b"200 OK") == 2
    many = b"".join(b"X-%d: x\r\n" % number for number in range(99))
    assert connection.send(HEAD + many + b"\r\n").count(b"200 OK") == 3
    assert [len(each) for each in served.bodies] == [LARGEST_BODY, LARGEST_BODY, 0]
    served.clock.advance(IDLE - 1)
    assert not connection.ended
    served.clock.advance(1)
    assert connection.ended


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: %d\r\n\r\n" % (LARGEST_BODY + 1),
        HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n",
        chunks(LARGEST_BODY + 1024)[:-5],
    ],
)
def test_a_body_too_large_is_refused_before_it_has_come(served: Served, request_: bytes) -> None:
    """A body over the limit is refused by its stated length, or at the first byte too many.

    Break: `src/bootvol/api/channels.py`: `self.length > LARGEST_BODY:` -> `self.length < 0:`.
    Break: `src/bootvol/api/sites.py`: `if self.content.tell() + len(data) > LARGEST_BODY:` ->
    `if len(data) > LARGEST_BODY:`.
    """
    connection = served.connect()
    assert refused(connection.send(request_), b"400", "badRequest")
    assert not served.bodies
    linger(served, connection)


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"X: x\r\n" * 100,
        HEAD + b"X: x\r\n" * 99 + b"X: x\r\n\r\n",
        HEAD + (b"X: " + b"x" * 1000 + b"\r\n") * 17,
        HEAD + b"X: " + b"x" * 17000,
        HEAD + b"X: " + b"x" * 17000 + b"\r\n\r\n",
        b"GET /v1.1/x?" + b"x" * 17000,
        b"GET /v1.1/x?" + b"x" * 17000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
)
def test_headers_too_many_or_too_long_are_refused(served: Served, request_: bytes) -> None:
    """More than 100 headers, or 16 KiB of them, are refused.

    Break: `src/bootvol/api/channels.py`: `maxHeaders = 100` -> `maxHeaders = 1000`.
    Break: `src/bootvol/api/channels.py`: `if self._receivedHeaderSize + len(line) >
    self.totalHeadersSize:` -> `if not line and self._receivedHeaderSize > 1 << 20:`.
    """
    connection = served.connect()
    assert refused(connection.send(request_ + b"\r\n"), b"431", "cloudServersFault")
    assert not served.bodies
    linger(served, connection)


def linger(served: Served, connection: Connection) -> None:
    """Check: bytes after a refusal are dropped, and the connection is closed."""
    told = connection.send(b"x" * 10**6)
    assert connection.send(b"\r\n\r\n" + HEAD + b"\r\n") == told
    served.clock.advance(LINGER - 1)
    assert not connection.transport.disconnected
    served.clock.advance(1)
    assert connection.transport.disconnected
    assert not served.bodies
    connection.close()


def test_a_client_with_tls_is_refused_at_once(served: Served) -> None:
    """A client that speaks TLS to a plain endpoint does not wait for the end of a request.

    Break: `src/bootvol/api/channels.py`: `if framing.is_handshake(data):` -> `if False:`.
    """
    handshake = b"\x16\x03\x01\x00\xf1\x01\x00\x00\xed\x03\x03" + b"r" * 200
    with capturedLogs() as logs:
        assert refused(served.connect().send(handshake), b"400 Bad Request", "badRequest")
    assert "192.0.2.1: The client speaks TLS, and this endpoint HTTP" in map(formatEvent, logs)
    # A body may begin with the same byte.
    assert b"200 OK" in served.connect().send(HEAD + b"Content-Length: 1\r\n\r\n\x16")
    split = served.connect()
    split.send(HEAD + b"Content-Length: 1\r\n\r\n")
    assert b"200 OK" in split.send(b"\x16")


def test_a_refusal_is_in_the_form_of_what_was_asked(served: Served) -> None:
    asked = b"POST /identity/v3/auth/tokens HTTP/1.1\r\nContent-Length: 999999\r\n\r\n"
    assert refused(served.connect().send(asked), b"400", "error")


@pytest.mark.parametrize(
    "begin", [b"", b"GET /", HEAD, HEAD + b"X", HEAD + b"Content-Length: 1000\r\n\r\n"]
)
def test_a_request_that_comes_too_slowly(served: Served, begin: bytes) -> None:
    """A byte now and then, as in slow-loris attacks, keeps no connection.

    Break: `src/bootvol/api/channels.py`: `self._ending = self.callLater(WHOLE, self._ended)` ->
    `self._ending = None`.
    """
    connection = served.connect()
    connection.send(begin)
    for _ in range(WHOLE - 1):
        served.clock.advance(1)
        connection.send(b"x")
        assert not connection.ended
    served.clock.advance(1)
    # If the client sent nothing at first, the limit is one second later.
    served.clock.advance(0 if begin else 1)
    assert connection.ended
    assert not served.bodies


@pytest.mark.parametrize("begin", [b"", b"GET /"])
def test_a_client_that_does_not_let_go_is_cut_off(served: Served, begin: bytes) -> None:
    connection = served.connect()
    connection.send(begin)
    served.clock.advance(IDLE)
    assert connection.ended
    assert not connection.transport.disconnected
    served.clock.advance(15)
    assert connection.transport.disconnected


def test_an_answer_may_take_its_time(served: Served) -> None:
    connection = served.connect()
    connection.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
    served.clock.advance(10 * WHOLE)
    assert not connection.ended
    served.slow[0].callback(b"")
    assert b"200 OK" in connection.transport.value()
    served.clock.advance(IDLE)
    assert connection.ended


def test_one_connection_too_many_takes_the_place_of_the_idlest(served: Served) -> None:
    """A new client ends the connection with the longest wait for a request.

    Break: `src/bootvol/api/sites.py`: `for each in taken if` -> `for each in reversed(taken) if`
    """
    first, second, third = served.connect(), served.connect(), served.connect()
    first.send(body(1))
    assert not second.ended
    fourth = served.connect()
    assert second.ended
    second.close()
    assert b"200 OK" in fourth.send(body(1))
    assert not first.ended
    third.close()
    served.connect()
    assert not first.ended


def test_many_connections_of_one_address_push_out_their_own(served: Served) -> None:
    """Break: `src/bootvol/api/sites.py`: `if addresses[each.address] == most` -> `if True`"""
    other = served.connect("198.51.100.1")
    many = [served.connect() for _ in range(2 * MOST)]
    assert not other.ended
    assert [each.ended for each in many].count(False) == MOST - 1
    assert b"200 OK" in other.send(GET)


def test_connections_at_work_keep_their_places(served: Served) -> None:
    """A new client gets 503 while all connections are busy, and is not cut off.

    Break: `src/bootvol/api/channels.py`: `and self.site.is_full` -> `and False`.
    Break: `src/bootvol/api/channels.py`: `self.site.working(self)` -> `self.site.waiting(self)`.
    """
    working = [served.connect() for _ in range(MOST)]
    for each in working:
        each.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
    told = [served.connect() for _ in range(SPARE + 1)]
    assert [each.ended for each in told] == [True, False, False]
    assert refused(told[1].send(GET), b"503", "serviceUnavailable")
    assert b"\r\nRetry-After: 5\r\n" in told[1].transport.value()
    assert len(served.slow) == MOST
    assert not any(each.ended for each in working)
    served.slow[1].callback(b"")
    assert b"200 OK" in told[2].send(GET)
    for each in (*working, *told):
        each.close()


def test_answers_that_nobody_reads_are_bounded_together(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address with the most unread bytes loses its oldest connection.

    Break: `src/bootvol/api/sites.py`: `sum(self._unread.values()) > MOST_UNREAD:` ->
    `not self._unread:`.
    Break: `src/bootvol/api/sites.py`: `if addresses[each.address] == most` -> `if True`
    """
    monkeypatch.setattr(sites, "MOST_UNREAD", 2 * LARGE + 1)

    def ask(host: str) -> Connection:
        connection = served.connect(host)
        # A transport does this if the client does not read.
        connection.channel.pauseProducing()
        connection.send(GET.replace(b"/v1.1/x", b"/large"))
        return connection

    client, first = ask("192.0.2.2"), ask("192.0.2.1")
    assert not first.ended
    second = ask("192.0.2.1")
    assert [each.ended for each in (client, first, second)] == [False, True, False]
    second.channel.resumeProducing()
    third = ask("192.0.2.1")
    assert not any(each.ended for each in (client, second, third))


def test_the_last_answer_of_a_connection_is_not_kept_for_ever(served: Served) -> None:
    connection = served.connect()
    connection.channel.pauseProducing()
    asked = GET.replace(b"Host: h", b"Host: h\r\nConnection: close")
    assert b"200 OK" in connection.send(asked)
    served.clock.advance(IDLE - 1)
    assert not connection.transport.disconnected
    served.clock.advance(1)
    assert connection.transport.disconnected


@pytest.mark.parametrize("begin", [b"", GET, HEAD])
def test_a_client_that_sends_no_more_is_let_go_when_nothing_is_to_answer(
    served: Served, begin: bytes
) -> None:
    connection = served.connect()
    connection.send(begin)
    assert not connection.ended
    connection.channel.readConnectionLost()
    assert connection.ended


def test_a_client_that_sends_no_more_gets_all_answers(served: Served) -> None:
    connection = served.connect()
    connection.send(GET.replace(b"/v1.1/x", b"/slow") + GET)
    connection.channel.readConnectionLost()
    served.clock.advance(10 * IDLE)
    assert not connection.ended
    served.slow[0].callback(b"")
    # The transport reports the end whenever the connection reads on.
    connection.channel.readConnectionLost()
    assert not connection.ended
    turn(served.clock)
    connection.channel.readConnectionLost()
    assert connection.transport.value().count(b"200 OK") == 2
    assert connection.ended


def test_a_client_that_neither_sends_nor_reads_is_cut_off(served: Served) -> None:
    connection = served.connect()
    connection.channel.readConnectionLost()
    served.clock.advance(IDLE - 1)
    assert not connection.transport.disconnected
    served.clock.advance(1)
    assert connection.transport.disconnected


def test_only_http_1_1_is_offered_in_tls(served: Served) -> None:
    assert served.site.acceptableProtocols() == [b"http/1.1"]


def lines(served: Served, requests: Iterable[bytes]) -> list[str]:
    """Return the lines of the access log for requests, with one connection for each request."""
    with capturedLogs() as logged:
        for each in requests:
            connection = served.connect()
            connection.send(each)
            connection.close()
        served.clock.advance(sparing.PERIOD)
    return [formatEvent(each) for each in logged if each["log_namespace"] == "bootvol.api.access"]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"x" * 10000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /?" + b"x" * 10000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /\x9b2J HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /" + b"\x1b[2J" * 2000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\x1b" * 9000 + b" / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: " + b"\1" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nReferer: \xff" + b"%s" * 900 + b"\r\n\r\n",
        b"\x1b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 17000 + b"\r\n\r\n",
    ],
)
def test_a_line_of_the_access_log_is_short_whatever_is_sent(
    served: Served, request_: bytes
) -> None:
    """A line of the log is short and printable, no matter what a stranger sends.

    Break: `src/bootvol/api/http.py`: `return repr(sent[:_SHOWN])[2:-1]` -> `return
    repr(sent)[2:-1]`.
    Break: `src/bootvol/api/http.py`: `return repr(sent[:_SHOWN])[2:-1]` -> `return
    sent[:_SHOWN].decode("latin-1")`.
    """
    (line,) = lines(served, [request_])
    assert len(line) < 500
    assert line.isprintable()


def test_the_access_log_has_the_reason_why_a_stranger_was_not_served(served: Served) -> None:
    (line,) = lines(served, [GET.replace(b"/v1.1/x", b"/fails")])
    assert ": 503 (identity-unavailable: " in line


@pytest.mark.parametrize(
    "stated", [b"Content-Length: 110000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1ADB0\r\n"]
)
def test_a_body_takes_no_descriptor(served: Served, stated: bytes) -> None:
    """Bodies stay in memory, so a connection has one open file: its socket.

    Break: `src/bootvol/api/sites.py`: `return BytesIO()` -> `return
    __import__("tempfile").TemporaryFile()`.
    """
    before = len(os.listdir("/proc/self/fd"))
    connections = [served.connect() for _ in range(MOST)]
    for each in connections:
        each.send(HEAD + stated + b"x" * 109_999)
    assert len(os.listdir("/proc/self/fd")) == before
    ends = b"" if b"Length" in stated else b"\r\n0\r\n\r\n"
    for each in connections:
        each.send(b"x" + ends)
    assert served.bodies == [b"x" * 110_000] * MOST


def test_no_answer_names_a_version(served: Served) -> None:
    for path in (b"/", b"*", b"/*", b"/none", b"/fails"):
        for method in (b"GET", b"OPTIONS", b"POST", b"FOO"):
            answer = served.connect().send(method + b" " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b"Server: bootvol\r\n" in answer
            assert b"Twisted" not in answer


def test_strangers_have_few_lines_in_the_access_log(served: Served) -> None:
    """Requests without a valid token beyond the limit are counted, not logged.

    Break: `src/bootvol/api/access.py`: `if request.tenant is None and not self._strangers.admit():`
    -> `if not request:`.
    Break: `src/bootvol/sparing.py`: `self._left -= 1` -> `self._left -= 0`.
    """
    *told, last = lines(served, [GET, b"\0\r\n\r\n"] * sparing.MOST)
    assert len(told) == sparing.MOST
    assert last.startswith(f"{sparing.MOST} more requests without a valid token")
    served.known = "tenant"
    assert len(lines(served, [GET] * 2 * sparing.MOST)) == 2 * sparing.MOST


@pytest.mark.parametrize("digits", [15, 4000, 4301, 16000])
def test_a_length_of_many_digits(served: Served, digits: int) -> None:
    connection = served.connect()
    answer = connection.send(HEAD + b"Content-Length: " + b"9" * digits + b"\r\n\r\n")
    assert refused(answer, b"400", "badRequest")


@pytest.mark.parametrize(
    "request_",
    [
        b"\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n:\r\nx\r\n\r\n",
        HEAD + b"Content-Length: x\r\n\r\n",
    ],
)
def test_a_request_that_is_not_http(served: Served, request_: bytes) -> None:
    assert refused(served.connect().send(request_), b"400", "badRequest")


CHUNKED_BODY = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: identity\r\n\r\n",
        HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: identity\r\n" + CHUNKED_BODY + b"0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n" + CHUNKED_BODY + b"0\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding:\r\n\r\n",
        HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNKED_BODY + b"0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\n" + CHUNKED_BODY + b"0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
        HEAD + b"Content-Length: +5\r\n\r\nhello",
        HEAD + b"Content-Length: 1_0\r\n\r\nhellohello",
        HEAD + b"Content-Length\r\n : 5\r\n\r\nhello",
        HEAD + b"X: x\r\n\tContent-Length: 5\r\n\r\nhello",
        HEAD + b"X: x\nContent-Length: 5\r\n\r\nhello",
        HEAD + b"X: x\rContent-Length: 5\r\n\r\nhello",
        HEAD.replace(b"\r\n", b"\n") + b"\n",
        HEAD + CHUNKED_BODY + b"5\nhello\n0\n\n",
        HEAD + CHUNKED_BODY + b"0x5\r\nhello\r\n0\r\n\r\n",
        HEAD + CHUNKED_BODY + b"5 \r\nhello\r\n0\r\n\r\n",
        HEAD + CHUNKED_BODY + b"5\r\nhelloxx0\r\n\r\n",
        HEAD + CHUNKED_BODY + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        HEAD + CHUNKED_BODY + b"0\r\nX: x\n\n" + GET,
        HEAD + CHUNKED_BODY + b"0\r\nGET / HTTP/1.1\r\n\r\n",
    ],
)
def test_no_request_has_two_ends(served: Served, request_: bytes) -> None:
    """A proxy in front may see another end, and take the rest as a request of another client.

    Break: `src/bootvol/api/framing.py`: `states_chunks(line) and version != b"HTTP/1.0"` ->
    `states_chunks(line)`.
    Break: `src/bootvol/api/framing.py`: `return MalformedRequest()` -> `return None`.
    Break: `src/bootvol/api/framing.py`: `return line[:1] in (b" ", b"\\t")` -> `return False`.
    Break: `src/bootvol/api/framing.py`: `raise _MalformedChunkedDataError` -> `return further`.
    """
    connection = served.connect()
    assert refused(connection.send(request_ + GET), b"400", "badRequest")
    assert served.bodies == []
    served.clock.advance(LINGER)
    assert connection.transport.disconnected


def test_a_body_in_chunks_may_have_extensions_and_trailers(served: Served) -> None:
    body = b"5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n"
    answer = served.connect().send(HEAD + CHUNKED_BODY.replace(b"c", b"C", 1) + body + GET)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert served.bodies[0] == b"hello"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: h, other\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: h@other\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: h/other\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: h:x\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:8776\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: a_b.example-1.org:8776\r\n", b"200"),
        (b"GET /#x HTTP/1.1\r\nHost: h\r\n", b"400"),
        (b"GET http://h/#x HTTP/1.1\r\nHost: h\r\n", b"400"),
        (b"GET http://h#x HTTP/1.1\r\nHost: h\r\n", b"400"),
        (b"GET http:///x HTTP/1.1\r\nHost: h\r\n", b"400"),
        (b"GET http://u@h/x HTTP/1.1\r\nHost: h\r\n", b"400"),
        (b"GET http://h/x HTTP/1.1\r\n", b"400"),
        (b"GET http://h/x HTTP/1.1\r\nHost: h\r\nHost: h\r\n", b"400"),
        (b"GET http://h//x HTTP/1.1\r\nHost: h\r\n", b"400"),
        (b"GET ftp://h/x HTTP/1.1\r\nHost: h\r\n", b"400"),
    ],
)
def test_a_request_names_one_target(served: Served, head: bytes, status: bytes) -> None:
    """A proxy in front may take another host, or another path.

    Break: `src/bootvol/api/root.py`: `not is_host(host or b"")` -> `False`.
    Break: `src/bootvol/api/targets.py`: `if b"#" in target:` -> `if False:`.
    """
    assert served.connect().send(head + b"\r\n").split()[1] == status


@pytest.mark.parametrize(
    ("target", "path", "url"),
    [
        (b"/v1.1/x?y", b"/v1.1/x", "http://h"),
        (b"http://other:8774/v1.1/x?y", b"/v1.1/x", "http://other:8774"),
        (b"HTTPS://[2001:db8::1]/", b"/", "http://[2001:db8::1]"),
        (b"http://other", b"/", "http://other"),
        (b"http://other?y", b"/", "http://other"),
    ],
)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_target_may_name_the_host(
    served: Served, target: bytes, path: bytes, url: str, version: bytes
) -> None:
    """RFC 9112, section 3.2.2: such a host counts, and the header Host does not."""
    head = b"GET " + target + b" HTTP/" + version + b"\r\nHost: h\r\n\r\n"
    assert b" 200 OK" in served.connect().send(head)
    assert served.targets == [(path, url)]


def test_the_refusal_of_a_target_with_a_host_has_the_form_of_its_dialect(served: Served) -> None:
    head = b"GET %s/identity/x HTTP/1.1\r\nHost: h\r\nContent-Length: 999999\r\n\r\n"
    bodies = [served.connect().send(head % host).split(b"\r\n")[-1] for host in (b"", b"http://h")]
    assert bodies[0] == bodies[1]
    assert b"title" in bodies[0]


@pytest.mark.parametrize(
    ("target", "more"),
    [
        (b"/v1.1/x?" + b"a=b&" * (MOST_PARAMETERS - 1) + b"a=b", b"&"),
        (b"/v1.1/x?" + b"a&" * (MOST_PARAMETERS - 1), b";"),
        (b"/v1.1/x?" + b";" * (MOST_PARAMETERS - 1), b";"),
        (b"/a" * MOST_SEGMENTS, b"/a"),
    ],
)
def test_parameters_and_segments_are_bounded(served: Served, target: bytes, more: bytes) -> None:
    """A URL with more parts than any call has is refused, before any code makes the parts.

    Break: `src/bootvol/api/targets.py`: `if path.count(b"/") > MOST_SEGMENTS:` -> `if False:`.
    Break: `src/bootvol/api/targets.py`: `query.count(b"&") + query.count(b";")` ->
    `query.count(b"&")`.
    """
    answer = served.connect().send(GET.replace(b"/v1.1/x", target))
    assert answer.startswith(b"HTTP/1.1 200 ")
    answer = served.connect().send(GET.replace(b"/v1.1/x", target + more))
    assert refused(answer, b"400", "badRequest")
    assert len(served.bodies) == 1


def test_cookies_are_not_read(served: Served) -> None:
    """Many cookies take much time, and no call reads them.

    Break: `src/bootvol/api/http.py`: `def parseCookies(` -> `def _parseCookies(`.
    """
    answer = served.connect().send(GET[:-2] + b"Cookie: a=b\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert served.cookies == [{}]


@pytest.mark.parametrize("name", [b"Host", b"x-auth-token", b"X-Service-Token", b"X-Subject-Token"])
def test_a_request_names_one_host_and_one_caller(served: Served, name: bytes) -> None:
    """A proxy in front may take the first of two headers, and bootvol the last.

    Break: `src/bootvol/api/root.py`: `for name in _ONCE:` -> `for name in ():`.
    """
    tokens = b"X-Auth-Token: t\r\nX-Service-Token: t\r\nX-Subject-Token: t\r\n"
    head = b"GET /v1.1/x HTTP/1.1\r\nHost: h\r\n" + tokens
    assert b"200 OK" in served.connect().send(head + b"\r\n")
    answer = served.connect().send(head + name + b": other\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


def turn(clock: Clock) -> None:
    """Run all due calls. Calls scheduled by these calls have to wait, as with a real reactor."""
    due = [each for each in clock.calls if each.getTime() <= clock.seconds()]
    for each in due:
        clock.calls.remove(each)
        each.called = 1
        each.func(*each.args, **each.kw)


def test_requests_sent_ahead_are_answered_one_a_turn(served: Served) -> None:
    """A pipelined request is parsed in a separate turn of the reactor.

    Break: `src/bootvol/api/channels.py`: `self.paused = bool(self.persistent) and (ahead or
    self._waitingForTransport)` -> `self.paused = False`.
    """
    connection, other = served.connect(), served.connect("198.51.100.1")
    assert connection.send(GET * 3 + body(10) + GET[:-2]).count(b"200 OK") == 1
    assert connection.transport.producerState == "paused"
    for answered in (2, 3, 4, 4):
        turn(served.clock)
        assert connection.transport.value().count(b"200 OK") == answered
    assert other.send(GET).count(b"200 OK") == 1
    assert connection.transport.producerState == "producing"
    assert connection.send(b"\r\n").count(b"200 OK") == 5


@pytest.mark.parametrize("path", [b"/v1.1/x", b"/slow"])
def test_requests_sent_ahead_stay_in_order(served: Served, path: bytes) -> None:
    """Bytes behind a request are parsed before later bytes, in however many pieces they come.

    Break: `src/bootvol/api/pieces.py`: `waiting, self._come = self._come, b""` -> `waiting = b""`.
    """
    connection = served.connect()
    lengths = [number * 379 % 3000 for number in range(30)]
    requests = [body(each).replace(b"/v1.1/x", path) for each in lengths]
    connection.channel.dataReceived(b"".join(requests))
    for _ in range(200):
        turn(served.clock)
        while served.slow:
            served.slow.pop().callback(b"done")
    assert [len(each) for each in served.bodies] == lengths
    assert connection.transport.value().count(b"200 OK") == 30
    assert connection.transport.producerState == "producing"


#: A body of one byte in each chunk: no input takes longer to parse.
CRUMBS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000


@pytest.mark.parametrize("sent", [GET, CRUMBS])
def test_addresses_take_turns_at_the_parsing_of_input(served: Served, sent: bytes) -> None:
    """Whatever connections of one address send, another address is answered in the turn after next.

    Break: `src/bootvol/api/pieces.py`: `self.site.pace.turn(self.address)` ->
    `self.site.pace.turn("")`.
    """
    many = [served.connect() for _ in range(MOST - 1)]
    for each in many:
        each.channel.dataReceived(sent)
    other = served.connect("198.51.100.1")
    for _ in range(10):
        other.channel.dataReceived(GET)
        turn(served.clock)
        turn(served.clock)
        assert b"200 OK" in other.transport.value()
        other.transport.clear()
        for each in many:
            if not each.channel.is_behind:
                each.channel.dataReceived(sent)
    for each in (*many, other):
        each.close()


def test_input_is_parsed_in_small_pieces(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of the reactor parses one piece of one connection, which reads no more meanwhile.

    Break: `src/bootvol/api/pieces.py`: `PIECE: Final = 4096` -> `PIECE: Final = 1 << 20`.
    Break: `src/bootvol/api/pieces.py`: `self._valve.hold()` -> `pass`.
    """
    parsed: list[int] = []
    connections = [served.connect(), served.connect()]
    monkeypatch.setattr(ApiChannel, "parse", lambda _, data: parsed.append(len(data)))
    for each in connections:
        each.channel.dataReceived(CRUMBS[: 4 * 4096])
        assert each.transport.producerState == "paused"
    for number in range(1, 9):
        assert sum(parsed) == 4096 * number
        turn(served.clock)
    for each in connections:
        assert each.transport.producerState == "producing"
        each.close()


@pytest.mark.parametrize("path", [b"/v1.1/x", b"/slow"])
def test_few_chunks_are_parsed_in_a_turn(
    served: Served, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    """A turn parses few chunks, whether they come first, behind a head, or behind a request.

    Break: `src/bootvol/api/pieces.py`: `left -= PIECE if self.length is None else size` ->
    `left -= CHUNKED`.
    Break: `src/bootvol/api/channels.py`: `self.parse_kept()` -> `self.parse(b"")`.
    """
    chunks: list[bytes] = []
    monkeypatch.setattr(BoundedRequest, "handleContentChunk", lambda _, data: chunks.append(data))
    crumbs = CRUMBS[: len(CRUMBS) - 6 * 49_000].replace(b"/v1.1/x", path) + b"0\r\n\r\n"
    connection = served.connect()
    connection.channel.dataReceived(crumbs * 5)
    most = CHUNKED // 6 + 1
    for _ in range(100):
        before = len(chunks)
        turn(served.clock)
        assert len(chunks) - before <= most
        while served.slow:
            served.slow.pop().callback(b"done")
            assert len(chunks) - before <= most
    assert len(chunks) == 5000
    assert connection.transport.value().count(b"200 OK") == 5


def test_a_defect_of_the_parser_ends_one_connection(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other connections of the same address are served on."""
    connection, other = served.connect(), served.connect()
    with monkeypatch.context() as patch, capturedLogs() as logs:
        patch.setattr(ApiChannel, "parse", lambda _, data: 1 / 0)
        connection.send(GET)
    assert connection.transport.disconnected
    assert [formatEvent(each) for each in logs] == ["a request cannot be parsed"]
    turn(served.clock)
    assert b"200 OK" in other.send(GET)


def test_nothing_is_answered_to_a_client_that_does_not_read(served: Served) -> None:
    """A client that does not read gets one answer, and no further request is parsed.

    Break: `src/bootvol/api/channels.py`: `(ahead or self._waitingForTransport)` -> `ahead`.
    """
    connection = served.connect()
    connection.channel.pauseProducing()
    assert connection.send(GET).count(b"200 OK") == 1
    for _ in range(3):
        turn(served.clock)
        assert connection.send(GET).count(b"200 OK") == 1
        assert connection.transport.producerState == "paused"
    connection.channel.resumeProducing()
    for answered in (2, 3, 4):
        turn(served.clock)
        assert connection.transport.value().count(b"200 OK") == answered
    assert connection.transport.producerState == "producing"
    served.clock.advance(IDLE)
    assert connection.ended


def test_a_client_that_reads_slowly_is_served_on(served: Served) -> None:
    """A connection continues after each answer that the client reads late.

    No other connection is at work then, and so the turn of this connection begins at once.

    Break: `src/bootvol/api/channels.py`: `if not turn.called:` -> `if turn:`.
    """
    connection = served.connect()
    for answered in (1, 2, 3):
        connection.channel.pauseProducing()
        assert connection.send(GET).count(b"200 OK") == answered
        turn(served.clock)
        connection.channel.resumeProducing()
        assert not connection.channel.is_ahead
        assert connection.transport.producerState == "producing"
    assert connection.send(GET * 2).count(b"200 OK") == 4
    turn(served.clock)
    assert connection.transport.value().count(b"200 OK") == 5


#: Pieces of heads, right and wrong.
PIECES = [
    *(b"GET ", b"POST ", b"/", b"/v1.1/x", b"?", b"%00", b"//[", b" ", b" HTTP/1.1", b" HTTP/1.0"),
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\t",
        b":",
        b",",
        b";",
        b"=",
        b"9" * 5000,
    ),
    *(b"Host: h", b"Host: [", b"Host: \xff", b"Host: xn--a", b"Cookie: a=\xff; =", b"Cookie"),
    *(b"Content-Length: ", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"-1", b"0"),
    *(b"Content-Type: multipart/form-data; boundary=\xff", b"Expect: 100-continue", b"0\r\n\r\n"),
    *(b"Authorization: Basic \xff", b"Connection: close", b"X-Auth-Token: \xff", b"5\r\nhello\r\n"),
]


#: Headers with hostile values.
HEADERS = [
    *(b"Content-Length: " + each for each in (b"9" * 5000, b"-1", b"x", b"5, 5", b"\xb2")),
    *(
        b"Host: " + each
        for each in (b"\xff", b"[", b"xn--a", b"a." * 200, b"a..b", b":", b"\xe2\x91\xa0")
    ),
]


#: Requests with a nearly correct head: few lists of pieces give one.
REQUESTS = st.builds(
    lambda first, lines, rest: b"\r\n".join([first, *lines, b"", rest]),
    st.sampled_from([b"GET /v1.1/x HTTP/1.1", b"POST /identity/v3/auth/tokens HTTP/1.1"]),
    st.lists(
        st.sampled_from([each for each in PIECES if each[0:1].isalpha()] + HEADERS), max_size=4
    ),
    st.sampled_from([b"", b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"\0"]),
)


@fuzz(500)
@given(sent=st.lists(st.sampled_from(PIECES) | st.binary(max_size=9) | REQUESTS, max_size=30))
def test_no_bytes_give_a_server_error(sent: list[bytes]) -> None:
    """No bytes from a stranger give a status of 5xx or a traceback.

    Break: `src/bootvol/api/root.py`: `except UnicodeError:` -> `except KeyError:`.
    """
    served = Served()
    connection = served.connect()
    with capturedLogs() as logged:
        for each in sent:
            connection.send(each)
        for _ in sent:
            turn(served.clock)
    answers = re.findall(rb"HTTP/1\.1 (\d+)", connection.transport.value())
    assert all(int(each) < 500 for each in answers)
    assert not any(each["log_level"] is LogLevel.critical for each in logged)
    connection.close()
    served.site.stopFactory()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("\x1b[31m", ""),
        ("", ""),
    ],
)
def test_a_client_has_one_address(host: str, expected: str) -> None:
    """A client has one address, even if transports write the address differently.

    Break: `src/bootvol/api/addresses.py`: `mapped = found.ipv4_mapped` -> `mapped = None`.
    Break: `src/bootvol/api/addresses.py`: `ip_network((found, 64), strict=False)` ->
    `ip_network((found, 128), strict=False)`.
    Break: `src/bootvol/api/addresses.py`: `return ""` -> `return host`.
    """
    assert network(host) == expected


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ("TCP4 203.0.113.9 127.0.0.1 1 2", "203.0.113.9 "),
        ("TCP6 ::ffff:203.0.113.9 ::1 1 2", "203.0.113.9 "),
        ("TCP6 2001:db8::1 ::1 1 2", "2001:db8::/64 "),
    ],
)
@ensureDeferred
async def test_a_proxy_states_its_clients_addresses(
    served: Served, stated: str, shown: str
) -> None:
    """With the PROXY protocol, the address of a client is the one that the proxy states.

    Break: `src/bootvol/api/channels.py`: `getattr(self.transport.getPeer(), "host", "")` -> `""`.
    Break: `src/bootvol/api/addresses.py`: `request.getClientAddress()` -> `request.host`.
    """
    port = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(Proxied(served.site))
    channels: list[ApiChannel] = []
    working = served.site.working

    def watched(channel: ApiChannel) -> None:
        channels.append(channel)
        working(channel)

    served.site.working = watched  # type: ignore[method-assign]

    def asked() -> bool:
        turn(served.clock)
        return bool(served.bodies)

    with (
        capturedLogs() as logged,
        socket.create_connection(("127.0.0.1", port.getHost().port)) as client,
    ):
        client.sendall(f"PROXY {stated}\r\n".encode() + GET)
        await until(asked)
    await port.stopListening()
    assert [each.address for each in channels] == [shown.strip()]
    assert any(str(formatEvent(each)).startswith(shown) for each in logged)


VERSION_2 = V2Parser.PREFIX + b"\x21"
OF_TCP4 = b"\x11\0\x0c" + bytes([203, 0, 113, 9, 127, 0, 0, 1, 0, 1, 0, 2])


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 203.0.113.9 127.0.0.1 x 2\r\n",
        b"PROXY TCP4 203.0.113.9 127.0.0.1 " + b"9" * 5000 + b" 2\r\n",
        b"PROXY TCP4 \xff 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 203.0.113.9\r\n",
        b"PROXY \r\n",
        b"PROXY " + b"x" * 200,
        b"PROXYTCP4 203.0.113.9 127.0.0.1 1 2\r\n",
        VERSION_2 + b"\x13\0\x0c" + bytes(12),
        VERSION_2 + b"\xff\0\x0c" + bytes(12),
        VERSION_2 + b"\x11\0\x01\0",
        V2Parser.PREFIX + b"\x31" + OF_TCP4,
        VERSION_2 + b"\x11\xff\xff" + bytes(5000),
        GET,
        b"\0",
    ],
)
@pytest.mark.parametrize("piece", [1, 10_000])
def test_a_malformed_header_of_a_proxy_takes_one_line(
    served: Served, header: bytes, piece: int
) -> None:
    """The connection ends, without a traceback in the log, and nothing more is read.

    Break: `src/bootvol/api/proxied.py`: `except (LookupError, ValueError):` -> `except OSError:`.
    Break: `src/bootvol/api/proxied.py`: `if self._is_refused:` -> `if False:`.
    """
    connection = Connection(Proxied(served.site).buildProtocol(None), "192.0.2.1", served.clock)
    with capturedLogs() as logged:
        for start in range(0, len(header), piece):
            connection.channel.dataReceived(header[start : start + piece])
        connection.channel.dataReceived(GET)
    assert connection.ended
    assert served.bodies == []
    assert [str(formatEvent(each)) for each in logged] == [
        "192.0.2.1: Malformed header of the PROXY protocol"
    ]


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n", "203.0.113.9"),
        (b"PROXY UNKNOWN anything\r\n", "192.0.2.1"),
        (b"PROXY UNKNOWN\r\n", "192.0.2.1"),
        (VERSION_2 + OF_TCP4, "203.0.113.9"),
        (VERSION_2 + b"\x11\0\x0f" + OF_TCP4[3:] + b"\x04\0\0", "203.0.113.9"),
        (V2Parser.PREFIX + b"\x20\0\0\0", "192.0.2.1"),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_a_header_of_a_proxy_comes_in_any_pieces(
    served: Served, header: bytes, address: str, piece: int
) -> None:
    connection = Connection(Proxied(served.site).buildProtocol(None), "192.0.2.1", served.clock)
    sent = header + GET
    for start in range(0, len(sent), piece):
        connection.channel.dataReceived(sent[start : start + piece])
        turn(served.clock)
    for _ in range(5):
        turn(served.clock)
    assert served.bodies == [b""]
    assert connection.channel.wrappedProtocol.address == address


@ensureDeferred
async def test_the_operator_says_who_may_connect_to_the_socket(
    served: Served, tmp_path: Path
) -> None:
    """The mode of a unix socket is that of its endpoint."""
    for proxy in ("", "haproxy:"):
        path = tmp_path / f"{proxy}api"
        quoted = str(path).replace(":", r"\:")
        listening = service(f"{proxy}unix:{quoted}:mode=660", served.site, reactor)
        listening.startService()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        await listening.stopService()


def test_no_answer_names_a_version_or_is_cached(served: Served) -> None:
    answer = served.connect().send(GET).lower()
    assert b"server: bootvol\r\n" in answer
    assert b"cache-control: no-store\r\n" in answer


@pytest.mark.parametrize(
    ("proxied", "first"), [(False, b""), (True, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")]
)
@ensureDeferred
async def test_no_descriptors_are_taken(
    served: Served, tmp_path: Path, proxied: bool, first: bytes
) -> None:
    """A stranger sends a descriptor with each byte, where the API listens at a unix socket.

    Break: `src/bootvol/api/channels.py`: `refuse_descriptors(self.transport)` -> `pass`.
    Break: `src/bootvol/reactors.py`: `transport = transport.transport` -> `break`.
    """
    path = str(tmp_path / "api")
    factory = Proxied(served.site) if proxied else served.site
    port = await serverFromString(reactor, f"unix:{path}").listen(factory)

    def asked() -> bool:
        turn(served.clock)
        return bool(served.bodies)

    with capturedLogs() as logged, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(first)
        for each in GET:
            socket.send_fds(client, [bytes([each])], [0])
        await until(asked)
    await port.stopListening()
    assert [each for each in logged if "descriptor" in str(formatEvent(each))] == []
