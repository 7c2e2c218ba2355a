"""Volumes from volumes, and the actions on volumes that copy or move bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from sqlalchemy import Connection
from twisted.internet.threads import deferToThread

from bootvol.errors import DatabaseUnavailable
from bootvol.lifecycle import Kind
from bootvol.model import GIB
from bootvol.store import claims
from bootvol.testing.backends import noise
from bootvol.worker.tasks import uploads
from tests.ceph import Cluster
from tests.daemons import TENANT, Answer, Running
from tests.disks import disk
from tests.integration.test_block_storage import call, made, settled
from tests.processes import run
from tests.waiting import until

CONTENT = noise(3 * 1024 * 1024 + 77)
#: The size of a disk with clones; its file is sparse.
SPACE = 12 * GIB
#: A second backend, in a folder of its own.
OTHER = """
[[backends]]
name = "other"
plugin = "file"
directory = "others"
"""


@pytest.fixture(params=[False, True], ids=["copies", "clones"])
def clones(request: pytest.FixtureRequest) -> bool:
    """Return True if the daemon's backends clone."""
    return bool(request.param)


@pytest.fixture
def folder(clones: bool, tmp_path: Path) -> Iterator[Path]:
    """The folder of a daemon: on the tests' file system, or on one with clones."""
    if not clones:
        yield tmp_path
        return
    with disk(tmp_path, SPACE, "xfs"):
        yield tmp_path


@pytest_twisted.async_yield_fixture
async def daemon(folder: Path) -> AsyncIterator[Running]:
    """A daemon with an image and two backends."""
    running = Running(folder, f"{OTHER}\n[quota]\nvolumes = -1\ngigabytes = -1\n")
    (running.images / "disk").write_bytes(CONTENT)
    yield running
    await running.stop()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path that is short enough for sockets."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


async def act(
    daemon: Running, volume: dict[str, Any], action: str, body: object = None, **more: Any
) -> Answer:
    """Send an action on a volume."""
    return await call(daemon, "POST", f"volumes/{volume['id']}/action", {action: body}, **more)


