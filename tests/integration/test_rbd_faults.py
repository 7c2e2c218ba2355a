"""Volumes during real faults of a real Ceph cluster.

The API answers all the time, and everything recovers with the cluster.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bootvol.errors import BackendFailed
from bootvol.model import GIB
from bootvol.testing.backends import noise, read
from bootvol_plugins.rbd.backend import RbdBackend
from bootvol_plugins.rbd.bindings import load
from bootvol_plugins.rbd.options import RbdOptions
from tests import ceph
from tests.ceph import Cluster
from tests.daemons import Running, pause, reactor
from tests.servers import Server, only_looks, serve
from tests.waiting import block_until, until

MIB = 1024 * 1024
#: Bytes that arrive before the fault, and after it.
HALF = 8 * MIB
CONTENT = noise(2 * HALF)
#: Timeout of the cluster in seconds, for tests that reach the timeout.
SHORT = 2


class Halves(Resource):
    """Serves the first half of an image at once, and the rest at the test's command."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[Request] = []

    def render_HEAD(self, request: Request) -> bytes:
        """State that the image exists, without its length."""
        return b""

    def render_GET(self, request: Request) -> bytes | int:
        """Send the first part."""
        if only_looks(request):
            return self.render_HEAD(request)
        request.write(CONTENT[:HALF])
        self._waiting.append(request)
        return NOT_DONE_YET

    @property
    def asked(self) -> int:
        """The number of requests that wait for the rest."""
        return len(self._waiting)

    def finish(self) -> None:
        """Send the rest."""
        request = self._waiting.pop()
        request.write(CONTENT[HALF:])
        request.finish()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster for faults only."""
    with ceph.cluster() as cluster:
        yield cluster


@pytest.fixture
def halves() -> Halves:
    """An image in two halves."""
    return Halves()


@pytest.fixture
def server(halves: Halves) -> Iterator[Server]:
    """The running server."""
    with serve(halves) as server:
        yield server


class Faulty(Running):
    """A daemon with a cluster that is about to fail."""

    def __init__(self, folder: Path, server: Server, cluster: Cluster, timeout: int) -> None:
        self._url = f"{server.url}images/disk"
        self._cluster = cluster
        source = f"""
[[sources]]
name = "web"
plugin = "http"
allow = ["{server.url}images/"]
networks = ["127.0.0.0/8", "::1/128"]
checksums = "none"

