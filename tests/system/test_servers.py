"""Servers that really boot from volumes: data written by a guest outlives the guest."""

from __future__ import annotations

import json
import re
import shutil
import signal
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests import guest
from tests.daemons import TENANT, Answer, Running, pause
from tests.images import qemu_img
from tests.processes import Process
from tests.waiting import LONG_LIMIT, until

HOSTING = """
[imports]
# About a MiB: no image in a container fits.
spool_gib = 0.001

[hypervisor]
plugin = "qemu"
directory = "servers"
shutdown_timeout = 2.0

[[flavors]]
id = "100"
name = "tiny"
ram = 256
"""


@pytest_twisted.async_yield_fixture
async def hosting(tmp_path: Path, guest_image: Path) -> AsyncIterator[Running]:
    """A daemon with servers, and the image of a guest."""
    running = Running(tmp_path, HOSTING)
    shutil.copy(guest_image, running.images / "linux")
    yield running
    for server in (await running.call("GET", "servers")).json["servers"]:
        await running.call("DELETE", f"servers/{server['id']}")
        await running.until(server["id"], "gone", kind="server")
    await running.stop()


async def boot(running: Running, volume: int, **more: Any) -> int:
    """Boot a server from a volume; return the id."""
    mapping = {"device_name": "vda", "volume_id": str(volume), "volume_size": "", **more}
    body = {
        "server": {
            "name": "guest",
            "flavorRef": "100",
            "imageRef": None,
            "min_count": 1,
            "max_count": 1,
            "block_device_mapping": [{**mapping, "delete_on_termination": "0"}],
        }
    }
    answer = await running.call("POST", "os-volumes_boot", body)
    assert (answer.status, answer.json["server"]["status"]) == (200, "BUILD"), answer
    number: int = answer.json["server"]["id"]
    return number


async def says(running: Running, server: int, pattern: str, token: str = "ann") -> re.Match[str]:
    """Wait until a server has written a text to its console; return the text."""
    body = {"os-getConsoleOutput": {"length": 50}}
    answer = await until(
        lambda: running.call("POST", f"servers/{server}/action", body, token),
        lambda said: re.search(pattern, said.json["output"]),
        LONG_LIMIT,
    )
    found = re.search(pattern, answer.json["output"])
    assert found is not None
    return found


async def extend(running: Running, volume: int, size: int, version: str = "3.42") -> Answer:
    """Ask for the growth of a volume, by the Block Storage API.

    :param size: the new size in GiB.
    """
    shown = await running.request("GET", f"/v2/{TENANT}/os-volumes/{volume}")
    return await running.request(
        "POST",
        f"/volume/v3/volumes/{shown.json['volume']['id']}/action",
        {"os-extend": {"new_size": size}},
        headers={"OpenStack-API-Version": f"volume {version}"},
    )


async def end(running: Running, server: int) -> None:
    """Terminate a server."""
    answer = await running.call("DELETE", f"servers/{server}")
    assert (answer.status, answer.body) == (204, b"")
    await running.until(server, "gone", kind="server")


@ensureDeferred
async def test_what_a_guest_wrote_is_found_by_the_next(hosting: Running) -> None:
    volume = await hosting.create("linux")
    await hosting.until(volume, "available")
    first = await boot(hosting, volume)
    await hosting.until(volume, "in-use")
    shown = (await hosting.call("GET", f"hp-bootable-volumes/{volume}")).json["volume"]
    place = {"device": "vda", "id": volume, "serverId": first, "volumeId": volume}
    assert shown["attachments"] == [place]
    assert (await says(hosting, first, "boot (.*); found files:(.*)\r")).group(1) == "1"
    await says(hosting, first, guest.READY)
    listed = (await hosting.call("GET", "servers/detail")).json["servers"]
    assert [(each["id"], each["status"]) for each in listed] == [(first, "ACTIVE")]
    # A volume in use by a running server cannot be deleted or detached.
    for path in (f"os-volumes/{volume}", f"servers/{first}/os-volume_attachments/{volume}"):
        assert (await hosting.call("DELETE", path)).status == 400
    await end(hosting, first)
    await hosting.until(volume, "available")

    snapshot = await hosting.snapshot(volume)
    await hosting.until(snapshot, "available", kind="snapshot")
    second = await boot(hosting, volume)
    found = await says(hosting, second, "boot (.*); found files: (.*)\r")
    assert found.groups() == ("2", "boot-1")
    await says(hosting, second, guest.READY)
    await end(hosting, second)

    third = await boot(hosting, 0, volume_id=None, snapshot_id=str(snapshot))
    found = await says(hosting, third, "boot (.*); found files: (.*)\r")
    assert found.groups() == ("2", "boot-1")
    await end(hosting, third)
    volumes = (await hosting.call("GET", "os-volumes")).json["volumes"]
    assert [each["snapshotId"] for each in volumes] == ["", str(snapshot)]


@ensureDeferred
async def test_a_guest_boots_from_a_compressed_image_that_was_never_spooled(
    hosting: Running, debian_disk: Path
) -> None:
    image = hosting.images / "packed"
    await deferToThread(qemu_img, "convert", "-c", "-f", "raw", "-O", "qcow2", debian_disk, image)
    volume = await hosting.create("packed")
    settled = await hosting.until(volume, "available", "error")
    assert settled == "available", await hosting.progress(volume)
    server = await boot(hosting, volume)
    await says(hosting, server, guest.READY)
    await end(hosting, server)


