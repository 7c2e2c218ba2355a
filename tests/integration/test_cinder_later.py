"""Calls and members of later microversions of the Block Storage API."""

from __future__ import annotations

from functools import partial

import pytest
from pytest_twisted import ensureDeferred

from tests.cinder import ADMIN, ask, daemon, made
from tests.daemons import TENANT, Running
from tests.waiting import until

__all__ = ["daemon"]


@ensureDeferred
async def test_metadata_that_others_have_changed_stays(daemon: Running) -> None:
    """A change that names an outdated state of the metadata does nothing.

    Break: `src/bootvol/api/cinder/metadata.py`: `raise _Changed` -> `pass`.
    """
    volume = await made(daemon, "volume", size=1, metadata={"a": "1"})
    snapshot = await made(daemon, "snapshot", volume_id=volume, metadata={"a": "1"})
    for path in (f"volumes/{volume}/metadata", f"snapshots/{snapshot}/metadata"):
        seen = (await ask(daemon, "GET", path)).headers["etag"]
        assert "etag" not in (await ask(daemon, "GET", path, version="3.14")).headers
        other = {"metadata": {"a": "2"}}
        assert (await ask(daemon, "PUT", path, other)).status == 200
        for target, body in ((path, {"metadata": {}}), (f"{path}/b", {"meta": {"b": "1"}})):
            late = await ask(daemon, "PUT", target, body, headers={"If-Match": seen})
            assert (late.status, late.body) == (412, b"")
        assert (await ask(daemon, "GET", path)).json == other
        seen = (await ask(daemon, "GET", path)).headers["etag"]
        for state in (f'"{seen}"', f"x, {seen}", "*"):
            answer = await ask(daemon, "PUT", path, other, headers={"If-Match": state})
            assert answer.status == 200
        # Before 3.15, the header means nothing.
        answer = await ask(
            daemon, "PUT", path, {"metadata": {}}, version="3.14", headers={"If-Match": "x"}
        )
        assert (answer.status, answer.json) == (200, {"metadata": {}})


@ensureDeferred
async def test_an_offer_may_leave_the_snapshots(daemon: Running) -> None:
    """Break: `src/bootvol/service/transfers.py`: `if not found.no_snapshots` -> `if True`."""
    volume = await made(daemon, "volume", size=1)
    snapshot = await made(daemon, "snapshot", volume_id=volume)
    body = {"transfer": {"volume_id": volume, "no_snapshots": True}}
    assert (await ask(daemon, "POST", "volume-transfers", body, version="3.54")).status == 404
    offer = (await ask(daemon, "POST", "volume-transfers", body)).json["transfer"]
    path = f"volume-transfers/{offer['id']}"
    for version, members in (
        ("3.55", {"no_snapshots"}),
        ("3.57", {"no_snapshots", "source_project_id", "destination_project_id", "accepted"}),
    ):
        shown = (await ask(daemon, "GET", path, version=version)).json["transfer"]
        assert set(shown) == {"id", "created_at", "name", "volume_id", "links"} | members
    assert (shown["no_snapshots"], shown["source_project_id"]) == (True, TENANT)
    page = (await ask(daemon, "GET", "volume-transfers/detail?limit=1")).json
    assert [each["id"] for each in page["transfers"]] == [offer["id"]]
    rest = await ask(daemon, "GET", f"volume-transfers?limit=1&marker={offer['id']}")
    assert rest.json == {"transfers": []}
    key = {"accept": {"auth_key": offer["auth_key"]}}
    assert (await ask(daemon, "POST", f"{path}/accept", key, who="other")).status == 202
    assert (await ask(daemon, "GET", f"volumes/{volume}", who="other")).status == 200
    assert (await ask(daemon, "GET", f"snapshots/{snapshot}")).status == 200
    # The copy's origin stays with the giver, and the giver can still use the snapshot.
    await made(daemon, "volume", snapshot_id=snapshot)