async def shown(daemon: Running, volume: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a volume as the API shows it."""
    return dict((await call(daemon, "GET", f"volumes/{volume['id']}", **more)).json["volume"])


async def gone(daemon: Running, volume: dict[str, Any]) -> None:
    """Wait until a volume is gone."""
    await until(
        lambda: call(daemon, "GET", f"volumes/{volume['id']}"), lambda found: found.status == 404
    )


def message(answer: Answer) -> tuple[int, str]:
    """Return the status and the message of a fault."""
    (fault,) = answer.json.values()
    return answer.status, fault["message"]


def contents(folder: Path, prefix: str = "volume-") -> list[bytes]:
    """Return the first bytes of each volume in a backend's folder."""
    found = []
    for path in sorted(folder.iterdir(), key=lambda each: each.stat().st_ctime):
        if path.name.startswith(prefix):
            with path.open("rb") as file:
                found.append(file.read(len(CONTENT) + 4096))
    return found


WHOLE = CONTENT + bytes(4096)


@ensureDeferred
async def test_a_volume_is_made_from_another(daemon: Running) -> None:
    body = {"volume_type": {"name": "fast", "extra_specs": {}}}
    assert (await call(daemon, "POST", "types", body, token="root")).status == 200
    source = await made(daemon, imageRef="disk", volume_type="fast", metadata={"a": "b"})
    copy = await made(daemon, size=None, source_volid=source["id"])
    assert (copy["source_volid"], copy["snapshot_id"]) == (source["id"], None)
    for member in ("bootable", "volume_image_metadata", "volume_type", "size"):
        assert copy[member] == source[member]
    assert (copy["volume_type"], copy["metadata"]) == ("fast", {})
    larger = await made(daemon, size=2, source_volid=source["id"])
    assert larger["size"] == 2
    assert contents(daemon.volumes) == [WHOLE] * 3
    # Each is independent of the other.
    for each in (source, copy, larger):
        assert (await call(daemon, "DELETE", f"volumes/{each['id']}")).status == 202
        await gone(daemon, each)


@ensureDeferred
async def test_a_copy_may_lie_on_another_backend(daemon: Running) -> None:
    body = {"volume_type": {"name": "far", "extra_specs": {"volume_backend_name": "other"}}}
    assert (await call(daemon, "POST", "types", body, token="root")).status == 200
    source = await made(daemon, imageRef="disk")
    copy = await made(daemon, size=2, source_volid=source["id"], volume_type="far")
    assert copy["volume_type"] == "far"
    assert contents(daemon.folder / "others") == [WHOLE]


@ensureDeferred
async def test_the_source_stays_until_it_is_copied(daemon: Running) -> None:
    """Break: `src/bootvol/store/work_queue.py`: `_OTHERS.c.source_id == volumes.c.id,` ->
    `_OTHERS.c.source_id == -1,`.
    """
    source = await made(daemon, imageRef="disk")
    away = daemon.volumes.rename(daemon.folder / "away")
    copies = [
        (await call(daemon, "POST", "volumes", {"volume": {"source_volid": source["id"]}})).json
        for _ in range(2)
    ]
    assert (await call(daemon, "DELETE", f"volumes/{source['id']}")).status == 202
    away.rename(daemon.volumes)
    for each in copies:
        await settled(daemon, f"volumes/{each['volume']['id']}", "volume")
    await gone(daemon, source)
    assert contents(daemon.volumes) == [WHOLE] * 2


@ensureDeferred
async def test_a_source_is_refused_in_cinders_words(daemon: Running) -> None:
    source = await made(daemon, size=2)
    asked = {"volume": {"size": 1, "source_volid": source["id"]}}
    assert message(await call(daemon, "POST", "volumes", asked)) == (
        400,
        "Invalid input received: Volume size '1'GB cannot be smaller than original volume size "
        " 2GB. They must be >= original volume size.",
    )
    broken = await made(daemon)
    await call(daemon, "POST", "os-volume-transfer", {"transfer": {"volume_id": broken["id"]}})
    asked = {"volume": {"size": 1, "source_volid": broken["id"]}}
    assert message(await call(daemon, "POST", "volumes", asked)) == (
        400,
        "Invalid volume: Originating source volume status must be one of 'available, in-use'"
        " values",
    )
    assert (await call(daemon, "POST", "volumes", asked, token="bob")).status == 404


@ensureDeferred
async def test_a_volume_in_use_is_copied_where_the_backend_clones(
    daemon: Running, clones: bool
) -> None:
    """Break: `src/bootvol/service/origins.py`: `(None, volume.backend) or not clones` ->
    `(None, volume.backend)`.
    """
    source = await made(daemon, imageRef="disk")
    await attach(daemon)
    asked = {"volume": {"size": 1, "source_volid": source["id"]}}
    answer = await call(daemon, "POST", "volumes", asked)
    if clones:
        assert answer.status == 202
        await settled(daemon, f"volumes/{answer.json['volume']['id']}", "volume")
        assert contents(daemon.volumes) == [WHOLE] * 2
    else:
        assert message(answer) == (
            400,
            "Invalid volume: Originating source volume status must be one of 'available' values",
        )
        # No copy on another backend is of one moment either.
    body = {"volume_type": {"name": "far", "extra_specs": {"volume_backend_name": "other"}}}
    assert (await call(daemon, "POST", "types", body, token="root")).status == 200
    asked["volume"]["volume_type"] = "far"
    assert (await call(daemon, "POST", "volumes", asked)).status == 400


@ensureDeferred
async def test_a_copied_volume_does_not_change_hands(daemon: Running) -> None:
    """Break: `src/bootvol/service/transfers.py`: `if volume_rows.is_copied(db, volume.id):` ->
    `if False:`.
    """
    source = await made(daemon)
    away = daemon.volumes.rename(daemon.folder / "away")
    answer = await call(daemon, "POST", "volumes", {"volume": {"source_volid": source["id"]}})
    body = {"transfer": {"volume_id": source["id"]}}
    offer = (await call(daemon, "POST", "os-volume-transfer", body)).json["transfer"]
    accept, key = f"os-volume-transfer/{offer['id']}/accept", {"auth_key": offer["auth_key"]}
    refused = await call(daemon, "POST", accept, {"accept": key}, token="bob")
    assert refused.status == 400
    away.rename(daemon.volumes)
    await settled(daemon, f"volumes/{answer.json['volume']['id']}", "volume")
    assert (await call(daemon, "POST", accept, {"accept": key}, token="bob")).status == 202


@ensureDeferred
async def test_servers_only_read_what_the_owner_says(tmp_path: Path, short: Path) -> None:
    """Break: `src/bootvol/exports/exports.py`: `["--read-only"] if source.read_only` -> `[] if
    source.read_only`.
    """
    running = Running(tmp_path, f'[exports]\nby = "unix"\ndirectory = "{short}/e"')
    try:
        volume = await made(running, metadata={"a": "b"})
        for flag, told in (("yes", "True"), (False, "False"), (True, "True")):
            answer = await act(running, volume, "os-update_readonly_flag", {"readonly": flag})
            assert (answer.status, answer.body) == (202, b"")
            found = await shown(running, volume)
            assert found["metadata"] == {"a": "b", "readonly": told}
        answer = await call(running, "GET", f"volumes/{volume['id']}/metadata")
        assert answer.json == {"metadata": {"a": "b"}}
        await attach(running)
        listed = (await call(running, "GET", "attachments/detail")).json["attachments"]
        assert [each["attach_mode"] for each in listed] == ["ro"]
        answer = await running.call("GET", "os-volumes/1/connection", token="root")
        connection = answer.json["connection"]
        assert connection["readOnly"] is True
        for command, code in (("read", 0), ("write", 1)):
            told_to = ["qemu-io", "-f", "raw", "-c", f"{command} 0 4096", connection["address"]]
            if command == "read":
                told_to.insert(1, "--read-only")
            ended = await deferToThread(run, told_to)
            assert ended.returncode == code, ended
        refused = await act(running, volume, "os-update_readonly_flag", {"readonly": False})
        assert message(refused) == (
            400,
            f"Invalid volume: Volume {volume['id']} status must be available to update readonly"
            " flag, but current status is: in-use.",
        )
    finally:
        await running.stop()


async def attach(daemon: Running) -> None:
    """Attach the first volume to a server elsewhere."""
    wanted = {"volumeAttachment": {"volumeId": 1, "device": "vdb"}}
    answer = await daemon.call("POST", "servers/7/os-volume_attachments", wanted)
    assert answer.status == 200
    await daemon.until(1, "in-use")


@pytest_twisted.async_yield_fixture
async def store(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon that takes images."""
    running = taking(tmp_path)
    (running.images / "disk").write_bytes(CONTENT)
    yield running
    await running.stop()


def taking(folder: Path) -> Running:
    """Start a daemon that takes images."""
    (folder / "own").mkdir(exist_ok=True)
    return Running(folder, OWN)


#: A source that takes images.
OWN = """
[[sources]]
name = "own"
plugin = "directory"
directory = "own"
writable = true
quota_gib = 3
"""


async def uploaded(daemon: Running, image_id: str) -> dict[str, Any]:
    """Return the record of an image, once it is active."""

    async def show() -> dict[str, Any]:
        return dict((await daemon.request("GET", f"/image/v2/images/{image_id}")).json)

    return await until(show, lambda found: found["status"] == "active")


@ensureDeferred
async def test_an_outage_at_the_request_leaves_no_claim(
    store: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite no claim runs out: the volume stayed `uploading` until the daemon's next start.

    Break: `src/bootvol/service/volume_uploads.py`: `while not self._database.ending:` ->
    `while False:`
    """
    volume = await made(store, imageRef="disk")
    release, outages = claims.release, [DatabaseUnavailable(), DatabaseUnavailable()]

    def released(connection: Connection, holder: str, kind: Kind, number: int) -> bool:
        if outages:
            raise outages.pop()
        return release(connection, holder, kind, number)

    monkeypatch.setattr(claims, "release", released)
    answer = await act(store, volume, "os-volume_upload_image", {"image_name": "img"})
    assert answer.status == 202
    await uploaded(store, answer.json["os-volume_upload_image"]["image_id"])
    await settled(store, f"volumes/{volume['id']}", "volume")
    assert not outages


@ensureDeferred
async def test_an_image_is_made_of_a_volume(store: Running) -> None:
    volume = await made(store, imageRef="disk", description="d")
    facts = {"metadata": {"os_distro": "debian", "hw_disk_bus": "scsi"}}
    assert (await act(store, volume, "os-set_image_metadata", facts)).status == 200
    asked = {"image_name": "img", "visibility": "shared", "protected": "yes", "force": False}
    answer = await act(store, volume, "os-volume_upload_image", asked)
    assert answer.status == 202
    told = answer.json["os-volume_upload_image"]
    assert told["volume_type"]["name"] == "__DEFAULT__"
    assert {key: told[key] for key in told if key not in ("volume_type", "updated_at")} == {
        "id": volume["id"],
        "status": "uploading",
        "display_description": "d",
        "size": 1,
        "image_id": told["image_id"],
        "container_format": "bare",
        "disk_format": "raw",
        "image_name": "img",
        "protected": True,
        "visibility": "shared",
    }
    image = await uploaded(store, told["image_id"])
    assert (image["size"], image["disk_format"], image["name"]) == (GIB, "raw", "img")
    assert (image["protected"], image["visibility"], image["owner"]) == (True, "shared", TENANT)
    assert (image["os_distro"], image["hw_disk_bus"]) == ("debian", "scsi")
    assert "image_id" not in image
    await settled(store, f"volumes/{volume['id']}", "volume")
    copy = await made(store, imageRef=image["id"])
    assert copy["volume_image_metadata"]["image_id"] == image["id"]
    assert contents(store.volumes) == [WHOLE] * 2
    # At 3.0, both members mean nothing.
    answer = await act(store, volume, "os-volume_upload_image", asked, version="3.0")
    told = answer.json["os-volume_upload_image"]
    assert not {"protected", "visibility"} & told.keys()
    image = (await store.request("GET", f"/image/v2/images/{told['image_id']}")).json
    assert (image["protected"], image["visibility"]) == (False, "private")


@ensureDeferred
async def test_uploads_are_refused_in_cinders_words(store: Running) -> None:
    volume = await made(store)

    async def refused(body: object) -> tuple[int, str]:
        return message(await act(store, volume, "os-volume_upload_image", body))

    missing = "Invalid input for field/attribute os-volume_upload_image. Value: {}. 'image_name' is"
    assert await refused({}) == (400, f"{missing} a required property")
    assert await refused({"image_name": "x", "disk_format": "zz"}) == (
        400,
        "Invalid input for field/attribute disk_format. Value: zz. 'zz' is not one of ['raw',"
        " 'vmdk', 'vdi', 'qcow2', 'vhd', 'vhdx', 'ploop']",
    )
    assert await refused({"image_name": "x", "visibility": "public"}) == (
        403,
        "Policy doesn't allow volume_extension:volume_actions:upload_public to be performed.",
    )
    status, words = await refused({"image_name": "x", "disk_format": "qcow2"})
    assert (status, "disk format raw" in words) == (400, True)
    await attach(store)
    assert await refused({"image_name": "x"}) == (
        400,
        f"Invalid volume: Volume {volume['id']} status must be available",
    )
    assert (await store.request("GET", "/image/v2/images")).json["images"][1:] == []


@ensureDeferred
async def test_a_source_that_takes_no_images_gets_none(daemon: Running) -> None:
    volume = await made(daemon)
    answer = await act(daemon, volume, "os-volume_upload_image", {"image_name": "x"})
    assert answer.status == 501
    assert (await shown(daemon, volume))["status"] == "available"


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"QFI\xfb" + bytes(4092), "format-mismatch"), (b"\x1f\x8b\x08" + bytes(4093), "not-a-disk")],
)
@ensureDeferred
async def test_bytes_that_would_become_another_disk_are_no_image(
    store: Running, content: bytes, code: str
) -> None:
    """Break: `src/bootvol/worker/tasks/uploads.py`: `PassingImage("raw", packed=False)` ->
    `PassingImage("raw")`.
    """
    volume = await made(store)
    (file,) = store.files()
    with file.open("r+b") as held:
        held.write(content)
    answer = await act(store, volume, "os-volume_upload_image", {"image_name": "x"})
    number = answer.json["os-volume_upload_image"]["image_id"]
    await settled(store, f"volumes/{volume['id']}", "volume")
    assert (await store.call("GET", "os-volumes/1/error")).json["error"]["code"] == code
    assert (await store.request("GET", f"/image/v2/images/{number}")).status == 404


