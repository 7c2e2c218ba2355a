"""Backends and sources removed from the configuration, and restored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import capturedLogs
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bootvol.testing.backends import noise
from bootvol.worker import stores
from tests.daemons import Running, pause
from tests.servers import Server, serve

MIB = 1024 * 1024
CONTENT = noise(4 * MIB)
SECOND = """
[[backends]]
name = "second"
plugin = "file"
directory = "second"
"""


class Slow(Resource):
    """Serves half of an image, and later the rest.

    :ivar whole: True once the rest may be served.
    """

    isLeaf = True
    whole = False

    def render_HEAD(self, request: Request) -> bytes:
        """State that the image exists."""
        return b""

    def render_GET(self, request: Request) -> int:
        """Send the available part."""
        request.setHeader(b"Content-Length", b"%d" % len(CONTENT))
        if self.whole:
            request.write(CONTENT)
            request.finish()
        else:
            request.write(CONTENT[: MIB * 2])
        return NOT_DONE_YET


@pytest.fixture
def slow() -> Slow:
    """An image with only one half available."""
    return Slow()


@pytest.fixture
def server(slow: Slow) -> Iterator[Server]:
    """The running server."""
    with serve(slow) as server:
        yield server


async def reason(daemon: Running, number: int, kind: str = "os-volumes") -> Any:
    """Return the reason of a waiting or failed volume."""
    return (await daemon.call("GET", f"{kind}/{number}/error")).json["error"]


@ensureDeferred
async def test_a_backend_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    daemon = Running(tmp_path, first=SECOND)
    try:
        kept, removed = await daemon.create(), await daemon.create()
        for number in (kept, removed):
            await daemon.until(number, "available")
        snapshot = await daemon.snapshot(kept)
        await daemon.until(snapshot, "available", kind="snapshot")
    finally:
        await daemon.stop()
    with capturedLogs() as logs:
        daemon = Running(tmp_path)
        try:
            assert (await daemon.call("DELETE", f"os-volumes/{removed}")).status == 202
            assert (await daemon.call("DELETE", f"os-snapshots/{snapshot}")).status == 202
            own = await daemon.create()
            await daemon.until(own, "available")
            # By now the worker has looked for all possible work.
            assert await daemon.status(removed) == "deleting"
            assert await daemon.status(snapshot, "snapshot") == "deleting"
            assert await daemon.status(kept) == "available"
            for number in (kept, removed):
                assert (await reason(daemon, number))["code"] == "backend-gone"
            why = await reason(daemon, snapshot, "os-snapshots")
            assert (
                why["message"] == "The backend second is not in the configuration of this daemon."
            )
            assert "put the backend back" in why["remedy"]
            assert await reason(daemon, own) is None
            asked = await daemon.call("GET", f"os-volumes/{kept}/connection", token="root")
            assert asked.status == 503
            assert asked.json["serviceUnavailable"]["message"] == why["message"]
        finally:
            await daemon.stop()
    told = [each for each in logs if each.get("name") == "second"]
    assert [each["lies"] for each in told] == ["2 volumes and 1 snapshot"]
    daemon = Running(tmp_path, first=SECOND)
    try:
        await daemon.until(removed, "gone")
        await daemon.until(snapshot, "gone", kind="snapshot")
        assert await reason(daemon, kept) is None
    finally:
        await daemon.stop()


@ensureDeferred
async def test_a_volume_waits_for_the_backend_of_its_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A type may place the new volume on another backend than the snapshot."""
    monkeypatch.setattr(stores, "POLL", 0.3)
    daemon = Running(tmp_path, first=SECOND)
    volume = await daemon.create()
    await daemon.until(volume, "available")
    snapshot = await daemon.snapshot(volume)
    await daemon.until(snapshot, "available", kind="snapshot")
    kind = {"volume_type": {"name": "here", "extra_specs": {"volume_backend_name": "local"}}}
    assert (await daemon.call("POST", "os-volume-types", kind, "root")).status == 200
    await daemon.stop()
    daemon = Running(tmp_path)
    wanted = {"size": 1, "snapshot_id": snapshot, "volume_type": "here"}
    answer = await daemon.call("POST", "os-volumes", {"volume": wanted})
    made = answer.json["volume"]["id"]
    own = await daemon.create()
    await daemon.until(own, "available")
    assert await daemon.status(made) == "creating"
    assert (await reason(daemon, made))["code"] == "backend-gone"
    await daemon.stop()
    daemon = Running(tmp_path, first=SECOND)
    assert await daemon.until(made, "available", "error") == "available"
    assert await reason(daemon, made) is None
    # The store of the snapshot has changed, the store of the new volume has not.
    shutil.move(tmp_path / "second", tmp_path / "away")
    (tmp_path / "second").mkdir()
    answer = await daemon.call("POST", "os-volumes", {"volume": wanted})
    made = answer.json["volume"]["id"]
    while (why := await reason(daemon, made)) is None:
        await pause(0.05)
    assert why["code"] == "wrong-store"
    other = await daemon.call("POST", "os-volumes", {"volume": {"size": 1, "volume_type": "here"}})
    assert await daemon.until(other.json["volume"]["id"], "available", "error") == "available"
    assert (await reason(daemon, made))["code"] == "wrong-store"
    (tmp_path / "second").rmdir()
    shutil.move(tmp_path / "away", tmp_path / "second")
    assert await daemon.until(made, "available", "error") == "available"
    await daemon.stop()


