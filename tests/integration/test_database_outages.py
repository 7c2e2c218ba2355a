"""The database fails while a daemon works: clients get an answer in time, and nothing is lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import LogLevel, capturedLogs

from bootvol.store import database as databases
from bootvol.testing.backends import noise
from bootvol.testing.web import BadWeb
from tests import postgresql
from tests.daemons import EMBEDDED, Running, pause, reactor
from tests.servers import Server, serve

MIB = 1024 * 1024
CONTENT = noise(6 * MIB + 333)
CONFIG = """
[imports]
buffer_kib = 256
checkpoint_mib = 1

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}"]
networks = ["127.0.0.0/8", "::1/128"]
"""


@pytest.fixture
def web() -> BadWeb:
    """A slow server."""
    return BadWeb(CONTENT, reactor, 2 * MIB)


@pytest.fixture
def server(web: BadWeb) -> Iterator[Server]:
    """The running server."""
    with serve(web) as server:
        yield server


@contextmanager
def outage(state: str, folder: Path) -> Iterator[None]:
    """Silence the server until the end of the block, or move the file away."""
    if state == EMBEDDED:
        file, away = folder / "bootvol.db", folder / "away"
        file.rename(away)
        yield
        away.rename(file)
    else:
        with postgresql.silent(state.split('"')[1]):
            yield


async def ask(daemon: Running, volume: int) -> list[Any]:
    """Make many calls at once that need the database; return the answers."""
    asked = [
        ("GET", f"hp-bootable-volumes/{volume}/import", None),
        ("POST", "os-volumes", {"volume": {"size": 1}}),
        ("DELETE", f"os-volumes/{volume}", None),
        ("GET", "os-quota-sets/x", None),
        ("GET", "limits", None),
        ("POST", "os-volume-types", {"volume_type": {"name": "x"}}),
    ]
    return await gatherResults(
        [Deferred.fromCoroutine(daemon.call(*each, token="root")) for each in asked]
    )


@ensureDeferred
async def test_an_outage_is_told_and_outlasted(
    tmp_path: Path, state: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Running(tmp_path, CONFIG.format(url=server.url), state)
    number = await daemon.create(f"{server.url}slow")
    while (await daemon.progress(number))["bytesDone"] < MIB:
        await pause(0.05)
    with capturedLogs() as logged:
        # A healthy database on a busy machine may need longer, so the limit ends before the outage.
        with outage(state, tmp_path), monkeypatch.context() as patch:
            patch.setattr(databases, "LIMIT", 0.5)
            for answer in await ask(daemon, number) + await ask(daemon, number):
                assert answer.status == 503, answer
                assert answer.json["serviceUnavailable"]["code"] == 503
                assert int(answer.headers["retry-after"]) > 0
            # Calls without the database continue.
            assert (await daemon.request("GET", "/")).status == 200
            await pause(1.5)
        assert await daemon.until(number, "available", "error") == "available"
    assert (await daemon.progress(number))["attempt"] == 1
    told = [each["log_format"] for each in logged if each["log_namespace"].endswith("Database")]
    assert sorted(told) == [
        *["the database can be {done} again"] * 2,
        *["the database cannot be {done}: {failure}"] * 2,
    ]
    assert not any(each["log_level"] is LogLevel.critical for each in logged)
    # The database alone tells of the outage: no line for each refused call.
    assert not [each for each in logged if each.get("code") == "database-unavailable"]
    (volume,) = daemon.files()
    with volume.open("rb") as file:
        assert file.read(len(CONTENT)) == CONTENT
    await daemon.stop()


@ensureDeferred
async def test_a_daemon_that_ends_in_an_outage_goes_on_later(
    tmp_path: Path, state: str, server: Server, web: BadWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Running(tmp_path, CONFIG.format(url=server.url), state)
    number = await daemon.create(f"{server.url}slow")
    while (await daemon.progress(number))["bytesDone"] < 3 * MIB:
        await pause(0.05)
    monkeypatch.setattr(databases, "_LAST", 0.5)
    with outage(state, tmp_path):
        await daemon.stop()
    again = Running(tmp_path, CONFIG.format(url=server.url), state)
    assert await again.until(number, "available", "error") == "available"
    _, resumed = web.requests["slow"]
    assert resumed is not None, "from its checkpoint"
    await again.stop()


# --- text from outside ---------------------------------------------------------------------------

#: Headers that no server should send.
HOSTILE = {
    "date": b"Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\0",
    "comment": b"Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT (\0)",
    "tag": b'ETag: "a\0b"',
    "bytes": b'ETag: "\xed\xa0\x80"',
    "type": b"Content-Type: application/\0\xff",
    "place": b'Content-Disposition: attachment; filename="\0"',
}


@contextmanager
def raw_server() -> Iterator[int]:
    """Serve an image with each header at the header's name; the block gets the port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        # A client may leave early.
        with connection, suppress(OSError):
            asked = b""
            while b"\r\n\r\n" not in asked:
                more = connection.recv(4096)
                if not more:
                    return
                asked += more
            name = asked.split(b" ")[1].rpartition(b"/")[2].decode()
            if name not in HOSTILE:
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                return
            head = [
                b"HTTP/1.1 200 OK",
                b"Content-Length: %d" % len(CONTENT),
                b"Date: Sat, 28 Nov 2026 12:00:00 GMT",
                HOSTILE[name],
                b"Connection: close",
            ]
            connection.sendall(b"\r\n".join([*head, b"", b""]))
            if asked.startswith(b"GET"):
                connection.sendall(CONTENT)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()


