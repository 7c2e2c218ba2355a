"""A daemon that serves the Block Storage API v3, and its callers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest_twisted

from bootvol.testing.backends import noise
from tests.daemons import TENANT, Answer, Running
from tests.waiting import until

GOLDEN = Path(__file__).parent / "golden"
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

[[identity.tokens]]
token = "nova"
tenant = "44444444444444"
user = "nova"
roles = ["service"]
"""
#: The header of requests that a service with servers forwards.
OF_NOVA = {"X-Service-Token": "nova"}
#: The callers of the recordings: a member, an operator of another project, and another project's
#: member.
CALLERS = {
    "member": ("ann", TENANT),
    "admin": ("root", ADMIN),
    "other": ("bob", "22222222222222"),
}


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon with an image."""
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


async def settled(daemon: Running, kind: str, uuid: str, who: str = "member") -> None:
    """Wait until a volume or snapshot is available."""

    async def status() -> str:
        return str((await ask(daemon, "GET", f"{kind}s/{uuid}", who=who)).json[kind]["status"])

    await until(status, lambda found: found == "available")


def recorded(name: str, **places: str) -> list[dict[str, Any]]:
    """Return recorded exchanges, with the ids and names of this test."""
    text = (GOLDEN / name).read_text()
    for place, value in places.items():
        text = text.replace(f"{{{place}}}", value)
    found: list[dict[str, Any]] = json.loads(text)
    return found
