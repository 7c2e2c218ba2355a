"""The Block Storage API v3 of a daemon: shapes, types and statuses as recorded of real Cinder."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.api.cinder.microversions import HIGHEST
from bootvol.model import GIB
from bootvol.testing.backends import noise
from bootvol_plugins.file_store import STORE
from tests.daemons import OTHER_TENANT, STATIC, TENANT, Answer, Running
from tests.waiting import until

GOLDEN = Path(__file__).parent.parent / "golden"
#: A size in GiB that no disk has.
LARGEST = 2**31 - 1
ROOT = f"/volume/v3/{TENANT}"
MEMBERS = {type(None): "null", bool: "boolean", int: "integer", str: "string", list: "array"}


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon with an image."""
    daemon = Running(tmp_path, "[quota]\nvolumes = -1\ngigabytes = -1\n")
    (daemon.images / "disk").write_bytes(noise(1000))
    yield daemon
    await daemon.stop()


async def call(
    daemon: Running,
    method: str,
    path: str,
    body: object = None,
    *,
    token: str | None = "ann",
    version: str = "latest",
) -> Answer:
    """Send a request with a microversion."""
    headers = {"OpenStack-API-Version": f"volume {version}"}
    root = f"/volume/v3/{OTHER_TENANT}" if token == "bob" else ROOT
    return await daemon.request(method, f"{root}/{path}", body, token, headers=headers)


async def made(daemon: Running, **members: object) -> dict[str, Any]:
    """Create a volume; return the volume when available."""
    answer = await call(daemon, "POST", "volumes", {"volume": {"size": 1, **members}})
    assert answer.status == 202, answer.body
    return await settled(daemon, f"volumes/{answer.json['volume']['id']}", "volume")


async def settled(daemon: Running, path: str, kind: str) -> dict[str, Any]:
    """Wait until a volume or snapshot is available; return the object."""

    async def show() -> dict[str, Any]:
        return dict((await call(daemon, "GET", path)).json[kind])

    return await until(show, lambda found: found["status"] == "available")


@ensureDeferred
async def test_clients_find_the_api(daemon: Running) -> None:
    choices = await daemon.request("GET", "/volume/", None, None)
    assert choices.status == 300
    (version,) = choices.json["versions"]
    assert (version["min_version"], version["version"]) == ("3.0", str(HIGHEST))
    assert version["links"][-1] == {
        "rel": "self",
        "href": f"http://127.0.0.1:{daemon.port}/volume/v3/",
    }
    assert (await daemon.request("GET", "/volume/v3/", None, None)).status == 401
    shown = await daemon.request("GET", "/volume/v3/", None, "ann")
    assert (shown.status, shown.json) == (200, choices.json)


@ensureDeferred
async def test_a_version_without_its_slash_leads_to_the_version(daemon: Running) -> None:
    """Clients discover the version at an endpoint without a slash, too.

    Break: `src/bootvol/api/application.py`: `failure.check(UnknownPath, RequestRedirect)` ->
    `failure.check(UnknownPath)`.
    """
    # The client follows redirects.
    for token, status in ((None, 401), ("ann", 200)):
        answer = await daemon.request("GET", "/volume/v3", None, token)
        assert answer.status == status
        assert answer.json == (await daemon.request("GET", "/volume/v3/", None, token)).json


@ensureDeferred
async def test_a_request_chooses_its_microversion(daemon: Running) -> None:
    for version in ("3.0", str(HIGHEST)):
        answer = await call(daemon, "GET", "volumes", version=version)
        assert answer.status == 200
        assert answer.headers["openstack-api-version"] == f"volume {version}"
        assert answer.headers["vary"] == "OpenStack-API-Version"
    refused = await call(daemon, "GET", "volumes", version="3.999")
    assert refused.status == 406
    assert refused.json["computeFault"]["code"] == 406


