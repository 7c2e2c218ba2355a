"""Floods of requests: memory, the waits of other clients, and the reactor's time for a body."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemons import TENANT
from tests.integration.test_matrix import ADMIN, IDENTITY, ROWS
from tests.processes import Process, process
from tests.waiting import LIMIT, block_until

MIB = 1024 * 1024
#: Limit of a flood's memory, in bytes; without bounds, one connection takes hundreds of MiB.
MOST_MEMORY = 128 * MIB
#: Limit of another client's wait, in seconds; without bounds, the wait is longer.
PATIENCE = 15.0
#: Bytes of requests on their way for each client, and number of simultaneous floods.
AHEAD = 64 * 1024
AT_ONCE = 12
#: Bytes of a large body, less than the limit of a body.
LARGE = 110_000
#: Limit of the reactor's time for a large body, relative to the time for one long text.
MOST_TIME = 4.0
#: Seconds of each dozen of floods, and timeout of an answer in seconds.
LENGTH, HOPELESS = 0.15, 60.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A daemon with an admin."""
    with process(tmp_path_factory.mktemp("daemon"), identity=IDENTITY) as daemon:
        yield daemon


def token(daemon: Process) -> bytes:
    """Log in the admin; return the token."""
    asked = json.dumps({"auth": ADMIN}).encode()
    head = b"POST /v2.0/tokens HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(asked)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=LIMIT) as client:
        client.sendall(head + asked)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    found: str = json.loads(answer.partition(b"\r\n\r\n")[2])["access"]["token"]["id"]
    return found.encode()


def requests(admin: bytes) -> list[bytes]:
    """Return a request for every route, except for uploads: these end their connections."""
    made = []
    for row in ROWS:
        if row.method == "PUT" and row.path.endswith("/file"):
            continue
        body = b"{}" if row.method in {"POST", "PUT"} else b""
        head = b"Host: h\r\nX-Auth-Token: %s\r\nContent-Length: %d\r\n\r\n" % (admin, len(body))
        made += [
            b"%s %s HTTP/1.1\r\n" % (row.method.encode(), path.encode()) + head + body
            for path in row.paths
        ]
    return made


