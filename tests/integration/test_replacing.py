"""Volumes that go back to a snapshot, get another type, or move to another backend."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent

from bootvol.errors import BackendFailed
from bootvol.testing.backends import noise
from bootvol.worker import stores
from bootvol_plugins.file import FileBackend
from bootvol_plugins.file_store import STORE
from tests.ceph import Cluster
from tests.cinder import GOLDEN
from tests.daemons import Answer, Running
from tests.integration import test_copying as copying
from tests.integration.test_block_storage import call, made, settled
from tests.integration.test_copying import (
    CONTENT,
    OTHER,
    WHOLE,
    act,
    attach,
    contents,
    message,
    shown,
)
from tests.waiting import until

clones, folder, daemon = copying.clones, copying.folder, copying.daemon

LATER = noise(5000, 3)


async def snapshot(daemon: Running, volume: dict[str, Any]) -> dict[str, Any]:
    """Make a snapshot; return the snapshot when available."""
    body = {"snapshot": {"volume_id": volume["id"]}}
    answer = await call(daemon, "POST", "snapshots", body)
    path = f"snapshots/{answer.json['snapshot']['id']}"
    return await settled(daemon, path, "snapshot")


async def a_type(daemon: Running, name: str, **specs: str) -> None:
    """Make a volume type."""
    body = {"volume_type": {"name": name, "extra_specs": specs}}
    assert (await call(daemon, "POST", "types", body, token="root")).status == 200


async def available(daemon: Running, volume: dict[str, Any]) -> dict[str, Any]:
    """Wait until a volume is available; return the volume."""
    return await settled(daemon, f"volumes/{volume['id']}", "volume")


async def error(daemon: Running) -> str | None:
    """Return the code of the first volume's error."""
    found = (await daemon.call("GET", "os-volumes/1/error")).json["error"]
    return None if found is None else str(found["code"])


def write(folder: Path) -> None:
    """Write to the only volume in a folder."""
    (file,) = (each for each in folder.iterdir() if each.name.startswith("volume-"))
    with file.open("r+b") as held:
        held.write(LATER)


async def left(folder: Path, count: int) -> None:
    """Wait until a folder has a number of volumes and snapshots."""

    async def names() -> list[str]:
        return [each.name for each in folder.iterdir() if each.name[0] in "vs"]

    await until(names, lambda found: len(found) == count)


@ensureDeferred
async def test_a_volume_goes_back_to_its_latest_snapshot(daemon: Running) -> None:
    volume = await made(daemon, imageRef="disk")
    first = await snapshot(daemon, volume)
    write(daemon.volumes)
    last = await snapshot(daemon, volume)
    changed = LATER + WHOLE[len(LATER) :]
    await deferToThread(wipe, daemon.volumes)

    async def revert(uuid: object, **more: str) -> Answer:
        return await act(daemon, volume, "revert", {"snapshot_id": uuid}, **more)

    assert (await revert(last["id"], version="3.39")).status == 404
    for wrong in (first["id"], None):
        assert message(await revert(wrong)) == (
            400,
            f"Specified snapshot {wrong} is None or not the latest one of volume {volume['id']}.",
        )
    answer = await revert(last["id"])
    assert (answer.status, answer.body) == (202, b"")
    found = await available(daemon, volume)
    assert await error(daemon) is None
    assert (found["size"], found["bootable"]) == (1, "true")
    await left(daemon.volumes, 3)
    assert contents(daemon.volumes) == [changed]
    path = f"snapshots/{last['id']}"
    assert (await call(daemon, "GET", path)).json["snapshot"]["status"] == "available"
    assert (await call(daemon, "DELETE", path)).status == 202
    await until(lambda: call(daemon, "GET", path), lambda found: found.status == 404)
    assert (await revert(first["id"])).status == 202
    await available(daemon, volume)
    assert await error(daemon) is None
    await left(daemon.volumes, 2)
    assert contents(daemon.volumes) == [WHOLE]


def wipe(folder: Path) -> None:
    """Write zeros to the only volume in a folder."""
    (file,) = (each for each in folder.iterdir() if each.name.startswith("volume-"))
    with file.open("r+b") as held:
        held.write(bytes(len(CONTENT)))


