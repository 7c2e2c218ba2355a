"""Attachments of the Block Storage API: volumes for servers of other systems."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from bootvol_plugins.file import FileBackend
from tests.cinder import OF_NOVA, ask, daemon, made, recorded
from tests.daemons import TENANT, Running
from tests.waiting import until

__all__ = ["daemon"]

SERVER: Final = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER: Final = "aaaaaaaa-0000-4000-8000-000000000002"
HOST: Final = {"host": "compute1", "ip": "10.0.0.11", "mountpoint": "/dev/vdb"}
_PROTECTED: Final = (
    f"ConflictNovaUsingAttachment: Detach volume from instance {SERVER} using the Compute API"
)
_NO_HOST: Final = (
    "Invalid input for field/attribute connector. Value: {'no': 'host'}. 'host' is a required"
    " property"
)


def fault(status: int, message: str) -> tuple[int, object]:
    """Return an answer with an error."""
    kind = {400: "badRequest", 403: "forbidden", 409: "conflictingRequest"}[status]
    return status, {kind: {"code": status, "message": message}}


def corrected(name: str, number: int, status: int, reply: Any) -> tuple[int, object]:
    """Return an answer as bootvol gives it on purpose, for a recorded one."""
    if name == "cinder-attachments.json":
        if number == 22:
            # Cinder asks Nova, which knew no such server. bootvol does not ask.
            return fault(409, _PROTECTED)
        if number == 23:
            return 200, {"attachments": []}
        if number == 31:
            # Cinder forgets the mode of the first connector.
            return status, {"attachment": {**reply["attachment"], "attach_mode": "ro"}}
        if number == 55:
            return fault(400, _NO_HOST)
        if number == 61:
            # Cinder compares the filter with another column, and finds nothing.
            one = {"id": "{a4}", "status": "reserved", "instance": SERVER, "volume_id": "{volume}"}
            return 200, {"attachments": [one]}
    else:
        if number == 11:
            # Cinder fails with 500.
            why = "'x' is not of type 'object', 'null'"
            what = "Invalid input for field/attribute connector. Value: x. "
            return fault(400, what + why)
        if number == 14:
            # Cinder fails with 500. The client may have lost the first answer.
            return 202, None
        if number == 26:
            return fault(403, "Access was denied to this resource.")
    return status, reply


def shape(value: object) -> object:
    """Return an answer without what differs from time to time, and between backends."""
    if isinstance(value, list):
        return [shape(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    if "volume" in value:
        kept = ("status", "attachments", "metadata")
        return {"volume": shape({name: value["volume"][name] for name in kept})}
    return {name: _part(name, each) for name, each in value.items()}


def _part(name: str, value: object) -> object:
    if name == "connection_info":
        return "told" if value else {}
    if name in ("attached_at", "detached_at"):
        return "time" if value else value
    return shape(value)


async def replay(daemon: Running, name: str) -> list[tuple[object, ...]]:
    """Send recorded requests; return those with other answers than recorded."""
    ids = {"volume": await made(daemon, "volume", size=1)}
    wrong = list[tuple[object, ...]]()
    exchanges = recorded(name)
    for each in exchanges:
        sent = filled(each, ids)
        answer = await ask(
            daemon,
            sent["method"],
            f"{sent['path']}?{sent['query']}" if sent["query"] else sent["path"],
            sent["body"],
            who=sent["who"],
            version=sent["version"],
            headers=OF_NOVA if sent["served"] else None,
        )
        found = shape(answer.json) if answer.body else None
        status, reply = corrected(name, each["n"], each["status"], each["reply"])
        learn(ids, reply, found)
        expected = filled(reply, ids)
        if (answer.status, found) != (status, expected):
            wrong.append((each["n"], sent, status, expected, answer.status, found))
    assert len(exchanges) > 40
    return wrong


def filled(value: Any, ids: Mapping[str, str]) -> Any:
    """Return a part of a recording with the ids of this test."""
    text = json.dumps(value)
    for place, uuid in ids.items():
        text = text.replace(f"{{{place}}}", uuid)
    return json.loads(text)


def learn(ids: dict[str, str], recording: object, found: object) -> None:
    """Note the ids of attachments that an answer shows for the first time."""
    if isinstance(recording, Mapping) and isinstance(found, Mapping):
        for name, value in recording.items():
            learn(ids, value, found.get(name))
    elif isinstance(recording, list) and isinstance(found, list):
        for one, other in zip(recording, found, strict=False):
            learn(ids, one, other)
    elif isinstance(recording, str) and re.fullmatch(r"\{a[0-9]\}", recording):
        ids.setdefault(recording[1:-1], str(found))


@ensureDeferred
async def test_attachments_are_as_recorded(daemon: Running) -> None:
    wrong = await replay(daemon, "cinder-attachments.json")
    assert wrong == [], "\n".join(map(str, wrong))


@ensureDeferred
async def test_volumes_go_by_hand_as_recorded(daemon: Running) -> None:
    wrong = await replay(daemon, "cinder-attaching-by-hand.json")
    assert wrong == [], "\n".join(map(str, wrong))


class Nova:
    """The calls of Nova on a volume, each sent twice: Nova repeats calls without an answer."""

    def __init__(self, daemon: Running, volume: str) -> None:
        self.daemon = daemon
        self.volume = volume

    async def send(
        self, method: str, path: str, body: object = None, status: int = 200, version: str = "3.44"
    ) -> Any:
        """Send a call of a user as Nova does; return the body of the answer."""
        answer = await ask(self.daemon, method, path, body, version=version, headers=OF_NOVA)
        assert answer.status == status, (method, path, answer.body)
        return answer.json if answer.body else None

    async def reserve(self, server: str = SERVER) -> str:
        """Reserve the volume; return the attachment's id."""
        body = {
            "attachment": {
                "volume_uuid": self.volume,
                "connector": None,
                "instance_uuid": server,
            }
        }
        return str((await self.send("POST", "attachments", body))["attachment"]["id"])

    async def connect(self, attachment: str, host: str = "compute1") -> Any:
        """Tell a host the way; return the connection."""
        body = {"attachment": {"connector": {**HOST, "host": host}}}
        told = [await self.send("PUT", f"attachments/{attachment}", body) for _ in range(2)]
        infos = [each["attachment"]["connection_info"] for each in told]
        assert infos[0] == infos[1]
        return infos[0]

    async def complete(self, attachment: str) -> None:
        """Note that the server has the volume."""
        for _ in range(2):
            await self.send("POST", f"attachments/{attachment}/action", {"os-complete": None}, 204)

    async def free(self, attachment: str) -> list[Any]:
        """Delete an attachment; return the volume's other ones."""
        left = (await self.send("DELETE", f"attachments/{attachment}"))["attachments"]
        await self.send("DELETE", f"attachments/{attachment}", status=404)
        return list(left)

    async def act(self, name: str) -> None:
        """Act on the volume."""
        await self.send("POST", f"volumes/{self.volume}/action", {name: None}, 202, "3.0")

    async def status(self) -> str:
        """Return the volume's status."""
        return str((await self.send("GET", f"volumes/{self.volume}"))["volume"]["status"])