class Flood:
    """A client that sends a request repeatedly, without waiting for answers."""

    def __init__(self, daemon: Process, request: bytes) -> None:
        self._requests = request * (AHEAD // len(request) + 1)
        self._left = memoryview(self._requests)
        self.socket = socket.socket()
        # Unread answers soon fill the daemon's buffers, not the system's.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", daemon.port))
        self.socket.setblocking(False)
        self.read = 0

    def send(self) -> None:
        """Send as many bytes as the system accepts now."""
        try:
            sent = self.socket.send(self._left)
        except (BlockingIOError, ConnectionError):
            return
        self._left = self._left[sent:] or memoryview(self._requests)

    def receive(self) -> None:
        """Read the available bytes."""
        try:
            self.read += len(self.socket.recv(MIB))
        except BlockingIOError:
            return
        except ConnectionError:
            # The daemon ends the connection of a refused body.
            self.read += 1


def wait_of_another(daemon: Process, meanwhile: Callable[[], None] = lambda: None) -> float:
    """Return the wait of another client for an answer, in seconds.

    :param meanwhile: called repeatedly until the answer has come.
    """
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", daemon.port)) as client:
        client.sendall(b"GET /v1.1/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        client.setblocking(False)
        while True:
            meanwhile()
            try:
                assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
                return time.monotonic() - begun
            except BlockingIOError:
                assert time.monotonic() - begun < HOPELESS
                time.sleep(0.001)


def test_answers_that_nobody_reads_take_little_memory(daemon: Process) -> None:
    """A client that never reads requests every route repeatedly.

    Break: `src/bootvol/api/channels.py`: `(ahead or self._waitingForTransport)` -> `False`
    """
    asked = requests(token(daemon))
    before = daemon.peak_memory()
    with ExitStack() as open_ones:
        for request in asked:
            flood = Flood(daemon, request)
            open_ones.enter_context(flood.socket)
            flood.send()
        for _ in range(3):
            assert wait_of_another(daemon) < PATIENCE
        assert daemon.peak_memory() - before < MOST_MEMORY


def test_requests_sent_ahead_hold_up_nobody_else(daemon: Process) -> None:
    """A client that reads all answers requests every route repeatedly.

    Break: `src/bootvol/api/channels.py`: `(ahead or self._waitingForTransport)` -> `False`
    """
    asked = requests(token(daemon))
    before = daemon.peak_memory()
    for first in range(0, len(asked), AT_ONCE):
        with ExitStack() as open_ones, selectors.DefaultSelector() as ready:
            for request in asked[first : first + AT_ONCE]:
                flood = Flood(daemon, request)
                open_ones.enter_context(flood.socket)
                ready.register(flood.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, flood)
            end = time.monotonic() + LENGTH
            floods = [each.data for each in ready.get_map().values()]
            while time.monotonic() < end or not all(each.read for each in floods):
                pump(ready)
                assert time.monotonic() < end + HOPELESS
            assert wait_of_another(daemon, lambda: pump(ready)) < PATIENCE
    assert daemon.peak_memory() - before < MOST_MEMORY


#: Large bodies by content; ``%b`` is in the objects that the calls require.
CONTENTS = {
    "lists": b"[" + b"[]," * (LARGE // 3) + b"1]",
    "objects": b"[" + b"{}," * (LARGE // 3) + b"1]",
    "numbers": b"[" + b"1," * (LARGE // 2) + b"1]",
    "fractions": b"[" + b"1.5e7," * (LARGE // 6) + b"1]",
    "short texts": b"[" + b'"",' * (LARGE // 3) + b"1]",
    "nested": b"[" * (LARGE // 2) + b"]" * (LARGE // 2),
    "nested objects": b'{"":' * (LARGE // 5) + b"1" + b"}" * (LARGE // 5),
    "keys": b"{" + b",".join(b'"%06d":1' % number for number in range(LARGE // 11)) + b"}",
    "one key": b"{" + b'"a":[],' * (LARGE // 7) + b'"a":1}',
    "escaped text": b'"' + rb"\u00e9" * (LARGE // 6) + b'"',
    "escaped quotes": b'"' + rb"\"" * (LARGE // 2) + b'"',
    "foreign text": b'"' + "\u00e9".encode() * (LARGE // 2) + b'"',
    "digits": b"1" * LARGE,
}
#: The calls that read the contents: a stranger's, and a tenant's.
READING = (
    (b"/identity/v3/auth/tokens", b'{"auth":{"identity":{"methods":%b}}}'),
    (b"/v2.0/tokens", b'{"auth":%b}'),
    (b"/v1.1/%b/os-volumes" % TENANT.encode(), b'{"volume":{"size":1,"metadata":%b}}'),
    (
        b"/v1.1/%b/servers" % TENANT.encode(),
        b'{"server":{"name":"x","flavorRef":"1","block_device_mapping_v2":%b}}',
    ),
)


def reactor_time(daemon: Process, request: bytes) -> float:
    """Send a request several times; return the reactor's least time for the request, in seconds."""
    times = []
    stat = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/stat")
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=LIMIT) as client:
        for _ in range(5):
            before = daemon.reactor_time()
            client.sendall(request)
            assert client.recv(65536).startswith(b"HTTP/1.1 4")
            # The system counts the time when the thread sleeps.
            block_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S")
            times.append(daemon.reactor_time() - before)
    return min(times)


@pytest.mark.parametrize(("path", "around"), READING)
def test_no_content_of_a_body_takes_much_time(daemon: Process, path: bytes, around: bytes) -> None:
    """Whatever the values of a large body, the body takes about as long as one long text.

    Break: `src/bootvol/api/http.py`: `_check_number(sent)` -> `pass`
    """
    head = b"POST %b HTTP/1.1\r\nHost: h\r\nX-Auth-Token: %b\r\n" % (path, token(daemon))

    def taken(content: bytes) -> float:
        body = around % content
        return reactor_time(daemon, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    before = daemon.peak_memory()
    plain = taken(b'"%b"' % (b"x" * LARGE))
    times = {name: taken(content) / plain for name, content in CONTENTS.items()}
    assert max(times.values()) < MOST_TIME, times
    assert daemon.peak_memory() - before < MOST_MEMORY


def pump(ready: selectors.BaseSelector) -> None:
    """Send and receive once for each flood."""
    for key, events in ready.select(0.01):
        if events & selectors.EVENT_WRITE:
            key.data.send()
        if events & selectors.EVENT_READ:
            key.data.receive()