@ensureDeferred
async def test_what_does_not_go_back(daemon: Running) -> None:
    volume = await made(daemon)
    uuid = volume["id"]
    assert message(await act(daemon, volume, "revert", {"snapshot_id": uuid})) == (
        400,
        f"Volume {uuid} doesn't have any snapshots.",
    )
    taken = await snapshot(daemon, volume)
    asked = {"snapshot_id": taken["id"]}
    assert (await act(daemon, volume, "revert", asked, token="bob")).status == 404
    await attach(daemon)
    assert message(await act(daemon, volume, "revert", asked)) == (
        409,
        f"Invalid volume: Can't revert volume {uuid} to its latest snapshot. Volume's status must"
        " be 'available'.",
    )
    await daemon.call("DELETE", "servers/7/os-volume_attachments/1")
    await daemon.until(1, "available")
    assert (await act(daemon, volume, "os-extend", {"new_size": 2})).status == 202
    await available(daemon, volume)
    assert (await act(daemon, volume, "revert", asked)).status == 400


@ensureDeferred
async def test_nothing_changes_while_a_volume_goes_back(daemon: Running, tmp_path: Path) -> None:
    """A restart continues.

    Break: `src/bootvol/store/work_queue.py`: `_upload(request), _replacement(request))` ->
    `_upload(request))`.
    """
    volume = await made(daemon, imageRef="disk")
    taken = await snapshot(daemon, volume)
    write(daemon.volumes)
    away = daemon.volumes.rename(daemon.folder / "away")
    assert (await act(daemon, volume, "revert", {"snapshot_id": taken["id"]})).status == 202
    assert (await shown(daemon, volume))["status"] == "reverting"
    path = f"snapshots/{taken['id']}"
    assert (await call(daemon, "GET", path)).json["snapshot"]["status"] == "restoring"
    for each in (path, f"volumes/{volume['id']}"):
        assert (await call(daemon, "DELETE", each)).status == 400
    copy = {"volume": {"snapshot_id": taken["id"]}}
    assert (await call(daemon, "POST", "volumes", copy)).status == 400
    await daemon.stop()
    away.rename(daemon.volumes)
    later = Running(daemon.folder, OTHER)
    try:
        await available(later, volume)
        await left(later.volumes, 2)
        assert contents(later.volumes) == [WHOLE]
        assert (await call(later, "GET", path)).json["snapshot"]["status"] == "available"
    finally:
        await later.stop()


@ensureDeferred
async def test_a_snapshot_without_its_data_changes_no_volume(daemon: Running) -> None:
    volume = await made(daemon, imageRef="disk")
    taken = await snapshot(daemon, volume)
    for each in daemon.volumes.iterdir():
        if each.name.startswith("snapshot-"):
            each.unlink()
    assert (await act(daemon, volume, "revert", {"snapshot_id": taken["id"]})).status == 202
    await available(daemon, volume)
    assert await error(daemon) in ("backend-failed", "volume-missing")
    assert contents(daemon.volumes) == [WHOLE]
    await left(daemon.volumes, 1)


@ensureDeferred
async def test_a_snapshot_that_lost_bytes_changes_no_volume(daemon: Running) -> None:
    volume = await made(daemon, imageRef="disk")
    taken = await snapshot(daemon, volume)
    for each in daemon.volumes.iterdir():
        if each.name.startswith("snapshot-"):
            os.truncate(each, 4096)
    assert (await act(daemon, volume, "revert", {"snapshot_id": taken["id"]})).status == 202
    await available(daemon, volume)
    assert await error(daemon) in ("backend-failed", "volume-cut-off")
    assert contents(daemon.volumes) == [WHOLE]


@ensureDeferred
async def test_a_type_on_the_same_backend_moves_nothing(daemon: Running) -> None:
    await a_type(daemon, "fast")
    await a_type(daemon, "local", volume_backend_name="local")
    volume = await made(daemon, imageRef="disk")
    before = daemon.files()
    await attach(daemon)
    for name in ("fast", "local", "__DEFAULT__"):
        asked = {"new_type": name, "migration_policy": "never"}
        answer = await act(daemon, volume, "os-retype", asked)
        assert (answer.status, answer.body) == (202, b"")
        assert (await shown(daemon, volume))["volume_type"] == name
    assert daemon.files() == before
    assert message(await act(daemon, volume, "os-retype", {"new_type": "__DEFAULT__"})) == (
        400,
        "Invalid volume: Retype needs volume to be in available or in-use state, not be part of an"
        " active migration or a consistency group, requested type has to be different that the one"
        " from the volume, and for in-use volumes front-end qos specs cannot change.",
    )
    assert message(await act(daemon, volume, "os-retype", {"new_type": "nosuch"})) == (
        404,
        "Volume type with name nosuch could not be found.",
    )
    wrong = {"new_type": "fast", "migration_policy": "x"}
    assert message(await act(daemon, volume, "os-retype", wrong)) == (
        400,
        "Invalid input for field/attribute migration_policy. Value: x. 'x' is not one of"
        " ['on-demand', 'never']",
    )
    assert (await act(daemon, volume, "os-retype", {})).status == 400