@ensureDeferred
async def test_nova_attaches_detaches_and_deletes_a_server(daemon: Running) -> None:
    """The order is that of cinder-v3.md, section 15: attach, detach, delete a server."""
    nova = Nova(daemon, await made(daemon, "volume", size=1))
    first = await nova.reserve()
    told = await nova.connect(first)
    assert told["driver_volume_type"] == "local"
    assert (told["attachment_id"], told["qos_specs"]) == (first, None)
    await nova.complete(first)
    assert await nova.status() == "in-use"
    # The guest refuses to let go, and then does.
    await nova.act("os-begin_detaching")
    await nova.act("os-roll_detaching")
    assert await nova.status() == "in-use"
    await nova.act("os-begin_detaching")
    assert await nova.status() == "detaching"
    assert await nova.free(first) == []
    assert await nova.status() == "available"
    # The end of a server comes without an announcement.
    second = await nova.reserve()
    await nova.connect(second)
    await nova.complete(second)
    await nova.send("DELETE", f"volumes/{nova.volume}", status=400)
    await nova.free(second)
    await nova.send("DELETE", f"volumes/{nova.volume}", status=202)


@ensureDeferred
async def test_a_volume_of_nova_becomes_larger(daemon: Running) -> None:
    """An attachment may end meanwhile, and the volume then is free.

    Break: `src/bootvol/worker/tasks/volumes.py`: `event = holds.after_growth(db, self.id)` ->
    `pass`
    """
    nova = Nova(daemon, await made(daemon, "volume", size=1))
    first = await nova.reserve()
    await nova.connect(first)
    await nova.complete(first)
    action = f"volumes/{nova.volume}/action"
    await nova.send("POST", action, {"os-extend": {"new_size": 2}}, 400, "3.41")
    for size in (2, 3):
        await nova.send("POST", action, {"os-extend": {"new_size": size}}, 202, "3.42")
        if size == 3:
            await nova.free(first)
        await until(nova.status, ("in-use" if size == 2 else "available").__eq__)
        shown = (await nova.send("GET", f"volumes/{nova.volume}"))["volume"]
        assert shown["size"] == size


