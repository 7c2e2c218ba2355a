"""Wrong web servers: each import succeeds or fails with a reason, and leaves nothing behind."""

from __future__ import annotations

import gc
import hashlib
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent
from twisted.web.server import Request

from bootvol.errors import BackendFailed
from bootvol.imaging.buffers import BufferPool
from bootvol.interfaces import IVolumeReader
from bootvol.testing.backends import noise
from bootvol.testing.web import BadWeb
from bootvol.worker import retries
from bootvol_plugins.file import FileBackend
from tests.daemons import Running, pause, reactor
from tests.images import GOOD
from tests.servers import Server, serve
from tests.waiting import until

CONTENT = noise(5 * 1024 * 1024 + 17)
MIB = 1024 * 1024
#: Small sizes, so that little content shows every effect.
CONFIG = """
[imports]
buffer_kib = 64
checkpoint_mib = 1
retries = 2

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}images/"]
networks = ["127.0.0.0/8", "::1/128"]
stall = 0.5
"""
VERIFYING = CONFIG.replace("[imports]", '[imports]\nverify = "read-back"')


@pytest.fixture
def web() -> BadWeb:
    """A server with faults by path."""
    return BadWeb(CONTENT, reactor)


@pytest.fixture
def server(web: BadWeb) -> Iterator[Server]:
    """The running server."""
    with serve(web) as server:
        yield server


async def run(folder: Path, server: Server, name: str) -> tuple[Running, int, str]:
    """Import an image; return the daemon, the volume and its status."""
    running = Running(folder, CONFIG.format(url=server.url))
    try:
        number = await running.create(f"{server.url}images/{name}")
        return running, number, await running.until(number, "available", "error")
    except BaseException:
        await running.stop()
        raise


@pytest.mark.parametrize(
    ("name", "requests"),
    [
        ("good", 1),
        ("no-ranges", 1),
        ("no-validator", 1),
        ("drop", 5),
        ("drop-once", 2),
        ("changed", 2),
        ("wrong-range", 3),
        ("stall", 2),
        ("busy", 3),
        ("refuses-rest", 4),
        ("lacks-rest", 4),
        ("portal", 3),
        ("no-tag-portal", 3),
        ("less", 3),
        ("less-at-once", 3),
    ],
)
@ensureDeferred
async def test_gets_over_it(
    tmp_path: Path, web: BadWeb, server: Server, name: str, requests: int
) -> None:
    running, number, status = await run(tmp_path, server, name)
    try:
        assert status == "available", await running.progress(number)
        progress = await running.progress(number)
        assert progress["bytesDone"] == progress["bytesTotal"] == len(CONTENT)
        (file,) = running.files()
        with file.open("rb") as volume:
            assert volume.read(len(web.content) + MIB) == web.content + bytes(MIB)
        assert len(web.requests[name]) == requests
    finally:
        await running.stop()