@ensureDeferred
async def test_volumes_have_the_recorded_members(daemon: Running) -> None:
    volume = await made(daemon, imageRef="disk", name="root", metadata={"a": "b"})
    recorded = json.loads((GOLDEN / "cinder-volume-views.json").read_text())["volume"]
    checked = 0
    for version, views in recorded.items():
        if tuple(map(int, version.split("."))) > (HIGHEST.major, HIGHEST.minor):
            continue
        for who, members in views.items():
            answer = await call(
                daemon,
                "GET",
                f"volumes/{volume['id']}",
                token="root" if who == "admin" else "ann",
                version=version,
            )
            shown = answer.json["volume"]
            found = {name: MEMBERS.get(type(each), "object") for name, each in shown.items()}
            # The recorded volume has a description and no name, or the reverse.
            for free in ("name", "description"):
                assert {found.pop(free), members.pop(free)} <= {"string", "null"}
            assert found == members, (version, who)
            checked += 1
    assert checked >= 8


@ensureDeferred
async def test_a_volume_is_the_same_in_both_apis(daemon: Running) -> None:
    ours = await made(daemon, imageRef="disk", name="new", metadata={"k": "v"})
    old = (await daemon.call("GET", "os-volumes/1")).json["volume"]
    assert (old["displayName"], old["status"], old["size"]) == ("new", "available", 1)
    assert old["metadata"] == ours["metadata"] == {"k": "v"}
    number = await daemon.create("disk")
    assert await daemon.until(number, "available", "error") == "available"
    listed = (await call(daemon, "GET", "volumes/detail")).json["volumes"]
    assert [each["bootable"] for each in listed] == ["true", "true"]
    uuid = listed[0]["id"]
    assert (await call(daemon, "DELETE", f"volumes/{uuid}?cascade=False&force=False")).status == 202
    assert await daemon.until(number, "gone", "error") == "gone"
    assert (await call(daemon, "GET", f"volumes/{uuid}")).status == 404


@ensureDeferred
async def test_a_name_in_the_place_of_an_id_is_not_found(daemon: Running) -> None:
    """Clients look up an id first, and then the name in the list."""
    volume = await made(daemon, name="root")
    for name in ("root", "1", "9" * 40, "%00", "x.json"):
        answer = await call(daemon, "GET", f"volumes/{name}")
        assert answer.status == 404
        assert answer.json["itemNotFound"]["code"] == 404
    found = (await call(daemon, "GET", "volumes/detail?name=root&all_tenants=1")).json["volumes"]
    assert [each["id"] for each in found] == [volume["id"]]


NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        *(("GET", f"{kind}?marker=x", None) for kind in ("volumes", "snapshots", "types")),
        *(("GET", f"{kind}/detail?marker=x", None) for kind in ("volumes", "snapshots")),
        ("POST", "volumes", {"volume": {"snapshot_id": NOWHERE}}),
        ("POST", "snapshots", {"snapshot": {"volume_id": NOWHERE}}),
        ("POST", "os-volume-transfer", {"transfer": {"volume_id": NOWHERE}}),
    ],
)
@ensureDeferred
async def test_the_description_declares_missing_objects(
    daemon: Running, method: str, path: str, body: object
) -> None:
    assert (await call(daemon, method, path, body)).status == 404
    described = (await daemon.request("GET", "/volume/openapi.json", None, None)).json["paths"]
    operation = described[f"/volume/v3/{{tenant}}/{path.partition('?')[0]}"][method.lower()]
    assert "404" in operation["responses"]


@ensureDeferred
async def test_no_project_reaches_anothers_volumes(daemon: Running) -> None:
    """Members that ask for all projects get their own; only admins get all.

    Break: `src/bootvol/api/cinder/context.py`: `return context.operates and flag(` ->
    `return flag(`.
    """
    volume = await made(daemon, name="root")
    uuid = volume["id"]
    for method, path, body in (
        ("GET", f"volumes/{uuid}", None),
        ("PUT", f"volumes/{uuid}", {"volume": {"name": "x"}}),
        ("DELETE", f"volumes/{uuid}", None),
        ("GET", f"volumes/{uuid}/metadata", None),
        ("POST", f"volumes/{uuid}/metadata", {"metadata": {"a": "b"}}),
        ("POST", "snapshots", {"snapshot": {"volume_id": uuid}}),
    ):
        answer = await call(daemon, method, path, body, token="bob")
        assert (answer.status, answer.json["itemNotFound"]["message"]) == (
            404,
            f"Volume {uuid} could not be found.",
        )
    for path in ("volumes?all_tenants=1", "volumes/detail?all_tenants=1"):
        assert (await call(daemon, "GET", path, token="bob")).json == {"volumes": []}
    every = (await call(daemon, "GET", "volumes/detail?all_tenants=1", token="root")).json
    assert [each["id"] for each in every["volumes"]] == [uuid]
    other = await daemon.request("GET", f"{ROOT}/volumes", None, "bob")
    assert (other.status, other.json["badRequest"]["message"]) == (400, "Malformed request url")