@ensureDeferred
async def test_nova_moves_and_rebuilds_a_server(daemon: Running) -> None:
    """The order is that of cinder-v3.md, section 15: live migration, and the start of a rebuild."""
    nova = Nova(daemon, await made(daemon, "volume", size=1))
    source = await nova.reserve()
    await nova.connect(source)
    await nova.complete(source)
    target = await nova.reserve()
    assert await nova.status() == "in-use"
    await nova.connect(target, "compute2")
    shown = (await ask(daemon, "GET", f"volumes/{nova.volume}", who="admin")).json["volume"]
    assert [each["host_name"] for each in shown["attachments"]] == ["compute1"]
    await nova.complete(target)
    (left,) = await nova.free(source)
    assert (left["id"], await nova.status()) == (target, "in-use")
    again = await nova.reserve()
    (left,) = await nova.free(target)
    assert (left["id"], left["status"], await nova.status()) == (again, "reserved", "reserved")
    await nova.connect(again, "compute2")
    await nova.complete(again)
    # The move fails half way: the server stays on its host.
    failed = await nova.reserve()
    await nova.connect(failed, "compute3")
    await nova.free(failed)
    assert await nova.status() == "in-use"
    await nova.free(again)


@ensureDeferred
async def test_operators_and_others(daemon: Running) -> None:
    """An operator moves servers of all projects, and frees no volume under them."""
    volume = await made(daemon, "volume", size=1)
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": SERVER, "connector": HOST}}
    assert (await ask(daemon, "POST", "attachments", body, who="other")).status == 404
    made_by = await ask(daemon, "POST", "attachments", body, who="admin")
    assert made_by.status == 200
    path = f"attachments/{made_by.json['attachment']['id']}"
    assert (await ask(daemon, "GET", path)).status == 200
    assert (await ask(daemon, "POST", f"{path}/action", {"os-complete": {}})).status == 204
    for who, status in (("other", 404), ("member", 409), ("admin", 409)):
        assert (await ask(daemon, "DELETE", path, who=who)).status == status
        calls: tuple[Any, ...] = (
            {"os-detach": {}},
            {"os-terminate_connection": {"connector": HOST}},
            {"os-initialize_connection": {"connector": HOST}},
        )
        for action in calls:
            answer = await ask(daemon, "POST", f"volumes/{volume}/action", action, who=who)
            assert answer.status == status, (who, action)
    forced = {"os-force_detach": {"attachment_id": None}}
    answer = await ask(daemon, "POST", f"volumes/{volume}/action", forced, who="admin")
    assert answer.status == 409
    # Not every second token is that of a service.
    for token, status in (("ann", 409), ("root", 409), ("nobody", 401), ("nova", 200)):
        headers = {"X-Service-Token": token}
        assert (await ask(daemon, "DELETE", path, headers=headers)).status == status
    assert (await ask(daemon, "GET", "attachments?all_tenants=1", who="admin")).json == {
        "attachments": []
    }


@ensureDeferred
async def test_lists_show_pages(daemon: Running) -> None:
    ids = list[str]()
    for _ in range(3):
        volume = await made(daemon, "volume", size=1)
        body = {"attachment": {"volume_uuid": volume, "instance_uuid": SERVER}}
        answer = await ask(daemon, "POST", "attachments", body)
        ids.insert(0, answer.json["attachment"]["id"])

    async def listed(query: str, who: str = "member") -> list[str]:
        answer = await ask(daemon, "GET", f"attachments{query}", who=who)
        assert answer.status == 200, answer.body
        return [each["id"] for each in answer.json["attachments"]]

    assert await listed("") == await listed("/detail") == ids
    assert await listed("", "other") == await listed("?all_tenants=1", "other") == []
    assert await listed("?all_tenants=1", "admin") == ids
    assert await listed("?limit=2") == ids[:2]
    assert await listed(f"?limit=2&marker={ids[1]}") == ids[2:]
    assert await listed("?status=attached") == await listed(f"?instance_id={OTHER}") == []
    assert await listed("?attach_status=reserved&sort=created_at:asc") == ids[::-1]
    for query, status in (("?marker=x", 404), ("?nosuch=1", 400), ("?sort=x", 400)):
        assert (await ask(daemon, "GET", f"attachments{query}")).status == status