@ensureDeferred
async def test_what_has_come_is_not_fetched_again(
    tmp_path: Path, web: BadWeb, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_back(_backend: FileBackend, _volume: str) -> None:
        raise BackendFailed("This was not to be read.")

    monkeypatch.setattr(FileBackend, "open_reader", read_back)
    running, _, status = await run(tmp_path, server, "drop")
    await running.stop()
    assert status == "available"
    starts = [int((asked or b"bytes=0-")[6:-1]) for asked in web.requests["drop"]]
    quarter = len(CONTENT) // 4
    for before, after in pairwise(starts):
        # A lost connection loses at most the buffer in progress.
        assert before + quarter - 65536 < after <= before + quarter


@ensureDeferred
async def test_a_wrong_digest_is_told_however_often_connections_break(
    tmp_path: Path, web: BadWeb, server: Server
) -> None:
    web.lists["SHA256SUMS"] = b"0" * 64 + b"  drop\n"
    running, number, status = await run(tmp_path, server, "drop")
    try:
        assert status == "error"
        assert (await running.progress(number))["error"]["code"] == "digest-mismatch"
        # The import starts again from the first byte, only once.
        assert [each is None for each in web.requests["drop"]].count(True) == 2
    finally:
        await running.stop()


@ensureDeferred
async def test_an_image_that_is_replaced_late_while_connections_break(
    tmp_path: Path, web: BadWeb, server: Server
) -> None:
    """The new image may need as many connections as the first: each brings some bytes."""
    fetched = web.render_GET

    def render(request: Request) -> bytes | int:
        if len(web.requests["drop"]) == 3:
            web.replace()
        return fetched(request)

    web.render_GET = render  # type: ignore[method-assign]
    running, number, status = await run(tmp_path, server, "drop")
    try:
        assert status == "available", await running.progress(number)
        (file,) = running.files()
        with file.open("rb") as volume:
            assert volume.read(len(CONTENT)) == web.content != CONTENT
    finally:
        await running.stop()


@ensureDeferred
async def test_a_volume_that_reads_otherwise_than_it_was_written(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(tmp_path, VERIFYING.format(url=server.url))
    opened = FileBackend.open_reader

    async def open_reader(backend: FileBackend, volume: str) -> IVolumeReader:
        (file,) = running.files()
        with file.open("r+b") as disk:
            disk.seek(MIB)
            disk.write(b"rotten")
        return await opened(backend, volume)

    monkeypatch.setattr(FileBackend, "open_reader", open_reader)
    try:
        number = await running.create(f"{server.url}images/good")
        assert await running.until(number, "available", "error") == "error"
        assert (await running.progress(number))["error"]["code"] == "backend-failed"
        assert running.files() == []
    finally:
        await running.stop()


@ensureDeferred
async def test_a_waiting_import_tells_why(tmp_path: Path, server: Server) -> None:
    """The progress has the reason of the last failed attempt, and the log a line.

    Break: `src/bootvol/worker/progress.py`: `self.failure if self.phase is Phase.RETRYING` ->
    `None if self.phase is Phase.RETRYING`.
    """
    with capturedLogs() as logged:
        running = Running(tmp_path, CONFIG.format(url=server.url))
        try:
            number = await running.create(f"{server.url}images/busy")
            shown = await until(
                lambda: running.progress(number), lambda found: found["phase"] == "retrying"
            )
            assert shown["error"]["code"] == "source-failed"
            assert "503" in shown["error"]["message"]
            answer = await running.call("GET", f"os-volumes/{number}/error")
            assert answer.json["error"] == shown["error"]
        finally:
            await running.stop()
    (line,) = [text for each in logged if "attempt" in (text := formatEvent(each))]
    assert line.startswith(f"attempt 1 to fetch the image of volume {number} (tenant ")
    assert "failed: source-failed: " in line
    assert re.search(r" The next attempt begins after \d+ s$", line)


@ensureDeferred
async def test_no_memory_is_held_while_it_waits(tmp_path: Path, server: Server) -> None:
    running = Running(tmp_path, CONFIG.format(url=server.url))
    gc.collect()
    gc.disable()
    try:
        number = await running.create(f"{server.url}images/drop")
        while (await running.progress(number))["phase"] != "retrying":
            await pause(0.02)
        assert not [each for each in gc.get_objects() if isinstance(each, BufferPool)]
    finally:
        gc.enable()
        await running.stop()


@ensureDeferred
async def test_an_image_that_is_no_container_any_more(
    tmp_path: Path, web: BadWeb, server: Server
) -> None:
    """A new fetch starts at the beginning, since a container is copied elsewhere first."""
    web.content = GOOD["qcow2"][1](tmp_path)
    fetched = web.render_GET

    def render(request: Request) -> bytes | int:
        answer = fetched(request)
        if web.requests["good"]:
            web.content = CONTENT
        return answer

    web.render_GET = render  # type: ignore[method-assign]
    running, number, status = await run(tmp_path, server, "good")
    try:
        assert status == "error"
        assert (await running.progress(number))["error"]["code"] == "format-mismatch"
    finally:
        await running.stop()


@pytest.mark.parametrize(
    ("name", "code", "requests"),
    [
        ("short", "image-truncated", 3),
        ("unfinished", "image-truncated", 3),
        ("moody", "image-truncated", 4),
        ("vast", "image-too-large", 1),
        ("nowhere", "source-refused", 1),
        ("always-busy", "source-failed", 3),
        ("loop", "source-refused", 51),
        ("elsewhere", "source-refused", 1),
        ("page", "source-failed", 3),
        ("portal-always", "source-failed", 4),
    ],
)
@ensureDeferred
async def test_gives_up_with_a_reason(
    tmp_path: Path, web: BadWeb, server: Server, name: str, code: str, requests: int
) -> None:
    running, number, status = await run(tmp_path, server, name)
    try:
        assert status == "error"
        assert (await running.progress(number))["error"]["code"] == code
        assert running.files() == []
        assert len(web.requests[name]) == requests
    finally:
        await running.stop()


@pytest.mark.parametrize(
    ("name", "pauses"), [("busy", [(7, 7), (7, 7)]), ("short", [(0.5, 1), (1, 2)])]
)
@ensureDeferred
async def test_a_source_that_fails_is_left_alone_for_a_while(
    tmp_path: Path,
    web: BadWeb,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    pauses: list[tuple[float, float]],
) -> None:
    """The wait is the server's Retry-After, or grows by chance."""
    web.pause = 7
    waited: list[float] = []

    def at_once(_clock: object, seconds: float) -> Deferred[None]:
        waited.append(seconds)
        return succeed(None)

    monkeypatch.setattr(retries, "sleep", at_once)
    running, _, _ = await run(tmp_path, server, name)
    await running.stop()
    assert len(waited) == len(pauses)
    for seconds, (least, most) in zip(waited, pauses, strict=True):
        assert least <= seconds <= most


@ensureDeferred
async def test_a_byte_now_and_then_is_not_enough(
    tmp_path: Path, web: BadWeb, server: Server
) -> None:
    """A server that sends a byte now and then fails the import and the list.

    Break: `plugins/bootvol_plugins/http/stream.py`: `if self._reactor.seconds() >= self._deadline:`
    -> `if not self._deadline:`.
    """
    config = CONFIG + 'checksums = "SHA256SUMS"\n'
    web.lists["SHA256SUMS"] = f"{hashlib.sha256(CONTENT).hexdigest()}  drip\n".encode()
    running = Running(tmp_path, config.format(url=server.url))
    try:
        number = await running.create(f"{server.url}images/drip")
        assert await running.until(number, "available", "error") == "error"
        error = (await running.progress(number))["error"]
        assert error["code"] == "source-failed"
        assert "bytes within 5 seconds" in error["message"]
        assert len(web.requests["drip"]) == 3
        assert running.files() == []
        del web.lists["SHA256SUMS"]
        web.also["SHA256SUMS"] = "drip"
        wanted = {"volume": {"size": 1, "imageRef": f"{server.url}images/good"}}
        answer = await running.call("POST", "os-volumes", wanted)
        assert answer.status == 503
        assert "did not come within" in answer.body.decode()
    finally:
        await running.stop()


@pytest.mark.parametrize(("name", "expected"), [("missing", 404), ("forbidden", 400)])
@ensureDeferred
async def test_what_is_known_at_once(
    tmp_path: Path, server: Server, name: str, expected: int
) -> None:
    running = Running(tmp_path, CONFIG.format(url=server.url))
    try:
        wanted = {"volume": {"size": 1, "imageRef": f"{server.url}images/{name}"}}
        assert (await running.call("POST", "os-volumes", wanted)).status == expected
    finally:
        await running.stop()


@ensureDeferred
async def test_a_list_of_digests_beside_the_image(
    tmp_path: Path, web: BadWeb, server: Server
) -> None:
    running = Running(tmp_path, CONFIG.format(url=server.url) + 'checksums = "SHA256SUMS"\n')
    try:
        right = hashlib.sha256(CONTENT).hexdigest()
        for listed, expected in (
            (f"{right}  good\n", "available"),
            (f"{'0' * 64}  other\n{right.upper()} *good\n", "available"),
            (f"{'0' * 64}  good\n", "error"),
        ):
            web.lists["SHA256SUMS"] = listed.encode()
            number = await running.create(f"{server.url}images/good")
            assert await running.until(number, "available", "error") == expected
        assert (await running.progress(number))["error"]["code"] == "digest-mismatch"
        web.lists["SHA256SUMS"] = f"{right}  other\n".encode()
        wanted = {"volume": {"size": 1, "imageRef": f"{server.url}images/good"}}
        answer = await running.call("POST", "os-volumes", wanted)
        assert answer.status == 400
        assert "does not list the image" in answer.json["badRequest"]["message"]
    finally:
        await running.stop()
