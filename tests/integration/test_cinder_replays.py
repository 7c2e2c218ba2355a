"""Exchanges that were recorded of real Cinder, at the microversions of their requests."""

from __future__ import annotations

from typing import Any

from pytest_twisted import ensureDeferred

from tests.cinder import ask, daemon, made, recorded
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