@ensureDeferred
async def test_a_type_on_another_backend_moves_the_volume(daemon: Running) -> None:
    """Break: `src/bootvol/store/replacements.py`: `strays.leave_behind(connection, row.backend,
    row.host, row.name)` -> `pass`.
    """
    others = daemon.folder / "others"
    await a_type(daemon, "far", volume_backend_name="other")
    volume = await made(daemon, imageRef="disk")
    never = {"new_type": "far", "migration_policy": None}
    assert (await act(daemon, volume, "os-retype", never)).status == 400
    taken = await snapshot(daemon, volume)
    asked = {"new_type": "far", "migration_policy": "on-demand"}
    refused = message(await act(daemon, volume, "os-retype", asked))
    assert refused == (400, "Invalid volume: The volume has snapshots, which do not move.")
    path = f"snapshots/{taken['id']}"
    await call(daemon, "DELETE", path)
    await until(lambda: call(daemon, "GET", path), lambda found: found.status == 404)
    answer = await act(daemon, volume, "os-retype", asked)
    assert (answer.status, answer.body) == (202, b"")
    moved = await available(daemon, volume)
    assert (moved["id"], moved["volume_type"]) == (volume["id"], "far")
    assert contents(others) == [WHOLE]
    await left(daemon.volumes, 0)
    # The volume is as good as any.
    assert (await act(daemon, volume, "os-extend", {"new_size": 2})).status == 202
    await available(daemon, volume)
    assert (await call(daemon, "DELETE", f"volumes/{volume['id']}")).status == 202
    await left(others, 0)


@ensureDeferred
async def test_a_move_without_room_changes_nothing(daemon: Running, tmp_path: Path) -> None:
    await a_type(daemon, "far", volume_backend_name="other")
    volume = await made(daemon, imageRef="disk")
    others = daemon.folder / "others"
    others.rename(daemon.folder / "gone")
    others.write_text("no folder")
    asked = {"new_type": "far", "migration_policy": "on-demand"}
    assert (await act(daemon, volume, "os-retype", asked)).status == 202
    # The work waits for the backend.
    waiting = ("store-unusable", "wrong-store")
    await until(lambda: error(daemon), lambda found: found in waiting)
    assert (await shown(daemon, volume))["status"] == "retyping"
    others.unlink()
    (daemon.folder / "gone").rename(others)
    assert (await available(daemon, volume))["volume_type"] == "far"
    assert contents(others) == [WHOLE]


@ensureDeferred
async def test_operators_move_volumes(daemon: Running) -> None:
    volume = await made(daemon, imageRef="disk")
    place = "os-vol-host-attr:host"
    here = (await shown(daemon, volume, token="root"))[place]
    there = here.replace("local", "other")
    asked = {"host": there, "force_host_copy": False, "lock_volume": True}
    assert (await act(daemon, volume, "os-migrate_volume", asked)).status == 403
    hostless, poolless = "@" + there.partition("@")[2], f"{there}er"
    for wrong, words in (
        *(
            (each, f"Invalid host: No available service named {each}")
            for each in ("nohost", "garbage@other#other", hostless, poolless)
        ),
        (
            here,
            f"Invalid volume: Volume {volume['id']} status must be available or in-use, must not"
            " be migrating, have snapshots, be replicated, be part of a group and destination"
            " host/cluster must be different than the current one",
        ),
    ):
        refused = await act(daemon, volume, "os-migrate_volume", {"host": wrong}, token="root")
        assert message(refused) == (400, words)
    answer = await act(daemon, volume, "os-migrate_volume", asked, token="root")
    assert answer.status == 202
    await available(daemon, volume)
    found = await shown(daemon, volume, token="root")
    assert (found[place], found["migration_status"]) == (there, "success")
    assert found["os-vol-mig-status-attr:migstat"] == "success"
    assert contents(daemon.folder / "others") == [WHOLE]
    await left(daemon.volumes, 0)
    listed = await call(daemon, "GET", "volumes?migration_status=success", token="root")
    assert [each["id"] for each in listed.json["volumes"]] == [volume["id"]]
    await act(daemon, volume, "os-reset_status", {"migration_status": "none"}, token="root")
    assert (await shown(daemon, volume, token="root"))["migration_status"] is None