[imports]
buffer_kib = 1024
"""
        super().__init__(folder, source, first=cluster.table("cache_gib = 0", timeout))
        (self.images / "whole").write_bytes(CONTENT)

    async def halfway(self) -> int:
        """Start an import; return the volume after the first half is written."""
        number = await self.create(self._url)
        await until(lambda: self.progress(number), lambda found: found["bytesDone"] == HALF)
        return number

    async def made(self, number: int) -> int:
        """Wait until a volume is made, and check its content."""
        assert await self.until(number, "available", "error") == "available"
        found = await self.call("GET", f"os-volumes/{number}/connection", token="root")
        await deferToThread(self._check, found.json["connection"]["address"])
        return number

    def _check(self, address: str) -> None:
        with self._cluster.image(address.split(":")[1].split("/")[1]) as image:
            assert image.read(0, len(CONTENT)) == CONTENT
            assert not any(image.read(len(CONTENT), MIB))

    async def reason(self, number: int, kind: str = "volume") -> dict[str, Any]:
        """Wait until a resource is in error; return the reason."""
        assert await self.until(number, "available", "error", kind=kind) == "error"
        path = {"volume": "os-volumes", "snapshot": "os-snapshots"}[kind]
        error = (await self.call("GET", f"{path}/{number}/error")).json["error"]
        assert error["remedy"]
        return dict(error)

    async def delete(self, number: int, kind: str = "volume") -> None:
        """Delete a resource, and wait for the end."""
        path = {"volume": "os-volumes", "snapshot": "os-snapshots"}[kind]
        for _ in range(100):
            assert (await self.call("DELETE", f"{path}/{number}")).status == 202
            if await self.until(number, "gone", "error", kind=kind) == "gone":
                return
            # The cluster has recovered only just now.
            await pause(0.1)
        raise AssertionError("it is not deleted")

    async def is_well(self, *left: int) -> None:
        """Check that the given volumes can be deleted, and that a new import succeeds."""
        for number in left:
            await self.delete(number)
        for _ in range(100):
            number = await self.create("whole")
            if await self.until(number, "available", "error") == "available":
                break
            # The cluster has recovered only just now, and parts of it do not know yet.
            assert (await self.reason(number))["retryable"]
            await self.delete(number)
            await pause(0.1)
        await self.delete(await self.made(number))
        # No request that timed out was executed after the image's deletion.
        assert await deferToThread(self._cluster.left) == []


@pytest.fixture
def timeout() -> int:
    """Timeout of the cluster in seconds."""
    return 30


@pytest_twisted.async_yield_fixture
async def faulty(
    tmp_path: Path, server: Server, cluster: Cluster, timeout: int
) -> AsyncIterator[Faulty]:
    """A daemon with the cluster."""
    daemon = Faulty(tmp_path, server, cluster, timeout)
    yield daemon
    await daemon.stop()


@contextmanager
def stopped(cluster: Cluster, name: str) -> Iterator[None]:
    """Stop a daemon of the cluster until the end of the block."""
    cluster.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        cluster.signal(name, signal.SIGCONT)


async def answers(daemon: Faulty, number: int) -> None:
    """Check that the API answers continuously."""
    for _ in range(20):
        assert await daemon.status(number) == "downloading"
        await pause(0.05)


@ensureDeferred
async def test_an_osd_that_pauses(cluster: Cluster, faulty: Faulty, halves: Halves) -> None:
    volume = await faulty.halfway()
    with stopped(cluster, "osd.0"):
        halves.finish()
        await answers(faulty, volume)
    await faulty.is_well(await faulty.made(volume))


@ensureDeferred
async def test_an_osd_that_dies_and_comes_back(
    cluster: Cluster, faulty: Faulty, halves: Halves
) -> None:
    volume = await faulty.halfway()
    cluster.kill("osd.0")
    halves.finish()
    await answers(faulty, volume)
    cluster.start_osd()
    await faulty.is_well(await faulty.made(volume))


@pytest.mark.parametrize("timeout", [SHORT])
@ensureDeferred
async def test_an_osd_that_pauses_for_too_long(
    cluster: Cluster, faulty: Faulty, halves: Halves
) -> None:
    volume = await faulty.halfway()
    with stopped(cluster, "osd.0"):
        halves.finish()
        await answers(faulty, volume)
        error = await faulty.reason(volume)
        assert error["code"] == "backend-failed"
        assert "does not answer" in error["message"]
    await faulty.is_well(volume)


@pytest.mark.parametrize("closed", [True, False])
@ensureDeferred
async def test_a_write_that_timed_out_is_not_done_later(cluster: Cluster, closed: bool) -> None:
    """The write is still on its way when the same image is written anew."""
    options = RbdOptions.model_validate(cluster.options(timeout=SHORT), strict=False)
    backend = RbdBackend("ceph", options, load(), reactor)
    old, new = memoryview(bytearray(noise(4 * MIB))), memoryview(bytearray(noise(4 * MIB, 1)))
    places = [number * len(old) for number in range(16)]
    try:
        await backend.allocate("volume-1", len(places) * len(old))
        writer = await backend.open_writer("volume-1")
        await writer.write(0, old)
        with stopped(cluster, "osd.0"):
            late = [Deferred.fromCoroutine(writer.write(place, old)) for place in places]
            for write in late:
                with pytest.raises(BackendFailed, match="does not answer in time"):
                    await write
            if closed:
                await writer.close()
        again = await backend.open_writer("volume-1")
        for place in reversed(places):
            await again.write(place, new)
        if not closed:
            with pytest.raises(BackendFailed, match="the cluster has blocked this client"):
                await writer.write(0, old)
            await writer.close()
        await again.flush()
        await again.close()
        for place in places:
            assert await read(backend, "volume-1", place, len(new)) == new
        await backend.delete("volume-1")
    finally:
        await backend.close()
    assert await deferToThread(cluster.left) == []


@ensureDeferred
async def test_an_image_that_somebody_made_smaller(cluster: Cluster) -> None:
    options = RbdOptions.model_validate(cluster.options(), strict=False)
    backend = RbdBackend("ceph", options, load(), reactor)
    try:
        await backend.allocate("volume-1", 4 * MIB)
        writer = await backend.open_writer("volume-1")
        await writer.write(0, memoryview(bytearray(noise(4 * MIB))))
        await writer.flush()
        with cluster.image("volume-1") as image:
            await deferToThread(image.resize, MIB)
        with pytest.raises(BackendFailed, match="volume-1 on backend ceph has lost bytes"):
            await writer.flush()
        await writer.close()
        await backend.delete("volume-1")
    finally:
        await backend.close()


@ensureDeferred
async def test_a_monitor_that_pauses(cluster: Cluster, faulty: Faulty, halves: Halves) -> None:
    volume = await faulty.halfway()
    with stopped(cluster, "mon.a"):
        halves.finish()
        await faulty.made(volume)
    await faulty.is_well(volume)


@pytest.mark.parametrize("timeout", [SHORT])
@ensureDeferred
async def test_a_cluster_that_is_not_there_yet(
    cluster: Cluster, faulty: Faulty, tmp_path: Path, server: Server, timeout: int
) -> None:
    await faulty.is_well()
    await faulty.stop()
    with stopped(cluster, "mon.a"):
        again = Faulty(tmp_path, server, cluster, timeout)
        try:
            volume = await again.create("whole")
            error = await again.reason(volume)
            assert error["code"] == "backend-failed"
            assert error["message"].startswith("Connecting to the cluster of backend ceph failed")
        finally:
            cluster.signal("mon.a", signal.SIGCONT)
            await again.is_well(volume)
            await again.stop()


@pytest.mark.parametrize("timeout", [SHORT])
@ensureDeferred
async def test_a_new_cluster_that_is_not_there_yet(
    cluster: Cluster, tmp_path: Path, server: Server, timeout: int
) -> None:
    """A cluster is used once its identity is known; volumes wait for that moment."""
    with stopped(cluster, "mon.a"):
        daemon = Faulty(tmp_path, server, cluster, timeout)
        volume = await daemon.create("whole")
        await pause(2 * timeout)
        assert await daemon.status(volume) == "creating"
    try:
        await daemon.is_well(await daemon.made(volume))
    finally:
        await daemon.stop()


@ensureDeferred
async def test_a_client_that_is_shut_out(cluster: Cluster, faulty: Faulty, halves: Halves) -> None:
    """Another daemon does so to the client of a lost claim; the client's other work goes on."""
    others = [await faulty.made(await faulty.create("whole")) for _ in range(2)]
    snapshot = await faulty.snapshot(others[0])
    assert await faulty.until(snapshot, "available", "error", kind="snapshot") == "available"
    before = set(await deferToThread(cluster.images))
    volume = await faulty.halfway()

    def shut_out() -> None:
        (name,) = set(cluster.images()) - before
        with cluster.image(name) as image:
            (owner,) = image.lock_get_owners()
        cluster.command("osd blocklist", blocklistop="add", addr=owner["owner"])

    await deferToThread(shut_out)
    for path in f"os-volumes/{others[0]}", f"os-snapshots/{snapshot}":
        assert (await faulty.call("DELETE", path)).status == 202
    copied = await faulty.snapshot(others[1])
    assert await faulty.until(others[0], "gone", "error") == "gone"
    assert await faulty.until(snapshot, "gone", "error", kind="snapshot") == "gone"
    assert await faulty.until(copied, "available", "error", kind="snapshot") == "available"
    halves.finish()
    # The import begins again.
    await until(lambda: halves.asked)
    halves.finish()
    await faulty.delete(copied, "snapshot")
    await faulty.is_well(await faulty.made(volume), others[1])