@ensureDeferred
async def test_operators_act_for_other_projects(daemon: Running) -> None:
    """The operator's project neither gets nor pays anything.

    Break: `src/bootvol/api/cinder/context.py`: `rest.startswith("<") or not context.operates:` ->
    `rest.startswith("<"):`
    """
    root, bob = partial(call, daemon, token="root"), partial(call, daemon, token="bob")
    wanted = {"volume": {"size": 1, "name": "bob's"}}
    made = (await bob("POST", "volumes", wanted)).json["volume"]
    path = f"volumes/{made['id']}"

    async def status() -> str:
        return str((await bob("GET", path)).json["volume"]["status"])

    await until(status, lambda found: found == "available")
    assert (await call(daemon, "GET", path, token="ann")).status == 404
    for _ in range(2):
        # The second answer is from the cache.
        shown = (await root("GET", path)).json["volume"]
        assert shown["os-vol-tenant-attr:tenant_id"] == OTHER_TENANT
        assert f"/v3/{TENANT}/{path}" in shown["links"][0]["href"]
    await bob("GET", path)
    assert (await root("PUT", path, {"volume": {"name": "seen"}})).status == 200
    assert (await root("POST", f"{path}/metadata", {"metadata": {"k": "v"}})).status == 200
    seen = (await bob("GET", path)).json["volume"]
    assert (seen["name"], seen["metadata"]) == ("seen", {"k": "v"})
    assert "os-vol-host-attr:host" not in seen
    await root("POST", f"{path}/action", {"os-extend": {"new_size": 2}})
    await until(status, lambda found: found == "available")
    usage = {}
    for project, token in ((TENANT, "ann"), (OTHER_TENANT, "bob")):
        quota = await call(daemon, "GET", f"os-quota-sets/{project}?usage=True", token=token)
        usage[token] = quota.json["quota_set"]["gigabytes"]["in_use"]
    assert usage == {"ann": 0, "bob": 2}
    assert (await root("DELETE", path)).status == 202
    await until(partial(bob, "GET", path), lambda found: found.status == 404)
    assert (await root("GET", path)).status == 404


@ensureDeferred
async def test_promises_that_no_volume_keeps_are_refused(daemon: Running) -> None:
    answer = await call(daemon, "POST", "volumes", {"volume": {"size": 1, "multiattach": True}})
    assert answer.status == 400
    message = "Invalid input received: a volume is for one server at a time"
    assert answer.json["badRequest"]["message"] == message


@ensureDeferred
async def test_nulls_of_the_command_line_client_mean_nothing(daemon: Running) -> None:
    nulls = ("source_volid", "snapshot_id", "backup_id", "consistencygroup_id", "imageRef")
    also = ("availability_zone", "volume_type", "description", "metadata")
    volume = await made(daemon, name="v", **dict.fromkeys((*nulls, *also)))
    assert (volume["volume_type"], volume["bootable"]) == ("__DEFAULT__", "false")


