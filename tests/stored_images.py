"""Images that callers bring to a daemon, for tests."""

from __future__ import annotations

from typing import Any

from bootvol.testing.backends import noise
from bootvol_plugins.directory_records import FOLDER
from tests.daemons import Answer, Running

LIST = "/image/v2/images"
PATCH = "application/openstack-images-v2.1-json-patch"
EARLIER_PATCH = "application/openstack-images-v2.0-json-patch"
BYTES = {"Content-Type": "application/octet-stream"}
MIB = 1024 * 1024
#: More than the limit of other bodies, and not a multiple of any buffer.
CONTENT = noise(5 * MIB + 777)


async def create(daemon: Running, token: str = "ann", **values: object) -> str:
    """Create an image without data; return its id."""
    body = {"name": "disk", "disk_format": "raw", "container_format": "bare", **values}
    answer = await daemon.request("POST", LIST, body, token)
    assert answer.status == 201, answer
    return str(answer.json["id"])


async def upload(
    daemon: Running, image: str, content: bytes = CONTENT, token: str | None = "ann"
) -> Answer:
    """Upload the data of an image."""
    return await daemon.request("PUT", f"{LIST}/{image}/file", content, token, BYTES)


async def shown(daemon: Running, image: str, token: str = "ann") -> Any:
    """Return the description of an image."""
    return (await daemon.request("GET", f"{LIST}/{image}", token=token)).json


async def patch(daemon: Running, image: str, *steps: object, token: str = "ann") -> Answer:
    """Change the description of an image."""
    headers = {"Content-Type": PATCH}
    return await daemon.request("PATCH", f"{LIST}/{image}", list(steps), token, headers)


def step(op: str, path: str, value: object = None) -> dict[str, object]:
    """Return one change."""
    return {"op": op, "path": path, **({} if op == "remove" else {"value": value})}


def leftovers(daemon: Running) -> list[str]:
    """Return the endings of the files in the store."""
    return sorted(each.suffix for each in (daemon.images / FOLDER).iterdir() if each.suffix)
