"""Volume types of the Block Storage API, and the recorded members of answers."""

from __future__ import annotations

from functools import partial

from pytest_twisted import ensureDeferred

from tests.cinder import ADMIN, ask, daemon, made
from tests.daemons import OTHER_TENANT, TENANT, Running
from tests.waiting import until

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


@ensureDeferred
async def test_limits_of_speed_belong_to_types(daemon: Running) -> None:
    """The answers are those of the recordings."""
    admin = partial(ask, daemon, who="admin")
    wanted = {"qos_specs": {"read_iops_sec": "100", "name": "q1", "consumer": "front-end"}}
    answer = (await admin("POST", "qos-specs", wanted)).json
    uuid, path = answer["qos_specs"]["id"], f"qos-specs/{answer['qos_specs']['id']}"
    shown = {
        "id": uuid,
        "name": "q1",
        "consumer": "front-end",
        "specs": {"read_iops_sec": "100"},
    }
    assert (answer["qos_specs"], len(answer["links"])) == (shown, 2)
    second = await admin("POST", "qos-specs", {"qos_specs": {"name": "q1", "consumer": "both"}})
    assert (second.status, second.json["conflictingRequest"]["message"]) == (
        409,
        "QoS Specs q1 already exists.",
    )
    assert (await ask(daemon, "GET", "qos-specs")).status == 403
    named = await admin("GET", "qos-specs/q1")
    assert (named.status, named.json["itemNotFound"]["message"]) == (404, "No such QoS spec q1.")
    changed = await admin("PUT", path, {"qos_specs": {"write_iops_sec": "50"}})
    assert (changed.status, changed.json) == (200, {"qos_specs": {"write_iops_sec": "50"}})
    shown["specs"] = {"read_iops_sec": "100", "write_iops_sec": "50"}
    assert (await admin("GET", "qos-specs")).json == {"qos_specs": [shown]}
    keys = {"keys": ["write_iops_sec", "none"]}
    assert (await admin("PUT", f"{path}/delete_keys", keys)).status == 404
    assert (await admin("GET", path)).json["qos_specs"] == shown
    keys = {"keys": ["write_iops_sec"]}
    assert (await admin("PUT", f"{path}/delete_keys", keys)).status == 202
    made = await admin("POST", "types", {"volume_type": {"name": "fast"}})
    kind = made.json["volume_type"]["id"]
    assert "qos_specs_id" not in made.json["volume_type"]
    assert (await admin("GET", f"{path}/associate?vol_type_id={kind}")).status == 202
    associations = (await admin("GET", f"{path}/associations")).json["qos_associations"]
    assert associations == [{"association_type": "volume_type", "name": "fast", "id": kind}]
    assert (await admin("GET", f"types/{kind}")).json["volume_type"]["qos_specs_id"] == uuid
    assert "qos_specs_id" not in (await ask(daemon, "GET", f"types/{kind}")).json["volume_type"]
    other = await admin("POST", "qos-specs", {"qos_specs": {"name": "q2"}})
    second_path = f"qos-specs/{other.json['qos_specs']['id']}"
    assert (await admin("GET", f"{second_path}/associate?vol_type_id={kind}")).status == 400
    used = await admin("DELETE", f"{path}?force=False")
    assert (used.status, used.json["badRequest"]["message"]) == (400, "Qos specs still in use.")
    assert (await admin("GET", f"{path}/disassociate?vol_type_id={kind}")).status == 202
    assert (await admin("GET", f"{path}/associations")).json == {"qos_associations": []}
    await admin("GET", f"{path}/associate?vol_type_id={kind}")
    assert (await admin("GET", f"{path}/disassociate_all")).status == 202
    await admin("GET", f"{path}/associate?vol_type_id={kind}")
    assert (await admin("DELETE", f"{path}?force=True")).status == 202
    assert (await admin("GET", f"types/{kind}")).json["volume_type"]["qos_specs_id"] is None
    for body in (
        {"name": "q3", "consumer": "nobody"},
        {"name": "q3", "limit": 5},
        {"name": ""},
        {"consumer": "both"},
        {"name": "q3", "limit": "x" * 256},
    ):
        assert (await admin("POST", "qos-specs", {"qos_specs": body})).status == 400, body