@ensureDeferred
async def test_metadata_is_merged_replaced_and_removed(daemon: Running) -> None:
    uuid = (await made(daemon, metadata={"a": "1"}))["id"]
    snapshot = await call(
        daemon, "POST", "snapshots", {"snapshot": {"volume_id": uuid, "metadata": {"a": "1"}}}
    )
    assert snapshot.status == 202
    for path in (f"volumes/{uuid}", f"snapshots/{snapshot.json['snapshot']['id']}"):
        path += "/metadata"
        added = await call(daemon, "POST", path, {"metadata": {"b": "2"}})
        assert (added.status, added.json) == (200, {"metadata": {"a": "1", "b": "2"}})
        one = await call(daemon, "PUT", f"{path}/b", {"meta": {"b": "3"}})
        assert (one.status, one.json) == (200, {"meta": {"b": "3"}})
        assert (await call(daemon, "PUT", f"{path}/b", {"meta": {"c": "3"}})).status == 400
        assert (await call(daemon, "GET", f"{path}/b")).json == {"meta": {"b": "3"}}
        assert (await call(daemon, "DELETE", f"{path}/b")).status == 200
        assert (await call(daemon, "DELETE", f"{path}/b")).status == 404
        assert (await call(daemon, "GET", path)).json == {"metadata": {"a": "1"}}
        replaced = await call(daemon, "PUT", path, {"metadata": {}})
        assert (replaced.status, replaced.json) == (200, {"metadata": {}})


@ensureDeferred
async def test_snapshots_become_volumes(daemon: Running) -> None:
    volume = await made(daemon, imageRef="disk", name="root")
    body = {"snapshot": {"volume_id": volume["id"], "name": "s", "description": None}}
    answer = await call(daemon, "POST", "snapshots", body)
    assert answer.status == 202
    created = answer.json["snapshot"]
    assert (created["status"], created["volume_id"]) == ("creating", volume["id"])
    shown = await settled(daemon, f"snapshots/{created['id']}", "snapshot")
    assert shown["os-extended-snapshot-attributes:progress"] == "100%"
    assert shown["os-extended-snapshot-attributes:project_id"] == TENANT
    copy = await made(daemon, snapshot_id=created["id"])
    assert copy["snapshot_id"] == created["id"]
    path = f"snapshots/{created['id']}"
    changed = await call(daemon, "PUT", path, {"snapshot": {"name": "t"}})
    assert (changed.status, changed.json["snapshot"]["name"]) == (200, "t")
    listed = (await call(daemon, "GET", "snapshots/detail?name=t")).json["snapshots"]
    assert [each["id"] for each in listed] == [created["id"]]
    assert (await call(daemon, "DELETE", path)).status == 202
    await until(lambda: call(daemon, "GET", path), lambda found: found.status == 404)


@ensureDeferred
async def test_types_are_found_by_id_and_by_name(daemon: Running) -> None:
    body = {"volume_type": {"name": "fast", "description": "d", "extra_specs": {"a": "b"}}}
    assert (await call(daemon, "POST", "types", body)).status == 403
    answer = await call(daemon, "POST", "types", body, token="root")
    assert answer.status == 200
    uuid = answer.json["volume_type"]["id"]
    assert (await call(daemon, "POST", "types", body, token="root")).status == 409
    shown = (await call(daemon, "GET", f"types/{uuid}")).json["volume_type"]
    assert (shown["name"], shown["description"], shown["extra_specs"]) == ("fast", "d", {})
    assert (await call(daemon, "GET", "types/fast")).status == 404
    names = [each["name"] for each in (await call(daemon, "GET", "types")).json["volume_types"]]
    assert names == ["fast", "__DEFAULT__"]
    for named in (uuid, "fast"):
        assert (await made(daemon, volume_type=named))["volume_type"] == "fast"
    default = (await call(daemon, "GET", "types/default")).json["volume_type"]
    refused = await call(daemon, "DELETE", f"types/{default['id']}", token="root")
    assert refused.status == 400
    for method, path in (("POST", "types"), ("PUT", f"types/{uuid}")):
        taken = {"volume_type": {"name": default["name"]}}
        answer = await call(daemon, method, path, taken, token="root")
        assert (answer.status, "already exists" in str(answer.json)) == (400, True)
    specs = f"types/{uuid}/extra_specs"
    put = await call(daemon, "PUT", f"{specs}/c", {"c": "d"}, token="root")
    assert (put.status, put.json) == (200, {"c": "d"})
    assert (await call(daemon, "DELETE", f"{specs}/c", token="root")).status == 202
    everything = (await call(daemon, "GET", specs, token="root")).json
    assert everything == {"extra_specs": {"a": "b"}}
    used = await call(daemon, "DELETE", f"types/{uuid}", token="root")
    assert (used.status, "still in use" in str(used.json)) == (400, True)
    for each in (await call(daemon, "GET", "volumes")).json["volumes"]:
        await call(daemon, "DELETE", f"volumes/{each['id']}")
    await until(
        partial(call, daemon, "GET", "volumes"), lambda found: found.json == {"volumes": []}
    )
    assert (await call(daemon, "DELETE", f"types/{uuid}", token="root")).status == 202
    assert (await call(daemon, "GET", f"types/{uuid}")).status == 404


