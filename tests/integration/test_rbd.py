"""A whole daemon with volumes in a real Ceph cluster."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs

from bootvol.model import GIB
from bootvol.testing.backends import noise
from tests.ceph import Cluster
from tests.daemons import Running, pause
from tests.processes import cli

MIB = 1024 * 1024
#: With a hole, and with an incomplete block at the end.
CONTENT = noise(3 * MIB) + bytes(5 * MIB) + noise(MIB + 333)


@pytest_twisted.async_yield_fixture
async def on_ceph(tmp_path: Path, ceph_cluster: Cluster) -> AsyncIterator[Running]:
    """A daemon with an image; only images needed by waiting imports are cached."""
    daemon = Running(tmp_path, first=ceph_cluster.table("cache_gib = 0"))
    (daemon.images / "disk").write_bytes(CONTENT)
    yield daemon
    await daemon.stop()


async def name_of(daemon: Running, volume: int) -> str:
    """Return the name of a volume's image."""
    found = await daemon.call("GET", f"os-volumes/{volume}/connection", token="root")
    shown = found.json["connection"]
    assert shown["kind"] == "rbd"
    pool, name = shown["address"].split(":")[1].split("/")
    assert pool == "volumes"
    return str(name)


async def check(cluster: Cluster, daemon: Running, volume: int, size: int = 1) -> None:
    """Check the whole content of a volume."""
    name = await name_of(daemon, volume)

    def read() -> None:
        with cluster.image(name) as image:
            assert image.size() == size * GIB
            assert image.read(0, len(CONTENT)) == CONTENT
            assert not any(image.read(len(CONTENT), MIB))
            assert not any(image.read(size * GIB - MIB, MIB))

    await deferToThread(read)


async def made(daemon: Running, number: int, kind: str = "volume") -> int:
    """Wait until a resource is made; return the id."""
    assert await daemon.until(number, "available", "error", kind=kind) == "available"
    return number


async def delete(daemon: Running, number: int, kind: str = "volume") -> None:
    """Delete a resource, and wait for the end."""
    path = {"volume": "os-volumes", "snapshot": "os-snapshots"}[kind]
    assert (await daemon.call("DELETE", f"{path}/{number}")).status == 202
    assert await daemon.until(number, "gone", "error", kind=kind) == "gone"


async def create(daemon: Running, **wanted: Any) -> int:
    """Create a volume, wait for the end, and return the id."""
    answer = await daemon.call("POST", "os-volumes", {"volume": wanted})
    assert answer.status == 200, answer
    return await made(daemon, answer.json["volume"]["id"])


@ensureDeferred
async def test_volumes_and_snapshots_come_and_go(on_ceph: Running, ceph_cluster: Cluster) -> None:
    first = await create(on_ceph, size=1, imageRef="disk")
    await check(ceph_cluster, on_ceph, first)
    snapshot = await made(on_ceph, await on_ceph.snapshot(first), "snapshot")
    second = await create(on_ceph, size=2, snapshot_id=snapshot)
    await check(ceph_cluster, on_ceph, second, 2)
    blank = await create(on_ceph, size=1)
    # In this order, each volume still depends on a deleted one.
    await delete(on_ceph, first)
    await check(ceph_cluster, on_ceph, second, 2)
    await delete(on_ceph, snapshot, "snapshot")
    await check(ceph_cluster, on_ceph, second, 2)
    await delete(on_ceph, second)
    await delete(on_ceph, blank)
    assert await deferToThread(ceph_cluster.left) == []


@ensureDeferred
async def test_a_chain_of_clones_does_not_grow_for_ever(
    on_ceph: Running, ceph_cluster: Cluster
) -> None:
    """Each volume is made from a snapshot of the previous one; then the previous one is deleted."""
    volume = await create(on_ceph, size=1, imageRef="disk")
    for _ in range(6):
        snapshot = await made(on_ceph, await on_ceph.snapshot(volume), "snapshot")
        await delete(on_ceph, volume)
        volume = await create(on_ceph, size=1, snapshot_id=snapshot)
        await delete(on_ceph, snapshot, "snapshot")
    await check(ceph_cluster, on_ceph, volume)
    name = await name_of(on_ceph, volume)

    def kept() -> list[str]:
        with ceph_cluster.image(name):
            return [each for each in ceph_cluster.left() if each.startswith("rbd_header.")]

    assert len(await deferToThread(kept)) < 8
    await delete(on_ceph, volume)
    assert await deferToThread(ceph_cluster.left) == []