@ensureDeferred
async def test_an_image_without_room_is_removed(store: Running) -> None:
    volume = await made(store, size=4)
    answer = await act(store, volume, "os-volume_upload_image", {"image_name": "x"})
    assert answer.status == 202
    await settled(store, f"volumes/{volume['id']}", "volume")
    error = (await store.call("GET", "os-volumes/1/error")).json["error"]
    assert error["code"] == "quota-exceeded"
    left = (await store.request("GET", "/image/v2/images")).json["images"]
    assert [each["id"] for each in left] == ["disk"]


@ensureDeferred
async def test_a_restart_does_not_stop_an_upload(tmp_path: Path) -> None:
    """Break: `src/bootvol/store/work_queue.py`: `volume = or_(volume, _upload(request))` ->
    `volume = and_(volume)`.
    """
    running = taking(tmp_path)
    (running.images / "disk").write_bytes(CONTENT)
    volume = await made(running, imageRef="disk")
    away = running.volumes.rename(tmp_path / "away")
    answer = await act(running, volume, "os-volume_upload_image", {"image_name": "x"})
    number = answer.json["os-volume_upload_image"]["image_id"]
    assert (await shown(running, volume))["status"] == "uploading"
    assert (await call(running, "DELETE", f"volumes/{volume['id']}")).status == 400
    await running.stop()
    away.rename(running.volumes)
    later = taking(tmp_path)
    try:
        assert (await uploaded(later, number))["size"] == GIB
        await settled(later, f"volumes/{volume['id']}", "volume")
    finally:
        await later.stop()