TYPER = """
[[identity.tokens]]
token = "typer"
tenant = "11692683195772"
user = "typer"
roles = ["member", "typer"]
"""


@ensureDeferred
async def test_a_cached_answer_shows_no_specs_without_the_right(tmp_path: Path) -> None:
    """Callers of one project with different rights do not share answers about types.

    Break: `src/bootvol/api/cinder/context.py`: `context.may(Right.VOLUME_TYPES),` -> ``.
    """
    daemon = Running(tmp_path, '[policy]\nvolume_types = ["typer"]', identity=STATIC + TYPER)
    try:
        body = {"volume_type": {"name": "fast", "extra_specs": {"a": "b"}}}
        uuid = (await call(daemon, "POST", "types", body, token="typer")).json["volume_type"]["id"]
        for token, specs in (("typer", {"a": "b"}), ("ann", {}), ("typer", {"a": "b"})):
            shown = await call(daemon, "GET", f"types/{uuid}", token=token)
            assert shown.json["volume_type"]["extra_specs"] == specs
            first = (await call(daemon, "GET", "types", token=token)).json["volume_types"][0]
            assert first["extra_specs"] == specs
    finally:
        await daemon.stop()


@ensureDeferred
async def test_quotas_and_limits_tell_the_usage(daemon: Running) -> None:
    await made(daemon)
    limits = (await call(daemon, "GET", "limits")).json["limits"]["absolute"]
    assert (limits["totalVolumesUsed"], limits["totalGigabytesUsed"]) == (1, 1)
    usage = (await call(daemon, "GET", f"os-quota-sets/{TENANT}?usage=True")).json["quota_set"]
    assert usage["volumes"]["in_use"] == 1
    assert (await call(daemon, "GET", f"os-quota-sets/{OTHER_TENANT}")).status == 403
    body = {"quota_set": {"volumes": 1, "tenant_id": TENANT}}
    path = f"os-quota-sets/{TENANT}?skip_validation=False"
    changed = await call(daemon, "PUT", path, body, token="root")
    assert (changed.status, changed.json["quota_set"]["volumes"]) == (200, 1)
    refused = await call(daemon, "POST", "volumes", {"volume": {"size": 1}})
    assert refused.status == 413
    assert refused.json["overLimit"]["retryAfter"] == "0"
    wrong = await call(daemon, "PUT", path, {"quota_set": {"nosuch": 1}}, token="root")
    assert wrong.status == 400


@ensureDeferred
async def test_paths_need_no_project(daemon: Running) -> None:
    volume = await made(daemon, name="root")
    answer = await daemon.request("GET", f"/volume/v3/volumes/{volume['id']}", None, "ann")
    assert answer.json["volume"]["name"] == "root"
    zones = await daemon.request("GET", "/volume/v3/os-availability-zone", None, "ann")
    assert zones.json["availabilityZoneInfo"][0]["zoneName"] == volume["availability_zone"]


