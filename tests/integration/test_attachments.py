"""Volumes as disks of servers that other systems run: no volume in use counts as free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.daemons import OTHER_TENANT, Answer, Running

SERVER = "servers/1001/os-volume_attachments"


async def attach(running: Running, volume: Any, device: Any, server: str = "1001") -> Answer:
    """Request the attachment of a volume."""
    body = {"volumeAttachment": {"volumeId": volume, "device": device}}
    return await running.call("POST", f"servers/{server}/os-volume_attachments", body)


async def available(running: Running) -> int:
    """Return a new volume."""
    volume = await running.create()
    await running.until(volume, "available")
    return volume


@ensureDeferred
async def test_a_volume_comes_and_goes(running: Running) -> None:
    volume = await available(running)
    answer = await attach(running, volume, "vda")
    assert (answer.status, answer.json) == (
        200,
        {"volumeAttachment": {"id": volume, "volumeId": volume}},
    )
    await running.until(volume, "in-use")
    # As in the specification's sample.
    place = {"device": "vda", "id": volume, "serverId": 1001, "volumeId": volume}
    shown = (await running.call("GET", f"os-volumes/{volume}")).json["volume"]
    assert shown["attachments"] == [place]
    assert (await running.call("GET", SERVER)).json == {"volumeAttachments": [place]}
    assert (await running.call("GET", f"{SERVER}/{volume}")).json == {"volumeAttachment": place}
    assert (await running.call("GET", f"{SERVER}?offset=1")).json == {"volumeAttachments": []}
    answer = await running.call("DELETE", f"{SERVER}/{volume}")
    assert (answer.status, answer.body) == (202, b"")
    await running.until(volume, "available")
    assert (await running.call("GET", SERVER)).json == {"volumeAttachments": []}
    assert (await running.call("GET", f"{SERVER}/{volume}")).status == 404
    shown = (await running.call("GET", f"os-volumes/{volume}")).json["volume"]
    assert shown["attachments"] == []


@ensureDeferred
async def test_ids_come_back_as_they_were_sent(running: Running) -> None:
    volume = await available(running)
    answer = await attach(running, str(volume), None, "0f3c-uuid")
    assert answer.json["volumeAttachment"] == {"id": str(volume), "volumeId": str(volume)}
    await running.until(volume, "in-use")
    shown = (await running.call("GET", f"os-volumes/{volume}")).json["volume"]
    assert shown["attachments"] == [
        {"device": "/dev/vdb", "id": volume, "serverId": "0f3c-uuid", "volumeId": volume}
    ]


@ensureDeferred
async def test_what_is_in_use_is_not_free(running: Running) -> None:
    volume = await available(running)
    await attach(running, volume, "vda")
    for status in "attaching", "in-use":
        answer = await running.call("DELETE", f"os-volumes/{volume}")
        assert answer.status == 400
        assert answer.json["badRequest"]["message"] == "Volume status must be available or error"
        for server in "1001", "1002":
            answer = await attach(running, volume, "/dev/vdc", server)
            assert answer.status == 400
            assert answer.json["badRequest"]["message"] == "Volume status must be available"
        await running.until(volume, "in-use")
        assert status
    for force in True, False:
        answer = await running.call(
            "POST", "os-snapshots", {"snapshot": {"volume_id": volume, "force": force}}
        )
        # No backend here clones, and a copy would not show one moment.
        assert answer.status == 400
        told = answer.json["badRequest"]["message"]
        assert ("makes no snapshots of volumes in use, even with force" in told) is force
    assert (await running.call("GET", f"servers/1002/os-volume_attachments/{volume}")).status == 404
    answer = await running.call("DELETE", f"servers/1002/os-volume_attachments/{volume}")
    assert answer.status == 404


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("/dev/sdf", None),
        ("vdz", None),
        ("/dev/xvdb1", None),
        ("auto", None),
        ("", None),
        ("/dev/../etc", "The supplied device path (/dev/../etc) is invalid."),
        ("/dev/vd", "The supplied device path (/dev/vd) is invalid."),
        ("vdb\n", "The supplied device path (vdb\\n) is invalid."),
        ("/dev/vd" + "a" * 40, f"The supplied device path (/dev/vd{'a' * 40}) is invalid."),
    ],
)
@ensureDeferred
async def test_device_names(running: Running, device: str, expected: str | None) -> None:
    volume = await available(running)
    answer = await attach(running, volume, device)
    assert answer.status == (400 if expected else 200)
    if expected:
        assert answer.json["badRequest"]["message"] == expected
        assert await running.status(volume) == "available"


@ensureDeferred
async def test_device_names_are_unique_on_a_server(running: Running) -> None:
    first, second = await available(running), await available(running)
    assert (await attach(running, first, "/dev/vdb")).status == 200
    answer = await attach(running, second, "vdb")
    assert answer.status == 409
    assert answer.json == {
        "inProgress": {"message": "The supplied device path (vdb) is in use.", "code": 409}
    }
    assert (await attach(running, second, "vdb", "1002")).status == 200


@ensureDeferred
async def test_one_of_many_gets_it(running: Running) -> None:
    volume = await available(running)
    answers = await gatherResults(
        [Deferred.fromCoroutine(attach(running, volume, None, str(n))) for n in range(20)]
    )
    assert sorted(answer.status for answer in answers) == [200] + [400] * 19


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"volumeAttachment": {}}, 422),
        ({"volumeAttachment": {"device": "vdb"}}, 400),
        ({"volumeAttachment": {"volumeId": None}}, 400),
        ({"volumeAttachment": {"volumeId": True, "device": "vdb"}}, 400),
        ({"volumeAttachment": {"volumeId": 99, "device": "vdb"}}, 404),
        ({"volumeAttachment": {"volumeId": "x", "device": "vdb"}}, 404),
        ({"volumeAttachment": {"volumeId": 1, "device": 5}}, 400),
    ],
)
@ensureDeferred
async def test_bad_bodies(running: Running, body: Any, status: int) -> None:
    await available(running)
    assert (await running.call("POST", SERVER, body)).status == status


@pytest.mark.parametrize(
    ("server", "status"),
    [("x" * 64, 200), ("x" * 65, 404), ("a%00b", 404), ("%F0%9F%98%80" * 64, 200)],
)
@ensureDeferred
async def test_ids_of_servers(tmp_path: Path, state: str, server: str, status: int) -> None:
    running = Running(tmp_path, state=state)
    try:
        volume = await available(running)
        assert (await attach(running, volume, None, server)).status == status
        path = f"servers/{server}/os-volume_attachments"
        assert (await running.call("GET", path)).status == status
        for method in "GET", "DELETE":
            assert (await running.call(method, f"{path}/99")).status == 404
    finally:
        await running.stop()


@pytest.mark.parametrize("number", [2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
@ensureDeferred
async def test_no_volume_has_such_an_id(tmp_path: Path, state: str, number: int) -> None:
    running = Running(tmp_path, state=state)
    try:
        for body in number, str(number):
            assert (await attach(running, body, None)).status == 404
            wanted = {"snapshot": {"volume_id": body}}
            assert (await running.call("POST", "os-snapshots", wanted)).status == 404
            made = {"volume": {"size": 1, "snapshot_id": body}}
            assert (await running.call("POST", "os-volumes", made)).status == 404
    finally:
        await running.stop()


@ensureDeferred
async def test_swapping_is_refused(running: Running) -> None:
    answer = await running.call("PUT", f"{SERVER}/1", {"volumeAttachment": {"volumeId": 2}})
    assert answer.status == 400


@ensureDeferred
async def test_another_tenant_neither_sees_nor_touches_it(running: Running) -> None:
    volume = await available(running)
    await attach(running, volume, "vda")
    await running.until(volume, "in-use")
    base = f"/v1.1/{OTHER_TENANT}/{SERVER}"
    assert (await running.request("GET", base, token="bob")).json == {"volumeAttachments": []}
    for method in "GET", "DELETE":
        assert (await running.request(method, f"{base}/{volume}", token="bob")).status == 404
    body = {"volumeAttachment": {"volumeId": volume, "device": "vda"}}
    assert (await running.request("POST", base, body, token="bob")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "servers", None),
        ("GET", "servers/detail", None),
        ("GET", "servers/1", None),
        ("DELETE", "servers/1", None),
        ("POST", "servers", {"server": {"name": "x", "flavorRef": "100"}}),
        ("POST", "os-volumes_boot", {"server": {"name": "x", "flavorRef": "100"}}),
        ("POST", "servers/1/action", {"os-getConsoleOutput": {}}),
    ],
)
@ensureDeferred
async def test_without_a_hypervisor_there_are_no_servers(
    running: Running, method: str, path: str, body: Any
) -> None:
    answer = await running.call(method, path, body)
    assert answer.status == 501
    assert answer.json == {
        "notImplemented": {"message": "This service runs no servers.", "code": 501}
    }