@ensureDeferred
async def test_a_project_has_a_default_type(daemon: Running) -> None:
    answer = await ask(daemon, "POST", "types", {"volume_type": {"name": "fast"}}, who="admin")
    fast = answer.json["volume_type"]["id"]
    path = f"default-types/{TENANT}"
    assert (await ask(daemon, "GET", path, who="admin")).status == 404
    body = {"default_type": {"volume_type": "fast"}}
    assert (await ask(daemon, "PUT", path, body)).status == 403
    shown = {"default_type": {"project_id": TENANT, "volume_type_id": fast}}
    put = await ask(daemon, "PUT", path, body, who="admin")
    assert (put.status, put.json) == (200, shown)
    assert (await ask(daemon, "GET", path, who="admin")).json == shown
    listed = (await ask(daemon, "GET", "default-types", who="admin")).json
    assert listed == {"default_types": [shown["default_type"]]}
    for wrong in ("nosuch", "__DEFAULT__"):
        body = {"default_type": {"volume_type": wrong}}
        assert (await ask(daemon, "PUT", path, body, who="admin")).status == 400
    default = (await ask(daemon, "GET", "types/default")).json["volume_type"]
    assert default["name"] == "fast"
    volume = await made(daemon, "volume", size=1)
    found = (await ask(daemon, "GET", f"volumes/{volume}")).json["volume"]
    assert (found["volume_type"], found["volume_type_id"]) == ("fast", fast)
    assert (await ask(daemon, "DELETE", path, who="admin")).status == 204
    assert (await ask(daemon, "DELETE", path, who="admin")).status == 204
    volume = await made(daemon, "volume", size=1)
    found = (await ask(daemon, "GET", f"volumes/{volume}")).json["volume"]
    assert found["volume_type"] == "__DEFAULT__"


@ensureDeferred
async def test_operators_see_the_limits_of_all_projects(daemon: Running) -> None:
    await made(daemon, "volume", size=1)
    path = f"limits?project_id={TENANT}"
    for who, version, used in (("admin", "3.39", 1), ("admin", "3.38", 0), ("other", "3.39", 0)):
        limits = (await ask(daemon, "GET", path, who=who, version=version)).json["limits"]
        assert limits["absolute"]["totalVolumesUsed"] == used
    mine = (await ask(daemon, "GET", f"limits?project_id={ADMIN}")).json["limits"]
    assert mine["absolute"]["totalVolumesUsed"] == 1


async def status(daemon: Running, path: str) -> str:
    kind = path.partition("/")[0].removesuffix("s")
    return str((await ask(daemon, "GET", path)).json[kind]["status"])


@ensureDeferred
async def test_operators_set_statuses_that_are_not_false(daemon: Running) -> None:
    """Operators act on the objects of all projects; others do not.

    Break: `src/bootvol/service/resets.py`: `if not states.is_finished(db, kind, found.id):` ->
    `if False:`.
    """
    volume = await made(daemon, "volume", size=1)
    snapshot = await made(daemon, "snapshot", volume_id=volume)
    for path in (f"volumes/{volume}", f"snapshots/{snapshot}"):
        action = f"{path}/action"

        async def reset(who: str = "admin", action: str = action, **given: str) -> int:
            answer = await ask(daemon, "POST", action, {"os-reset_status": given}, who=who)
            return answer.status

        assert await reset("member", status="error") == 403
        assert await reset("other", status="error") == 404
        assert (await ask(daemon, "GET", path, who="other")).status == 404
        assert (await ask(daemon, "GET", path, who="admin")).status == 200
        for name in ("error", "available", "creating", "error_deleting", "available", "ERROR"):
            assert await reset(status=name) == 202
            assert await status(daemon, path) == name.lower()
        for name in ("nosuch", "in-use"):
            assert await reset(status=name) == 400
        assert await reset() == 400
        assert await reset(status="available") == 202
    shown = await ask(daemon, "GET", f"volumes?status=available&id={volume}", who="admin")
    assert shown.status == 200
    for given in ({"attach_status": "attached"}, {"migration_status": "migrating"}):
        body = {"os-reset_status": given}
        answer = await ask(daemon, "POST", f"volumes/{volume}/action", body, who="admin")
        assert answer.status == 400
    body = {"os-reset_status": {"attach_status": "detached", "migration_status": "none"}}
    answer = await ask(daemon, "POST", f"volumes/{volume}/action", body, who="admin")
    assert answer.status == 202
    reason = {"os-reset_status": {"status": "error"}}
    await ask(daemon, "POST", f"volumes/{volume}/action", reason, who="admin")
    told = (await daemon.call("GET", "os-volumes/1/error")).json["error"]
    assert told["code"] == "status-set"
    for path in (f"snapshots/{snapshot}", f"volumes/{volume}"):
        answer = await ask(daemon, "POST", f"{path}/action", {"os-force_delete": {}}, who="admin")
        assert answer.status == 202
        await until(
            partial(ask, daemon, "GET", path, who="admin"), lambda found: found.status == 404
        )