@ensureDeferred
async def test_owners_say_what_boots(daemon: Running) -> None:
    volume = await made(daemon, imageRef="disk")
    facts = volume["volume_image_metadata"]
    assert facts == {"image_id": "disk", "image_name": "disk", "min_disk": "0", "size": "1000"}
    path = f"volumes/{volume['id']}/action"

    async def act(name: str, given: object = None) -> Answer:
        return await call(daemon, "POST", path, {name: given})

    put = await act("os-set_image_metadata", {"metadata": {"os_distro": "debian"}})
    assert (put.status, put.json["metadata"]) == (200, {**facts, "os_distro": "debian"})
    assert (await act("os-unset_image_metadata", {"key": "os_distro"})).status == 200
    assert (await act("os-unset_image_metadata", {"key": "os_distro"})).status == 404
    assert (await act("os-show_image_metadata")).json == {"metadata": facts}
    answer = await act("os-set_bootable", {"bootable": "False"})
    assert (answer.status, answer.body) == (200, b"")
    shown = (await call(daemon, "GET", f"volumes/{volume['id']}")).json["volume"]
    assert (shown["bootable"], shown["status"]) == ("false", "available")
    unknown = (await act("os-nosuch")).json["badRequest"]["message"]
    assert unknown.startswith("There is no such action: os-nosuch.")
    for body in ({}, {"os-set_bootable": {"bootable": True}, "os-force_delete": None}):
        refused = await call(daemon, "POST", path, body)
        assert refused.json["badRequest"]["message"] == "Malformed request body"
    assert (await act("os-set_bootable", {"bootable": "x"})).status == 400
    assert (await act("os-force_delete")).status == 403
    assert (await call(daemon, "POST", path, {"os-force_delete": ""}, token="root")).status == 202


@ensureDeferred
async def test_a_deletion_may_take_the_snapshots_along(daemon: Running) -> None:
    volume = await made(daemon)
    paths = []
    for _ in range(2):
        body = {"snapshot": {"volume_id": volume["id"]}}
        snapshot = (await call(daemon, "POST", "snapshots", body)).json["snapshot"]
        paths.append(f"snapshots/{snapshot['id']}")
        await settled(daemon, paths[-1], "snapshot")
    path = f"volumes/{volume['id']}"
    assert (await call(daemon, "DELETE", f"{path}?cascade=zz")).status == 400
    assert (await call(daemon, "DELETE", f"{path}?force=True")).status == 403
    assert (await call(daemon, "DELETE", f"{path}?cascade=True")).status == 202
    for each in (path, *paths):
        await until(partial(call, daemon, "GET", each), lambda found: found.status == 404)
    assert [each.name for each in daemon.volumes.iterdir() if not each.name.startswith(".")] == []


@ensureDeferred
async def test_bodies_are_read_as_recorded(daemon: Running) -> None:
    """Statuses and faults are Cinder's for each recorded request, and so are most words."""
    volume = (await made(daemon, size=2))["id"]
    answer = await call(daemon, "POST", "snapshots", {"snapshot": {"volume_id": volume}})
    snapshot = answer.json["snapshot"]["id"]
    await settled(daemon, f"snapshots/{snapshot}", "snapshot")
    text = (GOLDEN / "cinder-volume-bodies.json").read_text()
    recorded = json.loads(text.replace("{volume}", volume).replace("{snapshot}", snapshot))
    wrong, other_words = [], []
    for each in recorded:
        path = f"{ROOT}/{each['path']}?{each.get('query', '')}"
        body = each.get("body")
        if isinstance(body, dict) and "$text" in body:
            body = body["$text"].encode()
        headers = {"OpenStack-API-Version": f"volume {each['version']}"}
        if "type" in each:
            headers["Content-Type"] = each["type"]
        answer = await daemon.request(each["method"], path, body, headers=headers)
        fault = next(iter(answer.json)) if answer.status >= 400 else None
        if (answer.status, fault) != (each["status"], each.get("fault")):
            wrong.append((each, answer.status, answer.body[:300]))
        elif fault is not None and answer.json[fault]["message"] != each["message"]:
            other_words.append((each["message"], answer.json[fault]["message"]))
        elif "reply" in each:
            assert answer.json == each["reply"]
    assert wrong == []
    assert len(recorded) > 90
    assert len(other_words) < 11, other_words


