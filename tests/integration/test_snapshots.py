"""Snapshots keep the content of a volume, and outlive it; volumes are made from snapshots."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from bootvol.model import GIB
from bootvol.testing.backends import noise
from tests.daemons import OTHER_TENANT, Running
from tests.disks import disk

MIB = 1024 * 1024
CONTENT = noise(5 * MIB + 123)
#: The first bytes of a disk; the file is sparse.
SPACE = 6 * GIB
PLAIN = {
    "createdAt", "displayDescription", "displayName", "id", "size", "status", "volumeId",
}  # fmt: skip


@pytest.fixture(params=["", "xfs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The folder of a daemon's volumes: on the tests' file system, or on one with clones."""
    if not request.param:
        yield tmp_path
        return
    with disk(tmp_path, SPACE, request.param):
        yield tmp_path


@asynccontextmanager
async def daemon(folder: Path) -> AsyncIterator[Running]:
    """A daemon with an image."""
    running = Running(folder)
    (running.images / "disk").write_bytes(CONTENT)
    try:
        yield running
    finally:
        await running.stop()


def bytes_of(running: Running, prefix: str) -> list[bytes]:
    """Return the first bytes of each file of a kind."""
    held = []
    for path in running.files():
        if path.name.startswith(prefix):
            with path.open("rb") as file:
                held.append(file.read(len(CONTENT) + 4096))
    return held


@ensureDeferred
async def test_a_snapshot_and_a_volume_made_of_it(folder: Path) -> None:
    async with daemon(folder) as running:
        volume = await running.create("disk")
        await running.until(volume, "available")
        names = {"display_name": "s", "display_description": "of v"}
        answer = await running.call(
            "POST", "os-snapshots", {"snapshot": {"volume_id": str(volume), **names}}
        )
        shown = answer.json["snapshot"]
        assert answer.status == 200
        assert shown.keys() == PLAIN
        assert (shown["status"], shown["volumeId"], shown["size"]) == ("creating", volume, 1)
        assert (shown["displayName"], shown["displayDescription"]) == ("s", "of v")
        await running.until(shown["id"], "available", kind="snapshot")
        for path in "os-snapshots", "os-snapshots/detail", f"os-snapshots/{shown['id']}.json":
            found = (await running.call("GET", path)).json
            assert (found.get("snapshots") or [found["snapshot"]]) == [
                {**shown, "status": "available"}
            ]
        assert (await running.call("GET", f"os-snapshots/{shown['id']}/error")).json == {
            "error": None
        }
        # Later writes to the volume do not change its snapshot.
        assert (await running.call("DELETE", f"os-volumes/{volume}")).status == 202
        await running.until(volume, "gone")
        wanted = {"snapshot_id": shown["id"], "size": "2"}
        answer = await running.call("POST", "os-volumes", {"volume": wanted})
        made = answer.json["volume"]
        assert (answer.status, made["size"], made["snapshotId"]) == (200, 2, str(shown["id"]))
        await running.until(made["id"], "available")
        assert bytes_of(running, "volume-") == [CONTENT.ljust(len(CONTENT) + 4096, b"\0")]
        assert (running.files()[-1].stat().st_size) == 2 * GIB
        # The volume has no image.
        assert (await running.call("GET", f"hp-bootable-volumes/{made['id']}")).status == 404
        assert (await running.call("DELETE", f"os-snapshots/{shown['id']}")).status == 202
        await running.until(shown["id"], "gone", kind="snapshot")
        assert (await running.call("GET", f"os-snapshots/{shown['id']}")).status == 404
        assert (await running.call("DELETE", f"os-volumes/{made['id']}")).status == 202
        await running.until(made["id"], "gone")
        assert [path for path in running.files() if not path.name.startswith("golden")] == []


@ensureDeferred
async def test_a_snapshot_is_of_one_moment(folder: Path) -> None:
    async with daemon(folder) as running:
        volume = await running.create("disk")
        await running.until(volume, "available")
        snapshot = await running.snapshot(volume)
        await running.until(snapshot, "available", kind="snapshot")
        (file,) = (path for path in running.files() if path.name.startswith("volume-"))
        with file.open("r+b") as written:
            written.write(b"later")
        (held,) = bytes_of(running, "snapshot-")
        assert held[: len(CONTENT)] == CONTENT


@ensureDeferred
async def test_what_depends_on_one_another_waits_its_turn(folder: Path) -> None:
    async with daemon(folder) as running:
        volume = await running.create("disk")
        await running.until(volume, "available")
        # All at once: each request is accepted, and none sees a half-done one.
        snapshots = [await running.snapshot(volume) for _ in range(3)]
        assert (await running.call("DELETE", f"os-volumes/{volume}")).status == 202
        for number in snapshots:
            await running.until(number, "available", kind="snapshot")
        await running.until(volume, "gone")
        assert len(bytes_of(running, "snapshot-")) == 3
        assert {held[: len(CONTENT)] for held in bytes_of(running, "snapshot-")} == {CONTENT}
        made = [await running.call("POST", "os-volumes", _from(snapshots[0])) for _ in range(3)]
        assert (await running.call("DELETE", f"os-snapshots/{snapshots[0]}")).status == 202
        for answer in made:
            await running.until(answer.json["volume"]["id"], "available")
        await running.until(snapshots[0], "gone", kind="snapshot")
        assert {held[: len(CONTENT)] for held in bytes_of(running, "volume-")} == {CONTENT}