@pytest.mark.parametrize(
    ("later", "code"),
    [("", "source-gone"), (OWN.replace("writable = true", ""), "no-image-store")],
    ids=["gone", "read-only"],
)
@ensureDeferred
async def test_an_upload_without_its_store_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str, code: str
) -> None:
    """The volume is available again at once.

    Break: `src/bootvol/worker/tasks/uploads.py`: `and error.retryable` -> `and True`
    """
    monkeypatch.setattr(uploads, "_PAUSES", (10**6,))
    running = taking(tmp_path)
    volume = await made(running)
    away = running.volumes.rename(tmp_path / "away")
    answer = await act(running, volume, "os-volume_upload_image", {"image_name": "x"})
    assert answer.status == 202
    await running.stop()
    away.rename(running.volumes)
    running = Running(tmp_path, later)
    try:
        found = await settled(running, f"volumes/{volume['id']}", "volume")
        assert found["status"] == "available"
        assert (await running.call("GET", "os-volumes/1/error")).json["error"]["code"] == code
    finally:
        await running.stop()


@ensureDeferred
async def test_ceph_clones_a_volume(tmp_path: Path, ceph_cluster: Cluster) -> None:
    running = Running(tmp_path, first=ceph_cluster.table())
    (running.images / "disk").write_bytes(CONTENT)
    try:
        source = await made(running, imageRef="disk")
        copy = await made(running, size=2, source_volid=source["id"])
        assert copy["source_volid"] == source["id"]
        assert (await call(running, "DELETE", f"volumes/{source['id']}")).status == 202
        await gone(running, source)

        def read() -> bytes:
            (name,) = (each for each in ceph_cluster.images() if each.startswith("volume-"))
            with ceph_cluster.image(name) as image:
                assert image.size() == 2 * GIB
                return bytes(image.read(0, len(WHOLE)))

        assert await deferToThread(read) == WHOLE
    finally:
        await running.stop()