@ensureDeferred
async def test_a_volume_becomes_larger(daemon: Running) -> None:
    volume = await made(daemon, imageRef="disk")
    path = f"volumes/{volume['id']}"

    async def extend(size: object) -> Answer:
        return await call(daemon, "POST", f"{path}/action", {"os-extend": {"new_size": size}})

    same = (await extend(1)).json["badRequest"]["message"]
    assert same == (
        "Invalid input received: New size for extend must be greater than current size."
        " (current: 1, extended: 1)."
    )
    for wrong in (0, None, "x", 2**31):
        refused = (await extend(wrong)).json["badRequest"]["message"]
        assert wrong is None or "new_size" in refused
    answer = await extend("3")
    assert (answer.status, answer.body) == (202, b"")
    grown = await settled(daemon, path, "volume")
    assert (grown["size"], grown["status"]) == (3, "available")
    (file,) = (each for each in daemon.volumes.iterdir() if not each.name.startswith("."))
    assert file.stat().st_size == 3 * GIB
    with file.open("rb") as content:
        assert content.read(2000) == noise(1000) + bytes(1000)
    # No disk is that large: the volume stays as it was, and says why.
    assert (await extend(LARGEST)).status == 202
    assert (await settled(daemon, path, "volume"))["size"] == 3
    reason = (await daemon.call("GET", "os-volumes/1/error")).json["error"]
    assert reason["code"] == "no-space"
    # The volume is gone, so no good volume is left.
    file.rename(file.with_suffix(".away"))
    assert (await extend(4)).status == 202
    assert await daemon.until(1, "available", "error") == "error"


@ensureDeferred
async def test_growth_outlasts_a_missing_disk_and_a_restart(
    daemon: Running, tmp_path: Path
) -> None:
    """Break: `src/bootvol/store/work_queue.py`: `or_(_blank(), _growth(request), _removal` ->
    `or_(_blank(), _removal`.
    """
    path = f"volumes/{(await made(daemon))['id']}"
    (daemon.volumes / STORE).rename(tmp_path / "store")
    body = {"os-extend": {"new_size": 2}}
    assert (await call(daemon, "POST", f"{path}/action", body)).status == 202
    await until(
        partial(daemon.call, "GET", "os-volumes/1/error"),
        lambda found: found.json["error"] is not None,
    )
    shown = (await call(daemon, "GET", path)).json["volume"]
    assert (shown["status"], shown["size"]) == ("extending", 1)
    assert (await call(daemon, "DELETE", path)).status == 400
    await daemon.stop()
    (tmp_path / "store").rename(daemon.volumes / STORE)
    later = Running(tmp_path)
    try:
        assert (await settled(later, path, "volume"))["size"] == 2
    finally:
        await later.stop()


@ensureDeferred
async def test_growth_counts_in_the_quota(daemon: Running) -> None:
    quota = {"quota_set": {"gigabytes": 2}}
    await call(daemon, "PUT", f"os-quota-sets/{TENANT}", quota, token="root")
    volume = await made(daemon)
    path = f"volumes/{volume['id']}"
    for size, status in ((3, 413), (2, 202)):
        body = {"os-extend": {"new_size": size}}
        assert (await call(daemon, "POST", f"{path}/action", body)).status == status
    # While the volume becomes larger, the new size counts.
    assert (await call(daemon, "POST", "volumes", {"volume": {"size": 1}})).status == 413
    await settled(daemon, path, "volume")
    usage = (await call(daemon, "GET", f"os-quota-sets/{TENANT}?usage=True")).json["quota_set"]
    assert usage["gigabytes"]["in_use"] == 2