@ensureDeferred
async def test_attaching_tells_where_the_image_is(on_ceph: Running, ceph_cluster: Cluster) -> None:
    volume = await create(on_ceph, size=1, imageRef="disk")
    wanted = {"volumeAttachment": {"volumeId": volume, "device": "/dev/vdb"}}
    path = "servers/7/os-volume_attachments"
    assert (await on_ceph.call("POST", path, wanted)).status == 200
    assert await on_ceph.until(volume, "in-use", "error") == "in-use"
    # A volume in use can be copied, since the copy shows one moment.
    snapshot = await made(on_ceph, await on_ceph.snapshot(volume, force=True), "snapshot")
    assert (await on_ceph.call("DELETE", f"os-volumes/{volume}")).status == 400
    assert (await on_ceph.call("DELETE", f"{path}/{volume}")).status == 202
    await made(on_ceph, volume)
    await delete(on_ceph, volume)
    await delete(on_ceph, snapshot, "snapshot")
    assert await deferToThread(ceph_cluster.left) == []


@ensureDeferred
async def test_volumes_outlive_the_daemon(
    on_ceph: Running, tmp_path: Path, ceph_cluster: Cluster
) -> None:
    volume = await create(on_ceph, size=1, imageRef="disk")
    await on_ceph.stop()
    again = Running(tmp_path, first=ceph_cluster.table())
    try:
        await check(ceph_cluster, again, volume)
        # From now on, the cache keeps each imported image: the second volume is a clone.
        first = await create(again, size=1, imageRef="disk")
        second = await create(again, size=1, imageRef="disk")
        await check(ceph_cluster, again, second)
        assert [each for each in ceph_cluster.images() if each.startswith("golden-")]
        for each in (volume, first, second):
            await delete(again, each)
    finally:
        await again.stop()
    # Without room in the cache, the cached image goes with the next import.
    last = Running(tmp_path, first=ceph_cluster.table("cache_gib = 0"))
    try:
        await delete(last, await create(last, size=1, imageRef="disk"))
    finally:
        await last.stop()
    assert await deferToThread(ceph_cluster.left) == []


@ensureDeferred
async def test_another_pool_is_told_at_the_start_and_not_touched(
    on_ceph: Running, tmp_path: Path, ceph_cluster: Cluster
) -> None:
    volume = await create(on_ceph, size=1)
    name = await name_of(on_ceph, volume)
    await on_ceph.stop()
    remembered = "SELECT backend, identity FROM stores WHERE identity LIKE '%/%'"
    with closing(sqlite3.connect(tmp_path / "bootvol.db")) as db, db:
        ((backend, identity),) = db.execute(remembered).fetchall()
        db.execute("UPDATE stores SET identity = 'lost' WHERE backend = ?", [backend])
    with capturedLogs() as logged:
        again = Running(tmp_path, first=ceph_cluster.table())
        while not (told := [each for each in logged if each["log_level"] is LogLevel.error]):
            await pause(0.05)
    assert [each["name"] for each in told] == [backend]
    assert identity in str(told[0]["error"])
    await again.call("DELETE", f"os-volumes/{volume}")
    error = (await again.call("GET", f"os-volumes/{volume}/error")).json["error"]
    assert error["code"] == "wrong-store"
    await again.stop()
    assert await deferToThread(ceph_cluster.images) == [name]
    forgotten = await deferToThread(
        cli, "db", "forget-store", "--config", str(again.config), backend
    )
    assert forgotten.returncode == 0, forgotten.stderr
    accepted = Running(tmp_path, first=ceph_cluster.table())
    assert await accepted.until(volume, "gone", "error") == "gone"
    await accepted.stop()