@ensureDeferred
async def test_nothing_is_encrypted(daemon: Running) -> None:
    admin = partial(ask, daemon, who="admin")
    made = await admin("POST", "types", {"volume_type": {"name": "fast"}})
    path = f"types/{made.json['volume_type']['id']}/encryption"
    assert (await admin("GET", path)).json == {}
    wanted = {"encryption": {"provider": "luks", "control_location": "front-end"}}
    refused = await admin("POST", path, wanted)
    assert (refused.status, "encrypts no volumes" in refused.body.decode()) == (501, True)
    volume = await ask(daemon, "POST", "volumes", {"volume": {"size": 1}})
    path = f"volumes/{volume.json['volume']['id']}/encryption"
    assert (await ask(daemon, "GET", path)).json == {"encryption_key_id": None}
    assert (await ask(daemon, "GET", path, who="other")).status == 404


@ensureDeferred
async def test_answers_about_types_have_the_recorded_members(daemon: Running) -> None:
    admin = partial(ask, daemon, who="admin")
    members = {"id", "name", "is_public", "description", "extra_specs"}
    made = (await admin("POST", "types", {"volume_type": {"name": "fast"}})).json["volume_type"]
    assert set(made) == members | {"os-volume-type-access:is_public"}
    path = f"types/{made['id']}"
    changed = await admin("PUT", path, {"volume_type": {"description": "d"}})
    assert set(changed.json["volume_type"]) == members
    assert set((await admin("GET", "types/default")).json["volume_type"]) == members
    shown = set((await admin("GET", path)).json["volume_type"])
    assert shown == members | {"os-volume-type-access:is_public", "qos_specs_id"}


@ensureDeferred
async def test_lists_are_ordered_by_the_ids_that_they_show(daemon: Running) -> None:
    for _ in range(8):
        await ask(daemon, "POST", "volumes", {"volume": {"size": 1}})
    for query, reverse in (("sort=id:asc", False), ("sort_key=id&sort_dir=desc", True)):
        listed = (await ask(daemon, "GET", f"volumes?{query}")).json["volumes"]
        ids = [each["id"] for each in listed]
        assert (len(ids), ids) == (8, sorted(ids, reverse=reverse))


@ensureDeferred
async def test_only_a_shown_volume_tells_about_its_image(daemon: Running) -> None:
    made = await ask(daemon, "POST", "volumes", {"volume": {"size": 1, "imageRef": "disk"}})
    volume = made.json["volume"]
    assert "volume_image_metadata" not in volume
    path = f"volumes/{volume['id']}"
    assert "volume_image_metadata" in (await ask(daemon, "GET", path)).json["volume"]
    changed = await ask(daemon, "PUT", path, {"volume": {"name": "n"}})
    assert "volume_image_metadata" not in changed.json["volume"]


@ensureDeferred
async def test_a_type_without_a_fitting_backend(daemon: Running) -> None:
    """Its volumes fail at once with a message, and are deleted; they have no data.

    Break: `src/bootvol/service/volumes.py`: `except NoFittingBackend as error:` ->
    `except VolumeBusy as error:`
    """
    admin, member = partial(ask, daemon, who="admin"), partial(ask, daemon)
    asked = {"vendor_name": "acme", "multiattach": "<is> True", "note": "x"}
    wanted = {"volume_type": {"name": "acme", "extra_specs": asked}}
    assert (await admin("POST", "types", wanted)).status == 200
    for more in ({}, {"imageRef": "disk"}):
        body = {"volume": {"size": 1, "volume_type": "acme", **more}}
        answer = await member("POST", "volumes", body)
        assert answer.status == 202
        uuid = answer.json["volume"]["id"]
        volume = (await member("GET", f"volumes/{uuid}")).json["volume"]
        assert volume["status"] == "error"
        (message,) = (await member("GET", f"messages?resource_uuid={uuid}")).json["messages"]
        assert message["event_id"] == "VOLUME_VOLUME_001_002"
        assert message["user_message"] == (
            "schedule allocate volume: No backend has what the volume type acme asks for:"
            " multiattach, vendor_name. Name another volume type, or have the operator correct the"
            " type's extra specs."
        )
        assert (await member("DELETE", f"volumes/{uuid}")).status == 202

        async def left() -> list[object]:
            found: list[object] = (await member("GET", "volumes")).json["volumes"]
            return found

        await until(left, lambda found: found == [])
    assert daemon.files() == []
    uuid = await made(daemon, "volume", size=1)
    retype = {"os-retype": {"new_type": "acme", "migration_policy": "on-demand"}}
    answer = await member("POST", f"volumes/{uuid}/action", retype)
    assert answer.status == 400
    assert "asks for: multiattach, vendor_name" in answer.json["badRequest"]["message"]