@ensureDeferred
async def test_a_move_that_fails_is_told(daemon: Running) -> None:
    """Break: `src/bootvol/store/replacements.py`: `values(moved=False)` -> `values(moved=None)`"""
    volume = await made(daemon, imageRef="disk")
    here = (await shown(daemon, volume, token="root"))["os-vol-host-attr:host"]
    (file,) = (each for each in daemon.files() if each.name.startswith("volume-"))
    os.truncate(file, 1000)
    there = {"host": here.replace("local", "other")}
    assert (await act(daemon, volume, "os-migrate_volume", there, token="root")).status == 202
    found = await until(
        lambda: shown(daemon, volume, token="root"),
        lambda found: found["migration_status"] == "error",
    )
    assert found["os-vol-host-attr:host"] == here


@ensureDeferred
async def test_only_the_backend_with_the_wrong_store_is_suspended(
    daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A move has two backends, and the error of one says nothing about the other.

    Break: `src/bootvol/worker/job.py`: `error if len(stores) == 1 else None` -> `error`.
    """
    monkeypatch.setattr(stores, "POLL", 0.3)
    volume = await made(daemon, imageRef="disk")
    store = daemon.folder / "others" / STORE
    right = store.read_text()
    with capturedLogs() as logged:
        store.write_text("another\n")
        host = (await shown(daemon, volume, token="root"))["os-vol-host-attr:host"]
        there = {"host": host.replace("local", "other")}
        answer = await act(daemon, volume, "os-migrate_volume", there, token="root")
        assert answer.status == 202
        await until(lambda: error(daemon), lambda code: code == "wrong-store")
        store.write_text(right)
        await available(daemon, volume)
    told = [formatEvent(each) for each in logged]
    assert any(each.startswith("backend other is suspended: ") for each in told), told
    assert not any(each.startswith("backend local ") for each in told), told


@ensureDeferred
async def test_a_silent_backend_takes_no_volume_out_of_use(
    daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy is to repeat the call, which a volume in error does not allow."""
    volume = await made(daemon, imageRef="disk")

    async def silent(*_: object) -> None:
        raise BackendFailed("The cluster does not answer.")

    host = (await shown(daemon, volume, token="root"))["os-vol-host-attr:host"]
    there = {"host": host.replace("local", "other")}
    with monkeypatch.context() as patch:
        for call in ("check_unused", "clone", "connection", "grow", "open_reader"):
            patch.setattr(FileBackend, call, silent)
        for action, wanted in (("os-extend", {"new_size": 2}), ("os-migrate_volume", there)):
            answer = await act(daemon, volume, action, wanted, token="root")
            assert answer.status == 202
            assert (await available(daemon, volume))["status"] == "available"
            assert await error(daemon) == "backend-failed"
    # The call succeeds as soon as the backend answers.
    assert (await act(daemon, volume, "os-extend", {"new_size": 2})).status == 202
    assert (await available(daemon, volume))["size"] == 2


async def without_data(daemon: Running, volume: dict[str, Any]) -> None:
    """Wait until a volume has failed, and has no data."""
    await until(
        lambda: shown(daemon, volume),
        lambda found: found["status"] == "error",
    )
    await left(daemon.volumes, 0)


@ensureDeferred
async def test_a_volume_is_filled_with_another_image(daemon: Running) -> None:
    """The former data leave nothing, and a failed volume is filled, too.

    Break: `src/bootvol/store/replacements.py`: `"finished": False, "snapshot_id": None` ->
    `"finished": False`.
    """
    other = noise(300_000, 9)
    (daemon.images / "other").write_bytes(other)
    (daemon.images / "text").write_text("no disk\n" * 1000)
    source = await made(daemon, imageRef="disk")
    taken = await snapshot(daemon, source)
    volume = await made(daemon, snapshot_id=taken["id"])
    asked = {"image_id": "other"}
    assert (await act(daemon, volume, "os-reimage", asked, version="3.67")).status == 404
    assert message(await act(daemon, volume, "os-reimage", {"image_id": "none"})) == (
        404,
        "Image none could not be found.",
    )
    assert message(await act(daemon, volume, "os-reimage", {})) == (
        400,
        "Invalid input for field/attribute os-reimage. Value: {}. 'image_id' is a required"
        " property",
    )
    answer = await act(daemon, volume, "os-reimage", asked)
    assert (answer.status, answer.body) == (202, b"")
    filled = await available(daemon, volume)
    assert filled["volume_image_metadata"]["image_id"] == "other"
    assert len(contents(daemon.volumes)) == 2
    assert contents(daemon.volumes)[-1][: len(other) + 10] == other + bytes(10)
    for each in (f"volumes/{source['id']}?cascade=True",):
        assert (await call(daemon, "DELETE", each)).status == 202
    await left(daemon.volumes, 1)
    assert (await act(daemon, volume, "os-reimage", {"image_id": "text"})).status == 202
    await without_data(daemon, volume)
    assert (await act(daemon, volume, "os-reimage", {"image_id": "disk"})).status == 202
    await available(daemon, volume)
    assert contents(daemon.volumes) == [WHOLE]


@ensureDeferred
async def test_a_reserved_volume_is_filled_for_its_server(daemon: Running) -> None:
    """So Nova rebuilds a server with another image."""
    volume = await made(daemon)
    hold = {"volume_uuid": volume["id"], "instance_uuid": volume["id"]}
    assert (await call(daemon, "POST", "attachments", {"attachment": hold})).status == 200
    asked: dict[str, object] = {"image_id": "disk"}
    assert (await act(daemon, volume, "os-reimage", asked)).status == 400
    asked["reimage_reserved"] = True
    assert (await act(daemon, volume, "os-reimage", asked)).status == 202
    await until(lambda: shown(daemon, volume), lambda found: found["status"] == "reserved")
    assert contents(daemon.volumes) == [WHOLE]


@ensureDeferred
async def test_what_is_copied_or_in_use_keeps_its_data(daemon: Running) -> None:
    volume = await made(daemon, imageRef="disk")
    away = daemon.volumes.rename(daemon.folder / "away")
    body = {"snapshot": {"volume_id": volume["id"]}}
    answer = await call(daemon, "POST", "snapshots", body)
    asked = {"image_id": "disk"}
    assert (await act(daemon, volume, "os-reimage", asked)).status == 400
    away.rename(daemon.volumes)
    await settled(daemon, f"snapshots/{answer.json['snapshot']['id']}", "snapshot")
    await attach(daemon)
    assert message(await act(daemon, volume, "os-reimage", asked)) == (
        400,
        f"Invalid volume: Volume {volume['id']} status must be available or error to reimage, but"
        " is: in-use.",
    )


@pytest.mark.parametrize("direction", ["in", "out"])
@ensureDeferred
async def test_volumes_move_between_files_and_ceph(
    tmp_path: Path, ceph_cluster: Cluster, direction: str
) -> None:
    running = Running(tmp_path, f"{ceph_cluster.table()}\n")
    (running.images / "disk").write_bytes(CONTENT)
    name = ceph_cluster.table().partition('name = "')[2].partition('"')[0]
    try:
        for kind, backend in (("files", "local"), ("ceph", name)):
            await a_type(running, kind, volume_backend_name=backend)
        kinds = ["files", "ceph"] if direction == "in" else ["ceph", "files"]
        volume = await made(running, imageRef="disk", volume_type=kinds[0])
        asked = {"new_type": kinds[1], "migration_policy": "on-demand"}
        assert (await act(running, volume, "os-retype", asked)).status == 202
        assert (await available(running, volume))["volume_type"] == kinds[1]

        async def images() -> list[str]:
            found = await deferToThread(ceph_cluster.images)
            return [each for each in found if each.startswith("volume-")]

        if direction == "out":
            assert contents(running.volumes) == [WHOLE]
            await until(images, lambda found: found == [])
        else:
            await left(running.volumes, 0)
            (image,) = await images()

            def read() -> bytes:
                with ceph_cluster.image(image) as opened:
                    return bytes(opened.read(0, len(WHOLE)))

            assert await deferToThread(read) == WHOLE
            taken = await snapshot(running, volume)
            assert (
                await act(running, volume, "revert", {"snapshot_id": taken["id"]})
            ).status == 202
            await available(running, volume)
            (reverted,) = await until(images, lambda found: len(found) == 1)
            assert reverted != image
    finally:
        await running.stop()


@ensureDeferred
async def test_actions_are_answered_as_recorded(tmp_path: Path) -> None:
    """Statuses, faults and words are real Cinder's, but for the words about missing rights."""
    recorded = json.loads((GOLDEN / "cinder-copying.json").read_text())
    running = copying.taking(tmp_path)
    try:
        await a_type(running, "t3")
        volume = await made(running)
        for state in ("available", "in-use"):
            if state == "in-use":
                await attach(running)
            for each in recorded:
                if each["state"] != state:
                    continue
                ((name, parameters),) = each["body"].items()
                answer = await act(running, volume, name, parameters, version=each["version"])
                wanted = each.get("message", "").replace("{volume}", volume["id"])
                assert answer.status == each["status"], (each, answer.body)
                if answer.status in (400, 404):
                    assert message(answer) == (each["status"], wanted)
    finally:
        await running.stop()
    assert len(recorded) > 12