@ensureDeferred
async def test_what_servers_say_fails_no_import(tmp_path: Path, state: str) -> None:
    with raw_server() as port:
        url = f"http://localhost:{port}/"
        daemon = Running(tmp_path, CONFIG.format(url=url), state)
        for name in HOSTILE:
            number = await daemon.create(f"{url}{name}")
            assert await daemon.until(number, "available", "error") == "available", name
            assert (await daemon.progress(number))["attempt"] == 1
        await daemon.stop()


#: Texts that callers may try to store.
REFUSED = [
    ("os-volumes", {"volume": {"size": 1, "display_name": "\0"}}),
    ("os-volumes", {"volume": {"size": 1, "metadata": {"a\0": "b"}}}),
    ("os-volumes", {"volume": {"size": 1, "metadata": {"a": "\0"}}}),
    ("os-volumes", {"volume": {"size": 1, "availability_zone": "\0"}}),
    ("os-snapshots", {"snapshot": {"volume_id": 1, "display_description": "\0"}}),
    ("os-volume-types", {"volume_type": {"name": "\0"}}),
    ("os-volume-types/1/extra_specs", {"extra_specs": {"\0": "\0"}}),
    ("servers", {"server": {"name": "\0", "flavorRef": "1", "imageRef": ""}}),
    ("os-volumes", {"volume": {"size": 1, "x": [[[{"y": ["\0"]}]]]}}),
]


@ensureDeferred
async def test_what_callers_say_is_refused(tmp_path: Path, state: str) -> None:
    daemon = Running(tmp_path, state=state)
    for path, body in REFUSED:
        answer = await daemon.call("POST", path, body, token="root")
        assert answer.status == 400, (path, body, answer)
        assert "null character" in answer.json["badRequest"]["message"]
    for asked in ("os-volumes/%00", "os-volumes?display_name=%00", "os-volume-types/%00"):
        assert (await daemon.call("GET", asked)).status in (200, 400, 404)
    # Deep enough to break a recursive reader.
    deep = b'{"volume": ' + b"[" * 1000 + b'"\\u0000"' + b"]" * 1000 + b"}"
    assert (await daemon.call("POST", "os-volumes", deep)).status == 400
    await daemon.stop()