@ensureDeferred
async def test_volumes_for_reading_only_stay_so(daemon: Running) -> None:
    """Break: `src/bootvol/service/holding/holds.py`: `if volume.readonly else` -> `if 0 else`."""
    volume = await made(daemon, "volume", size=1)
    action = f"volumes/{volume}/action"
    flag = {"os-update_readonly_flag": {"readonly": True}}
    assert (await ask(daemon, "POST", action, flag)).status == 202
    body = {
        "attachment": {
            "volume_uuid": volume,
            "instance_uuid": SERVER,
            "connector": HOST,
            "mode": "rw",
        }
    }
    told = (await ask(daemon, "POST", "attachments", body)).json["attachment"]
    assert told["connection_info"]["access_mode"] == "ro"
    shown = (await ask(daemon, "GET", f"attachments/{told['id']}")).json["attachment"]
    assert shown["attach_mode"] == "ro"
    path = f"attachments/{told['id']}"
    assert (await ask(daemon, "DELETE", path, headers=OF_NOVA)).status == 200
    connect = {"os-initialize_connection": {"connector": HOST}}
    info = (await ask(daemon, "POST", action, connect)).json["connection_info"]
    assert info["data"]["access_mode"] == "ro"
    attach: dict[str, Any] = {"os-attach": {"mountpoint": "/dev/vdb", "host_name": "h"}}
    assert (await ask(daemon, "POST", action, attach)).status == 400
    attach["os-attach"]["mode"] = "ro"
    assert (await ask(daemon, "POST", action, attach)).status == 202


@ensureDeferred
async def test_bodies_are_refused_with_reasons(daemon: Running) -> None:
    volume = await made(daemon, "volume", size=1)
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": SERVER}}
    reserved = (await ask(daemon, "POST", "attachments", body)).json["attachment"]
    path = f"attachments/{reserved['id']}"
    for connector, why in (
        (None, "None is not of type 'object'"),
        ("x", "'x' is not of type 'object'"),
        ({"host": ""}, "'host' is a required property"),
        ({"host": 7}, "7 is not of type 'string'"),
        ({"host": "h" * 256}, "is too long"),
        ({"host": "h", "mode": "rx"}, "'rx' is not one of ['rw', 'ro']"),
        ({"host": "h", "mountpoint": ["x"]}, "is not of type 'string'"),
        ({"host": "h", "more": "x" * 20000}, "the connector is too large"),
    ):
        answer = await ask(daemon, "PUT", path, {"attachment": {"connector": connector}})
        assert answer.status == 400
        assert why in answer.json["badRequest"]["message"]
    # PostgreSQL stores no zero character.
    odd = {"attachment": {"connector": {"host": "h", "x": ["\0"]}}}
    assert (await ask(daemon, "PUT", path, odd)).status == 400
    for action in ({}, {"os-complete": 1, "x": 2}, {"os-nosuch": 1}):
        assert (await ask(daemon, "POST", f"{path}/action", action)).status == 400
    for name in ("x", "x%00", "none"):
        assert (await ask(daemon, "GET", f"attachments/{name}")).status == 404
        assert (await ask(daemon, "DELETE", f"attachments/{name}", who="admin")).status == 404