@ensureDeferred
async def test_disks_come_and_go_while_a_guest_runs(hosting: Running) -> None:
    volume, other = await hosting.create("linux"), await hosting.create(size=2)
    await hosting.until(volume, "available")
    server = await boot(hosting, volume)
    await says(hosting, server, guest.READY)
    attachments = f"servers/{server}/os-volume_attachments"
    body = {"volumeAttachment": {"volumeId": other, "device": "/dev/vdb"}}
    assert (await hosting.call("POST", attachments, body)).status == 200
    await hosting.until(other, "in-use")
    await says(hosting, server, "disk vdb: 2147483648 bytes")
    # The guest sees the new size at once, and may write up to there.
    assert (await extend(hosting, other, 3, "3.41")).status == 400
    assert (await extend(hosting, other, 3)).status == 202
    await says(hosting, server, "disk vdb becomes 3221225472 bytes")
    await hosting.until(other, "in-use")
    shown = (await hosting.call("GET", f"os-volumes/{other}")).json["volume"]
    assert (shown["size"], len(shown["attachments"])) == (3, 1)
    listed = (await hosting.call("GET", attachments)).json["volumeAttachments"]
    assert [each["volumeId"] for each in listed] == [volume, other]
    # Ids and uuids are accepted alike.
    uuid = (await hosting.call("GET", f"servers/{server}")).json["server"]["uuid"]
    assert (await hosting.call("DELETE", f"servers/{uuid}/os-volume_attachments/{other}")).status
    await hosting.until(other, "available")
    await says(hosting, server, "disk vdb is gone")


@ensureDeferred
async def test_a_guest_finds_keys_and_user_data_and_is_turned_off_and_on(hosting: Running) -> None:
    volume, other = await hosting.create("linux"), await hosting.create(size=2)
    for number in volume, other:
        await hosting.until(number, "available")
    made = await hosting.call("POST", "os-keypairs", {"keypair": {"name": "mine"}})
    key = made.json["keypair"]["public_key"]
    wanted = {
        "name": "My guest",
        "flavorRef": "100",
        "key_name": "mine",
        "user_data": b64encode(b"echo hello").decode(),
        "metadata": {"use": "web"},
        "block_device_mapping_v2": [
            {
                "source_type": "volume",
                "destination_type": "volume",
                "uuid": str(volume),
                "boot_index": "0",
            }
        ],
    }
    answer = await hosting.call("POST", "servers", {"server": wanted})
    assert answer.status == 202, answer
    server = answer.json["server"]["id"]
    found = await says(hosting, server, "config openstack/latest/meta_data.json: (.*)\r")
    meta = json.loads(found.group(1))
    assert (meta["hostname"], meta["meta"]) == ("my-guest", {"use": "web"})
    assert meta["public_keys"] == {"mine": key}
    await says(hosting, server, "config openstack/latest/user_data: echo hello\r")
    await says(hosting, server, guest.READY)

    for action, status in (
        ({"os-stop": None}, "SHUTOFF"),
        # A disk attached to a stopped server is present after the next start.
        ({"os-start": None}, "ACTIVE"),
        ({"reboot": {"type": "SOFT"}}, "ACTIVE"),
        ({"reboot": {"type": "HARD"}}, "ACTIVE"),
    ):
        answer = await hosting.call("POST", f"servers/{server}/action", action)
        assert (answer.status, answer.body) == (202, b""), answer
        await settled(hosting, server)
        assert await hosting.status(server, "server") == status
        if status == "SHUTOFF":
            body = {"volumeAttachment": {"volumeId": other}}
            path = f"servers/{server}/os-volume_attachments"
            assert (await hosting.call("POST", path, body)).status == 200
            await hosting.until(other, "in-use")
        assert [each["status"] for each in await listed(hosting)] == ["in-use", "in-use"]
    await says(hosting, server, "boot [2-4];(?s:.*)disk vdb: 2147483648 bytes(?s:.*)ready")
    again = await hosting.call("POST", f"servers/{server}/action", {"os-start": None})
    assert again.status == 409
    await end(hosting, server)
    for number in volume, other:
        await hosting.until(number, "available")


async def settled(running: Running, server: int) -> None:
    """Wait until a server has no task."""
    await until(
        lambda: running.call("GET", f"servers/{server}"),
        lambda shown: shown.json["server"]["OS-EXT-STS:task_state"] is None,
    )


async def listed(running: Running) -> Any:
    """Return the volumes."""
    return (await running.call("GET", "os-volumes")).json["volumes"]


@ensureDeferred
async def test_a_server_outlives_the_daemon(tmp_path: Path, guest_image: Path) -> None:
    daemon = await deferToThread(Process, tmp_path, HOSTING)
    try:
        shutil.copy(guest_image, daemon.images / "linux")
        volume = await deferToThread(daemon.create, "linux")
        await deferToThread(daemon.until_settled)
        disk = {"device_name": "vda", "volume_id": volume, "delete_on_termination": True}
        server = {"name": "x", "flavorRef": "100", "block_device_mapping": [disk]}
        made = await deferToThread(daemon.call, "POST", "servers", {"server": server})
        number = made["server"]["id"]
        for kill in range(3):
            await pause(0.3 * kill)
            await deferToThread(daemon.stop, signal.SIGKILL)
            await deferToThread(daemon.start)
        body: dict[str, Any] = {"os-getConsoleOutput": {}}
        console = ""
        while guest.READY not in console:
            await pause(0.2)
            console = (await deferToThread(daemon.call, "POST", f"servers/{number}/action", body))[
                "output"
            ]
        assert console.count("boot 1;") == 1, "it was started once"
        await deferToThread(daemon.call, "DELETE", f"servers/{number}")
        while (await deferToThread(daemon.get, "servers"))["servers"] or daemon.statuses():
            await pause(0.1)
        assert not daemon.files(), "the volume went with its server"
        assert not list((tmp_path / "servers").iterdir())
    finally:
        await deferToThread(daemon.stop)