@ensureDeferred
async def test_failed_imports_are_not_made_available(daemon: Running) -> None:
    """A status that work decides stays, whatever an operator says."""
    (daemon.images / "page").write_bytes(b"<!DOCTYPE html><html></html>" * 100)
    answer = await ask(daemon, "POST", "volumes", {"volume": {"size": 1, "imageRef": "page"}})
    path = f"volumes/{answer.json['volume']['id']}"
    await until(partial(status, daemon, path), lambda found: found == "error")
    body = {"os-reset_status": {"status": "available"}}
    refused = await ask(daemon, "POST", f"{path}/action", body, who="admin")
    assert refused.status == 400
    assert "not whole" in refused.json["badRequest"]["message"]
    # The backend cannot make a volume without its directory.
    daemon.volumes.rename(daemon.volumes.with_name("away"))
    answer = await ask(daemon, "POST", "volumes", {"volume": {"size": 1}})
    path = f"volumes/{answer.json['volume']['id']}"
    for name in ("available", "error", "creating"):
        body = {"os-reset_status": {"status": name}}
        refused = await ask(daemon, "POST", f"{path}/action", body, who="admin")
        assert refused.status == 400
        assert "wait for the end of the work" in refused.json["badRequest"]["message"]
    daemon.volumes.with_name("away").rename(daemon.volumes)
    await until(partial(status, daemon, path), lambda found: found == "available")


@ensureDeferred
async def test_a_volume_of_a_server_keeps_its_status(daemon: Running) -> None:
    """Break: `src/bootvol/service/resets.py`: `if attachment_rows.is_promised(db, volume_id):` ->
    `if False:`.
    """
    volume = await made(daemon, "volume", size=1)
    body = {"volumeAttachment": {"volumeId": 1, "device": "/dev/vdb"}}
    answer = await daemon.call("POST", "servers/77/os-volume_attachments", body)
    assert answer.status == 200, answer.body
    await until(partial(status, daemon, f"volumes/{volume}"), lambda found: found == "in-use")
    action = f"volumes/{volume}/action"
    for given in ({"status": "available"}, {"status": "error"}, {"attach_status": "detached"}):
        answer = await ask(daemon, "POST", action, {"os-reset_status": given}, who="admin")
        assert answer.status == 400
        assert "detach the volume first" in answer.json["badRequest"]["message"]
    same = {"os-reset_status": {"status": "in-use", "attach_status": "attached"}}
    assert (await ask(daemon, "POST", action, same, who="admin")).status == 202
    assert await status(daemon, f"volumes/{volume}") == "in-use"


