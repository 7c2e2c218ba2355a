"""The conversation (specification, section 11), over a real socket, with a booting server."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from pytest_twisted import ensureDeferred

from tests import guest
from tests.daemons import TENANT, Running, pause
from tests.people import ACCESS_KEY, PEOPLE, SECRET_KEY
from tests.system.test_servers import HOSTING, says
from tests.waiting import until

#: The keys in one client's strict schema for the answer to a create.
PLAIN = {
    "attachments", "availabilityZone", "createdAt", "displayDescription", "displayName", "id",
    "metadata", "size", "snapshotId", "status", "volumeType",
}  # fmt: skip


class Client:
    """A client of 2012: logs in, finds the endpoint, and calls it.

    :param running: a daemon with log-ins.
    """

    def __init__(self, running: Running) -> None:
        self.running = running
        self.token = ""
        self.base = ""

    async def log_in(self) -> None:
        """Step 1."""
        credentials = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        body = {"auth": {"apiAccessKeyCredentials": credentials, "tenantId": int(TENANT)}}
        answer = await self.running.request("POST", "/v2.0/tokens", body, token=None)
        assert answer.status == 200, answer
        access = answer.json["access"]
        self.token = access["token"]["id"]
        (url,) = (
            endpoint["publicURL"]
            for service in access["serviceCatalog"]
            for endpoint in service["endpoints"]
            if service["name"] == "Block Storage" and endpoint["region"] == "nova"
        )
        assert url.endswith(f"/v1.1/{TENANT}")
        self.base = url.partition("//")[2].partition("/")[2]

    async def ask(self, method: str, path: str, status: int, body: Any = None) -> Any:
        """Call with a content type, as such clients always do; the status must be equal."""
        answer = await self.running.request(
            method,
            f"/{self.base}/{path}",
            body,
            token=self.token,
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        )
        assert answer.status == status, answer
        return answer.json if answer.body else None

    async def until(self, path: str, kind: str, *wanted: str) -> Any:
        """Poll until the resource has a status."""
        shown = await until(
            lambda: self.ask("GET", path, 200), lambda found: found[kind]["status"] in wanted
        )
        return shown[kind]


@pytest_twisted.async_yield_fixture
async def client(tmp_path: Path, guest_image: Path) -> AsyncIterator[Client]:
    """A client, and a daemon with servers."""
    running = Running(tmp_path, HOSTING, identity=PEOPLE)
    shutil.copy(guest_image, running.images / "4")
    client = Client(running)
    yield client
    for server in (await client.ask("GET", "servers", 200))["servers"]:
        await client.ask("DELETE", f"servers/{server['id']}", 204)
    while (await client.ask("GET", "servers", 200))["servers"]:
        await pause(0.1)
    await running.stop()


@ensureDeferred
async def test_one_full_conversation(client: Client) -> None:
    await client.log_in()  # 1
    wanted = {
        "display_name": "root",
        "display_description": "of the guest",
        "size": 10,
        "imageRef": "4",
        "metadata": {"k": "v"},
    }
    made = (await client.ask("POST", "os-volumes", 200, {"volume": wanted}))["volume"]  # 2
    assert made.keys() == PLAIN
    assert (made["status"], made["size"], made["metadata"]) == ("creating", 10, {"k": "v"})
    root = made["id"]
    shown = await client.until(f"os-volumes/{root}", "volume", "available")  # 3
    assert shown == {**made, "status": "available"}
    blank = (await client.ask("POST", "os-volumes", 200, {"volume": {"size": 1}}))["volume"]["id"]
    listed = (await client.ask("GET", "os-volumes", 200))["volumes"]  # 4
    assert [each["id"] for each in listed] == [root, blank]
    bootable = {**shown, "sourceImageRef": "4"}
    assert await client.ask("GET", "hp-bootable-volumes", 200) == {"volumes": [bootable]}
    assert await client.ask("GET", f"hp-bootable-volumes/{root}", 200) == {"volume": bootable}
    fault = (await client.ask("GET", f"hp-bootable-volumes/{blank}", 404))["itemNotFound"]
    assert fault == {"message": f"Volume {blank} could not be found.", "code": 404}
    names = {"display_name": "s", "display_description": None, "volume_id": root}
    made = (await client.ask("POST", "os-snapshots", 200, {"snapshot": names}))["snapshot"]  # 5
    assert made["status"] == "creating"
    snapshot = made["id"]
    await client.until(f"os-snapshots/{snapshot}", "snapshot", "available")
    copy = {"volume": {"display_name": "c", "size": 10, "snapshot_id": snapshot}}
    made = (await client.ask("POST", "os-volumes", 200, copy))["volume"]  # 6
    assert (made["status"], made["snapshotId"]) == ("creating", str(snapshot))
    await client.until(f"os-volumes/{made['id']}", "volume", "available")
    server = await boot(client, root)  # 9, needed by 7
    await says(client.running, server, guest.READY, token=client.token)
    attachments = f"servers/{server}/os-volume_attachments"
    body = {"volumeAttachment": {"volumeId": made["id"], "device": "/dev/sdf"}}
    attached = (await client.ask("POST", attachments, 200, body))["volumeAttachment"]  # 7
    assert attached == {"id": made["id"], "volumeId": made["id"]}
    shown = await client.until(f"os-volumes/{made['id']}", "volume", "in-use")
    place = {"id": made["id"], "volumeId": made["id"], "serverId": server, "device": "/dev/sdf"}
    assert shown["attachments"] == [place]
    assert await client.ask("DELETE", f"{attachments}/{made['id']}", 202) is None  # 8
    await client.until(f"os-volumes/{made['id']}", "volume", "available")
    assert await client.ask("DELETE", f"servers/{server}", 204) is None
    await client.until(f"os-volumes/{root}", "volume", "available")
    for path in f"os-snapshots/{snapshot}", f"os-volumes/{root}":  # 10
        assert await client.ask("DELETE", path, 202) is None
        while not await gone(client, path):
            await pause(0.1)


async def boot(client: Client, volume: int) -> int:
    """Step 9; return the server's id."""
    mapping = {
        "device_name": "vda",
        "volume_id": str(volume),
        "volume_size": "",
        "delete_on_termination": "0",
    }
    body = {
        "flavorRef": "100",
        "imageRef": None,
        "name": "guest",
        "min_count": 1,
        "max_count": 1,
        "block_device_mapping": [mapping],
    }
    made = await client.ask("POST", "os-volumes_boot", 200, {"server": body})
    number: int = made["server"]["id"]
    return number


async def gone(client: Client, path: str) -> bool:
    """Return whether a path answers 404."""
    answer = await client.running.request("GET", f"/{client.base}/{path}", token=client.token)
    assert answer.status in {200, 404}
    return answer.status == 404