@ensureDeferred
async def test_an_image_that_somebody_deleted(cluster: Cluster, faulty: Faulty) -> None:
    volume = await faulty.made(await faulty.create("whole"))
    (name,) = await deferToThread(cluster.images)
    await deferToThread(cluster.remove, name)
    snapshot = await faulty.snapshot(volume)
    error = await faulty.reason(snapshot, "snapshot")
    assert error["message"] == f"{name} on backend ceph does not exist."
    await faulty.delete(snapshot, "snapshot")
    await faulty.is_well(volume)


@ensureDeferred
async def test_an_image_that_is_in_use_elsewhere(cluster: Cluster, faulty: Faulty) -> None:
    volume = await faulty.made(await faulty.create("whole"))
    (name,) = await deferToThread(cluster.images)
    with cluster.image(name) as image:
        assert (await faulty.call("DELETE", f"os-volumes/{volume}")).status == 202
        await pause(0.5)
        assert await faulty.status(volume) == "deleting"
        assert image.size() == GIB
    assert await faulty.until(volume, "gone", "error") == "gone"
    await faulty.is_well()


@ensureDeferred
async def test_what_another_daemon_has_open_waits(cluster: Cluster, faulty: Faulty) -> None:
    """Another daemon may clone the same volume, or was killed during that.

    The cluster counts a killed client as alive for a while.
    """
    volume = await faulty.made(await faulty.create("whole"))
    (name,) = await deferToThread(cluster.images)
    with cluster.image(name):
        snapshot = await faulty.snapshot(volume)
        await pause(0.5)
        assert await faulty.status(snapshot, "snapshot") == "creating"
    assert await faulty.until(snapshot, "available", "error", kind="snapshot") == "available"
    attachments = "servers/7/os-volume_attachments"
    with cluster.image(name):
        wanted = {"volumeAttachment": {"volumeId": volume}}
        assert (await faulty.call("POST", attachments, wanted)).status == 200
        await pause(0.5)
        assert await faulty.status(volume) == "attaching"
    assert await faulty.until(volume, "in-use", "available", "error") == "in-use"
    assert (await faulty.call("DELETE", f"{attachments}/{volume}")).status == 202
    assert await faulty.until(volume, "available", "error") == "available"
    await faulty.delete(snapshot, "snapshot")
    await faulty.is_well(volume)