@ensureDeferred
async def test_other_programs_report_on_marked_snapshots(daemon: Running) -> None:
    volume = await made(daemon, "volume", size=1)
    path = f"snapshots/{await made(daemon, 'snapshot', volume_id=volume)}"
    action = f"{path}/action"

    async def report(state: str, progress: str | None = None) -> int:
        given = {"status": state, **({"progress": progress} if progress else {})}
        body = {"os-update_snapshot_status": given}
        return (await ask(daemon, "POST", action, body)).status

    assert await report("error") == 400
    await ask(daemon, "POST", action, {"os-reset_status": {"status": "creating"}}, who="admin")
    assert await report("deleting") == 400
    assert await report("error", "x") == 400
    assert await report("error", "80%") == 202
    shown = (await ask(daemon, "GET", path)).json["snapshot"]
    assert (shown["status"], shown["os-extended-snapshot-attributes:progress"]) == ("error", "80%")
    await ask(daemon, "POST", action, {"os-reset_status": {"status": "available"}}, who="admin")
    shown = (await ask(daemon, "GET", path)).json["snapshot"]
    assert shown["os-extended-snapshot-attributes:progress"] == "100%"


@ensureDeferred
async def test_messages_tell_why_an_import_failed(daemon: Running) -> None:
    """Only the volume's project gets the message.

    Break: `src/bootvol/store/states.py`: `if error is not None and kind is not Kind.SERVER:` ->
    `if False:`.
    """
    (daemon.images / "page").write_bytes(b"<!DOCTYPE html><html></html>" * 100)
    answer = await ask(daemon, "POST", "volumes", {"volume": {"size": 1, "imageRef": "page"}})
    uuid, request = answer.json["volume"]["id"], answer.headers["x-compute-request-id"]
    await until(partial(status, daemon, f"volumes/{uuid}"), lambda found: found == "error")
    (message,) = (await ask(daemon, "GET", "messages", version="3.3")).json["messages"]
    assert (message["resource_uuid"], message["resource_type"]) == (uuid, "VOLUME")
    assert (message["request_id"], message["message_level"]) == (request, "ERROR")
    assert message["event_id"] == "VOLUME_VOLUME_005_001"
    reason = (await daemon.call("GET", "os-volumes/1/error")).json["error"]
    expected = f"copy image to volume: {reason['message']} {reason['remedy']}"
    assert message["user_message"] == expected
    assert message["guaranteed_until"] > message["created_at"]
    path = f"messages/{message['id']}"
    assert (await ask(daemon, "GET", path)).json == {"message": message}
    for query, number in ((f"resource_uuid={uuid}", 1), ("resource_uuid=x", 0), ("limit=1", 1)):
        found = (await ask(daemon, "GET", f"messages?{query}")).json["messages"]
        assert len(found) == number
    assert (await ask(daemon, "GET", "messages?nosuch=1")).status == 400
    assert (await ask(daemon, "GET", "messages", version="3.2")).status == 404
    assert (await ask(daemon, "GET", "messages", who="other")).json == {"messages": []}
    for method in ("GET", "DELETE"):
        missing = await ask(daemon, method, path, who="other")
        words = f"Message {message['id']} could not be found."
        assert (missing.status, missing.json["itemNotFound"]["message"]) == (404, words)
    # The message outlives the volume.
    assert (await ask(daemon, "DELETE", f"volumes/{uuid}")).status == 202
    await until(partial(ask, daemon, "GET", f"volumes/{uuid}"), lambda found: found.status == 404)
    assert (await ask(daemon, "DELETE", path)).status == 204
    assert (await ask(daemon, "GET", "messages")).json == {"messages": []}


@pytest.mark.parametrize(
    ("path", "since"),
    [
        ("backups", 0),
        ("groups", 13),
        ("group_snapshots", 14),
        ("group_types", 11),
        ("consistencygroups", 0),
        ("cgsnapshots", 0),
    ],
)
@ensureDeferred
async def test_absent_kinds_are_empty_and_tell_why(daemon: Running, path: str, since: int) -> None:
    listed = await ask(daemon, "GET", path)
    assert (listed.status, listed.json) == (200, {path: []})
    if since:
        early = await ask(daemon, "GET", path, version=f"3.{since - 1}")
        assert early.status == 404
    missing = await ask(daemon, "GET", f"{path}/nosuch")
    assert (missing.status, "nosuch" in missing.json["itemNotFound"]["message"]) == (404, True)
    refused = await ask(daemon, "POST", path, {path[:-1]: {}})
    assert refused.status == 501
    assert refused.json["notImplemented"]["message"].startswith("This service has no")