@ensureDeferred
async def test_both_apis_show_the_truth(daemon: Running) -> None:
    """A volume at another system's server is in use for the older API, too, and stays there."""
    nova = Nova(daemon, await made(daemon, "volume", size=1))
    attachment = await nova.reserve()
    v2 = f"/v2/{TENANT}"
    place = f"{v2}/servers/one/os-volume_attachments"
    wanted = {"volumeAttachment": {"volumeId": nova.volume}}
    for step, status in (
        (None, "reserved"),
        (nova.connect, "attaching"),
        (nova.complete, "in-use"),
    ):
        if step is not None:
            await step(attachment)
        shown = await daemon.request("GET", f"{v2}/os-volumes/{nova.volume}", None, "ann")
        assert shown.json["volume"]["status"] == status
        assert (await daemon.request("POST", place, wanted, "ann")).status == 400
        gone = await daemon.request("DELETE", f"{v2}/os-volumes/{nova.volume}", None, "ann")
        assert gone.status == 400
    (one,) = shown_in_use = (
        await daemon.request("GET", f"{v2}/os-volumes/{nova.volume}", None, "ann")
    ).json["volume"]["attachments"]
    assert len(shown_in_use) == 1
    assert (one["serverId"], one["device"]) == (SERVER, "/dev/vdb")
    await nova.free(attachment)
    # The other way round: an attachment of the older API shows here, and stays.
    assert (await daemon.request("POST", place, wanted, "ann")).status == 200
    await until(nova.status, lambda found: found == "in-use")
    (ours,) = (await nova.send("GET", "attachments/detail"))["attachments"]
    assert (ours["instance"], ours["status"], ours["connection_info"]) == ("one", "attached", {})
    volume = (await nova.send("GET", f"volumes/{nova.volume}"))["volume"]
    assert volume["attachments"][0]["attachment_id"] == ours["id"]
    path = f"attachments/{ours['id']}"
    assert (await nova.send("GET", path))["attachment"] == ours
    await nova.send("DELETE", path, status=409)
    await nova.send("PUT", path, {"attachment": {"connector": HOST}}, 409)
    await nova.send("POST", f"{path}/action", {"os-complete": None}, 409)
    taken = await nova.send(
        "POST", "attachments", {"attachment": {"volume_uuid": nova.volume}}, 400
    )
    assert "current status is in-use" in taken["badRequest"]["message"]
    calls: tuple[Any, ...] = ({"os-begin_detaching": None}, {"os-detach": {}})
    for action in calls:
        await nova.send("POST", f"volumes/{nova.volume}/action", action, 409)
    assert await nova.status() == "in-use"


@ensureDeferred
async def test_a_volume_may_be_reserved_before_its_image_has_come(
    daemon: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break: `src/bootvol/worker/tasks/storage.py`: `if event is Event.COMPLETE` -> `if False`."""
    go: Deferred[None] = Deferred()
    real = FileBackend.allocate

    async def allocate(self: FileBackend, volume: str, size: int) -> None:
        await go
        await real(self, volume, size)

    monkeypatch.setattr(FileBackend, "allocate", allocate)
    body = {"volume": {"size": 1, "imageRef": "disk"}}
    volume = (await ask(daemon, "POST", "volumes", body)).json["volume"]["id"]
    nova = Nova(daemon, volume)
    await until(nova.status, lambda found: found == "downloading")
    attachment = await nova.reserve()
    await nova.send(
        "PUT", f"attachments/{attachment}", {"attachment": {"connector": HOST}}, status=400
    )
    await nova.send("DELETE", f"volumes/{volume}", status=400)
    go.callback(None)
    await until(nova.status, lambda found: found == "reserved")
    await nova.connect(attachment)
    await nova.complete(attachment)
    assert await nova.status() == "in-use"


@ensureDeferred
async def test_hosts_learn_the_limits_of_speed(daemon: Running) -> None:
    """Break: `src/bootvol/service/holding/rules.py`: `is Consumer.BACK_END` -> `is 0`."""

    async def admin(method: str, path: str, body: object = None) -> Any:
        answer = await ask(daemon, method, path, body, who="admin")
        assert answer.status in (200, 202), answer.body
        return answer.json if answer.body else None

    for consumer, expected in (
        ("front-end", {"read_iops_sec": "100"}),
        ("both", {"read_iops_sec": "100"}),
        ("back-end", None),
    ):
        kind = await admin("POST", "types", {"volume_type": {"name": consumer}})
        specs = {"name": consumer, "consumer": consumer, "read_iops_sec": "100"}
        qos = (await admin("POST", "qos-specs", {"qos_specs": specs}))["qos_specs"]["id"]
        number = kind["volume_type"]["id"]
        await admin("GET", f"qos-specs/{qos}/associate?vol_type_id={number}")
        nova = Nova(daemon, await made(daemon, "volume", size=1, volume_type=consumer))
        attachment = await nova.reserve()
        assert (await nova.connect(attachment))["qos_specs"] == expected
        shown = (await nova.send("GET", f"attachments/{attachment}"))["attachment"]
        assert shown["connection_info"]["qos_specs"] == expected
        await nova.free(attachment)
        action = {"os-initialize_connection": {"connector": HOST}}
        told = await nova.send("POST", f"volumes/{nova.volume}/action", action)
        assert told["connection_info"]["data"]["qos_specs"] == expected
