"""Exchanges that were recorded of real Cinder, at the microversions of their requests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.api.cinder import microversions
from bootvol.api.cinder.microversions import Microversion
from bootvol.testing.backends import noise
from tests.daemons import TENANT, Answer, Running
from tests.waiting import until

GOLDEN = Path(__file__).parent.parent / "golden"
ADMIN = "33333333333333"
PEOPLE = f"""
[[identity.tokens]]
token = "ann"
tenant = "{TENANT}"
user = "ann"

[[identity.tokens]]
token = "root"
tenant = "{ADMIN}"
user = "root"
roles = ["admin"]

[[identity.tokens]]
token = "bob"
tenant = "22222222222222"
user = "bob"
"""
#: The callers of the recordings: a member, an operator of another project, and another project's
#: member.
CALLERS = {
    "member": ("ann", TENANT),
    "admin": ("root", ADMIN),
    "other": ("bob", "22222222222222"),
}


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """A daemon with an image, which serves the microversions of the recordings."""
    monkeypatch.setattr(microversions, "HIGHEST", Microversion(3, 71))
    daemon = Running(tmp_path, "[quota]\nvolumes = -1\ngigabytes = -1\n", identity=PEOPLE)
    (daemon.images / "disk").write_bytes(noise(1000))
    yield daemon
    await daemon.stop()


async def ask(
    daemon: Running,
    method: str,
    path: str,
    body: object = None,
    *,
    who: str = "member",
    version: str = "3.71",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request of a caller with a microversion."""
    token, project = CALLERS[who]
    more = {"OpenStack-API-Version": f"volume {version}", **(headers or {})}
    return await daemon.request(method, f"/volume/v3/{project}/{path}", body, token, headers=more)


async def made(daemon: Running, kind: str, **members: object) -> str:
    """Create a volume or snapshot; return its uuid when the object is available."""
    answer = await ask(daemon, "POST", f"{kind}s", {kind: members})
    assert answer.status == 202, answer.body
    uuid = str(answer.json[kind]["id"])
    await settled(daemon, kind, uuid)
    return uuid


async def settled(daemon: Running, kind: str, uuid: str) -> None:
    """Wait until a volume or snapshot is available."""

    async def status() -> str:
        return str((await ask(daemon, "GET", f"{kind}s/{uuid}")).json[kind]["status"])

    await until(status, lambda found: found == "available")


def recorded(name: str, **places: str) -> list[dict[str, Any]]:
    """Return recorded exchanges, with the ids and names of this test."""
    text = (GOLDEN / name).read_text()
    for place, value in places.items():
        text = text.replace(f"{{{place}}}", value)
    found: list[dict[str, Any]] = json.loads(text)
    return found


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