ODD: list[object] = [
    *(None, True, 5, 1.5, "", "x", "é" * 300, [], [1], {}, {"a": {"b": []}}, 2**63 - 1),
    "9" * 400,
]


async def sent(daemon: Running, method: str, path: str, body: object = None) -> list[object]:
    """Send an odd request; return the answer if the answer is no proper one."""
    answer = await ask(daemon, method, path, body, who="admin")
    good = answer.status < 400
    if answer.status in range(400, 500) or answer.status == 501:
        good = next(iter(answer.json)) != "computeFault"
    return [] if good else [(method, path, body, answer.status, answer.body[:200])]


@ensureDeferred
async def test_odd_bodies_get_faults(daemon: Running) -> None:
    """Whatever a client sends, the daemon answers in the dialect's form."""
    volume = await made(daemon, "volume", size=1)
    snapshot = await made(daemon, "snapshot", volume_id=volume)
    wrong: list[object] = []
    for odd in ODD:
        for method, path, body in (
            ("POST", f"volumes/{volume}/action", {"os-reset_status": odd}),
            ("POST", f"volumes/{volume}/action", {"os-reset_status": {"status": odd}}),
            ("POST", f"volumes/{volume}/action", {"os-reset_status": {"attach_status": odd}}),
            ("POST", f"snapshots/{snapshot}/action", {"os-reset_status": {"status": odd}}),
            ("POST", f"snapshots/{snapshot}/action", {"os-update_snapshot_status": odd}),
            ("POST", "volume-transfers", {"transfer": {"volume_id": volume, "no_snapshots": odd}}),
            ("POST", "volume-transfers", {"transfer": {"volume_id": odd}}),
            ("POST", "snapshots", {"snapshot": {"volume_id": odd, "force": odd}}),
            ("POST", "workers/cleanup", odd),
            ("PUT", "os-quota-sets/x", {"quota_set": odd}),
            ("PUT", "os-quota-sets/x", {"quota_set": {"volumes": odd}}),
            ("PUT", "os-quota-class-sets/default", {"quota_class_set": {"x": odd}}),
            ("PUT", "default-types/x", {"default_type": {"volume_type": odd}}),
            ("PUT", "os-services/enable", odd),
            ("PUT", "os-services/enable", {"host": odd, "binary": odd}),
            ("PUT", f"snapshots/{snapshot}", {"snapshot": odd}),
            ("PUT", f"volumes/{volume}", {"volume": {"name": odd}}),
        ):
            wrong += await sent(daemon, method, path, body)
    assert wrong == [], "\n".join(map(str, wrong))


@ensureDeferred
async def test_odd_queries_get_faults(daemon: Running) -> None:
    await made(daemon, "volume", size=1)
    wrong: list[object] = []
    values = ("", "x", "%00", "%ff", "9" * 400, "[" * 400, "gt:", ",", "gt:9999999999", "None")
    names = ("created_at", "size", "bootable", "metadata", "glance_metadata", "name~", "sort")
    more = ("id", "host", "consumes_quota", "limit", "marker", "offset", "with_count", "%ff")
    for kind in ("volumes", "snapshots", "messages", "types", "volume-transfers", "os-services"):
        for name in (*names, *more):
            for value in values:
                wrong += await sent(daemon, "GET", f"{kind}?{name}={value}")
    for path in ("messages", "default-types", "capabilities", "os-hosts", "os-quota-sets", "types"):
        for named in ("%00", "%ff", "%C3%A9" * 300, "%2F"):
            wrong += await sent(daemon, "GET", f"{path}/{named}")
    assert wrong == [], "\n".join(map(str, wrong))
