"""Exchanges that were recorded of real Cinder, at the microversions of their requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pytest_twisted import ensureDeferred

from tests.cinder import CALLERS, ask, daemon, made, recorded, settled
from tests.daemons import TENANT, Answer, Running

__all__ = ["daemon"]


@ensureDeferred
async def test_lists_are_cut_filtered_and_counted_as_recorded(daemon: Running) -> None:
    ids = {}
    for name, size, items in (
        ("l0", 1, {"k": "0", "q": "x"}),
        ("l1", 2, {"k": "1", "q": "x"}),
        ("l3", 2, {"k": "1", "q": "x"}),
        ("l2", 1, {"k": "0", "q": "x"}),
        ("l4", 1, {"k": "0", "q": "x"}),
    ):
        ids[name] = await made(daemon, "volume", name=name, size=size, metadata=items)
    for n in range(3):
        ids[f"s{n}"] = await made(
            daemon, "snapshot", name=f"s{n}", volume_id=ids["l0"], metadata={"m": str(n)}
        )
    answer = await ask(daemon, "POST", "types", {"volume_type": {"name": "t3"}}, who="admin")
    assert answer.status == 200
    shown = (await ask(daemon, "GET", "volumes/detail?all_tenants=1", who="admin")).json
    host = shown["volumes"][0]["os-vol-host-attr:host"].replace("#", "%23")
    wrong = []
    exchanges = recorded("cinder-lists.json", project=TENANT, host=host, **ids)
    assert len(exchanges) > 90
    for each in exchanges:
        answer = await ask(
            daemon,
            "GET",
            f"{each['path']}?{each['query']}",
            who=each["who"],
            version=each["version"],
        )
        found = shape(answer, each["path"])
        if found != {name: each[name] for name in found}:
            wrong.append((each, found))
    assert wrong == [], "\n".join(map(str, wrong))


@ensureDeferred
async def test_quotas_refuse_in_the_recorded_words(daemon: Running) -> None:
    """Each exchange depends on those before."""
    offered = await made(daemon, "volume", size=1)
    known = {"other": CALLERS["other"][1], "offered": offered}
    wrong: list[object] = []
    exchanges = recorded("cinder-quotas.json")
    assert len(exchanges) > 25
    for each in exchanges:
        each = with_names(each, known)
        answer = await replayed(daemon, each)
        wrong += differences(each, answer)
        if (each["method"], answer.status, each["path"]) == ("POST", 202, "volumes"):
            known["volume"] = answer.json["volume"]["id"]
            await settled(daemon, "volume", known["volume"], "other")
        if (each["method"], answer.status, each["path"]) == ("POST", 202, "os-volume-transfer"):
            known["transfer"] = answer.json["transfer"]["id"]
            known["key"] = answer.json["transfer"]["auth_key"]
    assert wrong == [], "\n".join(map(str, wrong))


@ensureDeferred
async def test_snapshots_and_other_kinds_answer_as_recorded(daemon: Running) -> None:
    """Each exchange depends on those before."""
    known = {name: project for name, (_, project) in CALLERS.items()}
    known["volume"] = await made(daemon, "volume", size=1)
    wrong: list[object] = []
    exchanges = recorded("cinder-snapshots.json")
    assert len(exchanges) > 70
    for each in exchanges:
        filled = with_names(each, known)
        answer = await replayed(daemon, filled)
        wrong += differences(filled, answer)
        if (filled["method"], answer.status) == ("POST", 202):
            if filled["path"] == "snapshots":
                snapshot = answer.json["snapshot"]
                known[snapshot["name"]] = snapshot["id"]
                await settled(daemon, "snapshot", snapshot["id"])
            if filled["path"] == "volume-transfers":
                known["transfer"] = answer.json["transfer"]["id"]
    assert wrong == [], "\n".join(map(str, wrong))


@ensureDeferred
async def test_the_default_quota_is_that_of_projects_without_one(daemon: Running) -> None:
    """Operators change the default, and give projects the default again."""
    path = "os-quota-class-sets/default"
    assert (await ask(daemon, "GET", path)).status == 403
    change = {"quota_class_set": {"volumes": 77, "backups": 7}}
    put = await ask(daemon, "PUT", path, change, who="admin")
    assert (put.status, put.json["quota_class_set"]["volumes"]) == (200, 77)
    shown = (await ask(daemon, "GET", path, who="admin")).json["quota_class_set"]
    assert (shown["id"], shown["volumes"], shown["volumes___DEFAULT__"]) == ("default", 77, -1)
    mine = (await ask(daemon, "GET", "limits")).json["limits"]["absolute"]
    assert (mine["maxTotalVolumes"], mine["maxTotalBackups"]) == (77, 7)
    quota = f"os-quota-sets/{TENANT}"
    await ask(daemon, "PUT", quota, {"quota_set": {"volumes": 3}}, who="admin")
    assert (await ask(daemon, "GET", quota)).json["quota_set"]["volumes"] == 3
    assert (await ask(daemon, "GET", f"{quota}/defaults")).json["quota_set"]["volumes"] == 77
    assert (await ask(daemon, "DELETE", quota)).status == 403
    gone = await ask(daemon, "DELETE", quota, who="admin")
    assert (gone.status, gone.body) == (200, b"")
    assert (await ask(daemon, "GET", quota)).json["quota_set"]["volumes"] == 77
    await made(daemon, "volume", size=1)
    usage = (await ask(daemon, "GET", f"{quota}?usage=True")).json["quota_set"]
    assert usage["gigabytes___DEFAULT__"] == {"limit": -1, "in_use": 1, "reserved": 0}
    other = await ask(daemon, "PUT", "os-quota-class-sets/gold", change, who="admin")
    assert other.status == 400


def with_names(each: dict[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """Return an exchange with the ids of this test."""
    text = json.dumps(each)
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", value)
    return dict(json.loads(text))


async def replayed(daemon: Running, each: dict[str, Any]) -> Answer:
    """Send the request of an exchange."""
    path = f"{each['path']}?{each.get('query', '')}"
    return await ask(
        daemon, each["method"], path, each.get("body"), who=each["who"], version=each["version"]
    )


def differences(each: dict[str, Any], answer: Answer) -> list[object]:
    """Return the differences of an answer from a recorded exchange."""
    if answer.status != each["status"]:
        return [(each, answer.status, answer.body)]
    if answer.status >= 400:
        fault = answer.json[each["fault"]]
        if answer.status == 413:
            assert (fault["retryAfter"], answer.headers["retry-after"]) == ("0", "0")
        told = each.get("message", fault["message"])
        return [] if fault["message"] == told else [(told, fault["message"])]
    if "members" in each:
        members = sorted(answer.json["snapshot"])
        return [] if members == each["members"] else [(each, members)]
    if "reply" not in each:
        return []
    body = answer.json
    found = body.get("quota_set") or body.get("limits", {}).get("absolute") or body
    shown = {name: found[name] for name in each["reply"]}
    return [] if shown == each["reply"] else [(each, shown)]


def shape(answer: Answer, path: str) -> dict[str, Any]:
    """Return the parts of an answer with a list that recordings keep."""
    shown: dict[str, Any] = {"status": answer.status}
    body = answer.json
    if answer.status >= 400:
        return {**shown, "message": next(iter(body.values()))["message"]}
    if "summary" in path:
        return {**shown, "reply": body}
    kind = "volume_types" if path == "types" else path.partition("/")[0]
    found = body.pop(kind)
    return {
        **shown,
        "names": [each["name"] for each in found],
        "members": sorted({member for each in found for member in each}),
        "others": sorted(body),
        **({"count": body["count"]} if "count" in body else {}),
    }