@ensureDeferred
async def test_a_source_that_is_gone_and_comes_back(
    tmp_path: Path, slow: Slow, server: Server
) -> None:
    web = f"""
[[sources]]
name = "web"
plugin = "http"
allow = ["{server.url}"]
networks = ["127.0.0.0/8", "::1/128"]

[imports]
buffer_kib = 256
"""
    daemon = Running(tmp_path, web)
    try:
        number = await daemon.create(f"{server.url}disk")
        while not (await daemon.progress(number))["bytesDone"]:
            await pause(0.05)
    finally:
        await daemon.stop()
    with capturedLogs() as logs:
        daemon = Running(tmp_path)
        try:
            (daemon.images / "other").write_bytes(CONTENT)
            await daemon.until(await daemon.create("other"), "available")
            shown = await daemon.progress(number)
            assert shown["error"]["code"] == "source-gone"
            assert shown["position"] is None
            assert shown["bytesPerSecond"] == 0
            assert await reason(daemon, number) == shown["error"]
            assert await daemon.status(number) == "downloading"
        finally:
            await daemon.stop()
    told = [each for each in logs if each.get("name") == "web"]
    assert [each["imports"] for each in told] == ["1 volume is to be made"]
    slow.whole = True
    daemon = Running(tmp_path, web)
    try:
        assert await daemon.until(number, "available", "error") == "available"
        assert await reason(daemon, number) is None
    finally:
        await daemon.stop()


@ensureDeferred
async def test_the_start_says_what_starts(tmp_path: Path) -> None:
    with capturedLogs() as logs:
        daemon = Running(tmp_path, first=SECOND)
        try:
            await daemon.until(await daemon.create(), "available")
        finally:
            await daemon.stop()
    (started,) = (each for each in logs if "starts: configuration" in (each["log_format"] or ""))
    assert started["file"] == str(daemon.config)
    assert started["database"] == f"sqlite:///{tmp_path}/bootvol.db"
    assert (started["backends"], started["sources"]) == (["second", "local"], ["images"])
    assert started["listen"] == [f"tcp:{daemon.port}:interface=127.0.0.1"]
    work = [each["work"] for each in logs if "work" in each]
    assert work == ["none"]
    # The log has the volume's id and the request for later failures.
    (made,) = (each for each in logs if "is to be made" in (each["log_format"] or ""))
    assert made["request_id"].startswith("req-")