@ensureDeferred
async def test_a_volume_changes_hands_with_its_snapshots(daemon: Running) -> None:
    """Only the right key takes a volume.

    Break: `src/bootvol/service/transfers.py`: `not compare_digest(` -> `not max(`.
    """
    volume = (await made(daemon, imageRef="disk", name="root"))["id"]
    answer = await call(daemon, "POST", "snapshots", {"snapshot": {"volume_id": volume}})
    snapshot = f"snapshots/{answer.json['snapshot']['id']}"
    await settled(daemon, snapshot, "snapshot")
    body = {"transfer": {"volume_id": volume, "name": "gift"}}
    answer = await call(daemon, "POST", "os-volume-transfer", body)
    assert answer.status == 202
    offer = answer.json["transfer"]
    path = f"os-volume-transfer/{offer['id']}"
    shown = (await call(daemon, "GET", path)).json["transfer"]
    assert (shown["name"], shown["volume_id"], "auth_key" in shown) == ("gift", volume, False)
    # The volume stays as it is until then.
    assert (await call(daemon, "POST", "os-volume-transfer", body)).status == 400
    assert (await call(daemon, "DELETE", f"volumes/{volume}")).status == 400
    old = (await daemon.call("GET", "os-volumes/1")).json["volume"]
    assert old["status"] == "awaiting-transfer"
    # The taker knows only the id and the key.
    assert (await call(daemon, "GET", path, token="bob")).status == 404
    assert (await call(daemon, "DELETE", path, token="bob")).status == 404
    guess = {"accept": {"auth_key": "0123456789abcdef"}}
    wrong = await call(daemon, "POST", f"{path}/accept", guess, token="bob")
    assert (wrong.status, wrong.json["badRequest"]["message"]) == (
        400,
        f"Invalid auth key: Attempt to transfer {offer['id']} with invalid auth key.",
    )
    key = {"accept": {"auth_key": offer["auth_key"]}}
    quota = f"/volume/v3/{TENANT}/os-quota-sets/{OTHER_TENANT}"
    for gigabytes, status in ((0, 413), (1, 413), (2, 202)):
        limits = {"quota_set": {"gigabytes": gigabytes}}
        assert (await daemon.request("PUT", quota, limits, "root")).status == 200
        taken = await call(daemon, "POST", f"{path}/accept", key, token="bob")
        assert taken.status == status
    assert (await call(daemon, "GET", f"volumes/{volume}")).status == 404
    assert (await call(daemon, "GET", snapshot)).status == 404
    mine = (await call(daemon, "GET", f"volumes/{volume}", token="bob")).json["volume"]
    assert (mine["status"], mine["user_id"]) == ("available", "bob")
    assert (await call(daemon, "GET", snapshot, token="bob")).status == 200
    assert (await call(daemon, "POST", f"{path}/accept", key, token="bob")).status == 404
    gone = await call(daemon, "DELETE", f"volumes/{volume}?cascade=True", token="bob")
    assert gone.status == 202


@ensureDeferred
async def test_a_snapshot_in_use_does_not_change_hands(daemon: Running, tmp_path: Path) -> None:
    """A volume that is being made keeps its snapshot.

    Break: `src/bootvol/service/transfers.py`: `if any(snapshot_rows.is_copied(db, each.id) for each
    in snapshots):` -> `if False:`.
    """
    volume = (await made(daemon))["id"]
    answer = await call(daemon, "POST", "snapshots", {"snapshot": {"volume_id": volume}})
    snapshot = answer.json["snapshot"]["id"]
    await settled(daemon, f"snapshots/{snapshot}", "snapshot")
    # Without its directory, the backend makes nothing.
    daemon.volumes.rename(tmp_path / "away")
    answer = await call(daemon, "POST", "volumes", {"volume": {"snapshot_id": snapshot}})
    copy = answer.json["volume"]["id"]
    answer = await call(daemon, "POST", "os-volume-transfer", {"transfer": {"volume_id": volume}})
    offer = answer.json["transfer"]
    accept = f"os-volume-transfer/{offer['id']}/accept"
    key = {"accept": {"auth_key": offer["auth_key"]}}
    refused = await call(daemon, "POST", accept, key, token="bob")
    assert refused.status == 400
    assert "a volume is being made" in refused.json["badRequest"]["message"]
    (tmp_path / "away").rename(daemon.volumes)
    await settled(daemon, f"volumes/{copy}", "volume")
    assert (await call(daemon, "POST", accept, key, token="bob")).status == 202


@ensureDeferred
async def test_an_offer_is_withdrawn(daemon: Running) -> None:
    volume = (await made(daemon))["id"]
    body = {"transfer": {"volume_id": volume}}
    offer = (await call(daemon, "POST", "os-volume-transfer", body)).json["transfer"]
    listed = (await call(daemon, "GET", "os-volume-transfer/detail")).json["transfers"]
    assert [each["id"] for each in listed] == [offer["id"]]
    assert (await call(daemon, "DELETE", f"os-volume-transfer/{offer['id']}")).status == 202
    assert (await call(daemon, "GET", "os-volume-transfer")).json == {"transfers": []}
    shown = (await call(daemon, "GET", f"volumes/{volume}")).json["volume"]
    assert shown["status"] == "available"