@ensureDeferred
async def test_a_pool_without_room(cluster: Cluster, faulty: Faulty) -> None:
    quota = {"pool": ceph.POOL, "field": "max_bytes"}
    await deferToThread(cluster.command, "osd pool set-quota", **quota, val=str(GIB - 1))
    try:
        volume = await faulty.create("whole")
        error = await faulty.reason(volume)
        assert error["code"] == "no-space"
        assert error["message"].startswith("Backend ceph has no room for volume-")
        assert error["message"].endswith(": its pool is smaller.")
    finally:
        await deferToThread(cluster.command, "osd pool set-quota", **quota, val="0")
    await faulty.is_well(volume)


@ensureDeferred
async def test_a_cluster_that_fills_up(cluster: Cluster, faulty: Faulty, halves: Halves) -> None:
    """A pool without a trash is a pool without earlier removals."""

    def without_trash() -> None:
        with cluster.pool() as pool, suppress(cluster.bindings.rados.ObjectNotFound):
            pool.remove_object("rbd_trash")

    await deferToThread(without_trash)
    volume = await faulty.halfway()

    def is_full() -> bool:
        return "POOL_FULL" in cluster.command("health")["checks"]

    def fill(ratio: float) -> None:
        for kind in ("full", "backfillfull", "nearfull"):
            cluster.command(f"osd set-{kind}-ratio", ratio=ratio)
        block_until(lambda: is_full() == (ratio < 0.5))

    await deferToThread(fill, 0.001)
    try:
        halves.finish()
        error = await faulty.reason(volume)
        assert error["code"] == "no-space"
        assert error["message"].endswith("No space left on device.")
        # Deleting works nevertheless: no other way makes room again.
        await faulty.delete(volume)
        refused = await faulty.create("whole")
        assert (await faulty.reason(refused))["code"] == "no-space"
    finally:
        await deferToThread(fill, 0.95)
    await faulty.is_well(refused)
