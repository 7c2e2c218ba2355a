"""Private volume types of the Block Storage API."""

from __future__ import annotations

from functools import partial

from pytest_twisted import ensureDeferred

from tests.cinder import ADMIN, ask, daemon
from tests.daemons import OTHER_TENANT, TENANT, Running

__all__ = ["daemon"]

HIDDEN = {
    "name": "hidden",
    "os-volume-type-access:is_public": False,
    "extra_specs": {"volume_backend_name": "local"},
}


@ensureDeferred
async def test_a_private_type_is_seen_by_its_projects_only(daemon: Running) -> None:
    """In all dialects, and for new volumes.

    Break: `src/bootvol/store/volume_types.py`: `if tenant is None:` -> `if True:`
    """
    admin, member = partial(ask, daemon, who="admin"), partial(ask, daemon)
    uuid = (await admin("POST", "types", {"volume_type": HIDDEN})).json["volume_type"]["id"]
    all_types = await daemon.request("GET", f"/v1.1/{ADMIN}/os-volume-types", None, "root")
    (number,) = [each["id"] for each in all_types.json["volume_types"] if each["name"] == "hidden"]

    async def seen() -> set[bool]:
        """Return the answers to the question if the member sees the type, by all ways."""
        listed = (await member("GET", "types?is_public=none")).json["volume_types"]
        old = (await daemon.call("GET", "os-volume-types")).json["volume_types"]
        shown = await member("GET", f"types/{uuid}")
        shown_old = await daemon.call("GET", f"os-volume-types/{number}")
        wanted = {"size": 1, "volume_type": "hidden"}
        made = await member("POST", "volumes", {"volume": wanted})
        named = await member("POST", "volumes", {"volume": {"size": 1, "volume_type": uuid}})
        made_old = await daemon.call("POST", "os-volumes", {"volume": wanted})
        assert {shown.status, shown_old.status} <= {200, 404}
        assert {made.status, named.status} <= {202, 404}
        return {
            "hidden" in [each["name"] for each in listed],
            "hidden" in [each["name"] for each in old],
            shown.status == 200,
            shown_old.status == 200,
            made.status == 202,
            named.status == 202,
            made_old.status == 200,
        }

    assert await seen() == {False}
    change = partial(admin, "POST", f"types/{uuid}/action")
    assert (await change({"addProjectAccess": {"project": OTHER_TENANT}})).status == 202
    assert await seen() == {False}
    assert (await change({"addProjectAccess": {"project": TENANT}})).status == 202
    assert await seen() == {True}
    again = await change({"addProjectAccess": {"project": TENANT}})
    assert (again.status, again.json["conflictingRequest"]["message"]) == (
        409,
        f"Volume type access for {uuid} / {TENANT} combination already exists.",
    )
    access = (await admin("GET", f"types/{uuid}/os-volume-type-access")).json
    assert access == {
        "volume_type_access": [
            {"volume_type_id": uuid, "project_id": each} for each in (TENANT, OTHER_TENANT)
        ]
    }
    assert (await change({"removeProjectAccess": {"project": TENANT}})).status == 202
    assert (await change({"removeProjectAccess": {"project": TENANT}})).status == 404
    assert await seen() == {False}
    public = {"volume_type": {"is_public": True}}
    assert (await admin("PUT", f"types/{uuid}", public)).json["volume_type"]["is_public"]
    assert await seen() == {True}
    assert (await change({"addProjectAccess": {"project": TENANT}})).status == 409
    assert (await admin("GET", f"types/{uuid}/os-volume-type-access")).status == 404


@ensureDeferred
async def test_operators_ask_for_public_or_private_types(daemon: Running) -> None:
    for wanted in ({"name": "open"}, HIDDEN):
        made = await ask(daemon, "POST", "types", {"volume_type": wanted}, who="admin")
        assert made.status == 200, made.body
    for query, names in {
        "": {"__DEFAULT__", "open"},
        "?is_public=true": {"__DEFAULT__", "open"},
        "?is_public=False": {"hidden"},
        "?is_public=none": {"__DEFAULT__", "open", "hidden"},
    }.items():
        found = (await ask(daemon, "GET", f"types{query}", who="admin")).json["volume_types"]
        assert {each["name"] for each in found} == names
        assert all(
            each["is_public"]
            is each["os-volume-type-access:is_public"]
            is (each["name"] != "hidden")
            for each in found
        )
