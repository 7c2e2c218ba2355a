"""Calls and members of later microversions of the Block Storage API."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from tests.cinder import ADMIN, ask, daemon, made
from tests.daemons import TENANT, Running

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