def _from(snapshot: int) -> Any:
    return {"volume": {"snapshot_id": snapshot, "size": None}}


@ensureDeferred
async def test_restarts_lose_nothing(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        volume = await running.create("disk")
        await running.until(volume, "available")
        snapshot = await running.snapshot(volume)
    async with daemon(tmp_path) as running:
        await running.until(snapshot, "available", kind="snapshot")
        assert [held[: len(CONTENT)] for held in bytes_of(running, "snapshot-")] == [CONTENT]


#: The uuid of no volume of the tenant, and the answer to an invalid id.
FOREIGN = "6f1b7f6c-2f6b-4d1c-9f70-4e1c3f8f1d11"
NOT_FOUND = (404, "The resource could not be found.")
SERVER = {"name": "x", "flavorRef": "1"}
DISK = {"device_name": "vda"}


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "os-snapshots", {}, (422, "Unable to process the contained instructions")),
        (
            "POST",
            "os-snapshots",
            {"snapshot": {"display_name": "x"}},
            (400, "Invalid input received: volume_id is required"),
        ),
        (
            "POST",
            "os-snapshots",
            {"snapshot": {"volume_id": 99}},
            (404, "Volume 99 could not be found."),
        ),
        (
            "POST",
            "os-snapshots",
            {"snapshot": {"volume_id": FOREIGN}},
            (404, f"Volume {FOREIGN} could not be found."),
        ),
        (
            "POST",
            "snapshots",
            {"snapshot": {"volume_id": FOREIGN}},
            (404, f"Volume {FOREIGN} could not be found."),
        ),
        *(
            ("POST", path, {"snapshot": {"volume_id": volume}}, NOT_FOUND)
            for path in ("os-snapshots", "snapshots")
            for volume in (-1, "-1", "x", True)
        ),
        (
            "POST",
            "servers",
            {"server": {**SERVER, "block_device_mapping": [{**DISK, "volume_id": FOREIGN}]}},
            (400, f"Block Device Mapping is Invalid: failed to get volume {FOREIGN}."),
        ),
        (
            "POST",
            "servers",
            {"server": {**SERVER, "block_device_mapping": [{**DISK, "volume_id": "x"}]}},
            (400, "Block Device Mapping is Invalid: failed to get volume."),
        ),
        (
            "POST",
            "os-snapshots",
            {"snapshot": {"volume_id": 1, "force": "x"}},
            (400, "Invalid value 'x' for force. "),
        ),
        ("GET", "os-snapshots/99", None, (404, "The resource could not be found.")),
        ("GET", "os-snapshots/x", None, (404, "The resource could not be found.")),
        ("GET", "os-snapshots?limit=-1", None, (400, "limit param must be positive")),
        ("DELETE", "os-snapshots/99", None, (404, "The resource could not be found.")),
    ],
)
@ensureDeferred
async def test_faults(
    running: Running, method: str, path: str, body: Any, expected: tuple[int, str]
) -> None:
    answer = await running.call(method, path, body)
    (fault,) = answer.json.values()
    assert (answer.status, fault["code"], fault["message"]) == (
        expected[0], expected[0], expected[1],
    )  # fmt: skip


@ensureDeferred
async def test_what_is_not_ready_is_refused(running: Running) -> None:
    (running.images / "bad").write_bytes(b"<!DOCTYPE html><html></html>")
    volume = await running.create("bad")
    await running.until(volume, "error")
    answer = await running.call("POST", "os-snapshots", {"snapshot": {"volume_id": volume}})
    assert answer.status == 400
    assert answer.json["badRequest"]["message"] == "Volume status must be available"


@ensureDeferred
async def test_a_smaller_volume_than_the_snapshot_is_refused(running: Running) -> None:
    volume = await running.create(size=2)
    await running.until(volume, "available")
    snapshot = await running.snapshot(volume)
    await running.until(snapshot, "available", kind="snapshot")
    answer = await running.call(
        "POST", "os-volumes", {"volume": {"size": 1, "snapshot_id": snapshot}}
    )
    assert answer.status == 400
    assert "must not be less than the snapshot's" in answer.json["badRequest"]["message"]


@ensureDeferred
async def test_another_tenant_sees_nothing(running: Running) -> None:
    volume = await running.create()
    await running.until(volume, "available")
    snapshot = await running.snapshot(volume)
    base = f"/v1.1/{OTHER_TENANT}"
    listed = await running.request("GET", f"{base}/os-snapshots", token="bob")
    assert listed.json == {"snapshots": []}
    for method in "GET", "DELETE":
        answer = await running.request(method, f"{base}/os-snapshots/{snapshot}", token="bob")
        assert answer.status == 404
    for path, body in (
        ("os-snapshots", {"snapshot": {"volume_id": volume}}),
        ("os-volumes", {"volume": {"size": 1, "snapshot_id": snapshot}}),
    ):
        answer = await running.request("POST", f"{base}/{path}", body, token="bob")
        assert answer.status == 404


@ensureDeferred
async def test_the_quota_of_snapshots_is_exact(tmp_path: Path) -> None:
    running = Running(tmp_path, "[quota]\nsnapshots = 3")
    try:
        volume = await running.create()
        await running.until(volume, "available")
        body = {"snapshot": {"volume_id": volume}}
        answers = await gatherResults(
            [Deferred.fromCoroutine(running.call("POST", "os-snapshots", body)) for _ in range(20)]
        )
        assert sorted(answer.status for answer in answers) == [200] * 3 + [413] * 17
    finally:
        await running.stop()
