"""Images that projects share with each other, and what admins do with images of others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.service.image_members import MOST_MEMBERS
from tests.daemons import OTHER_TENANT, TENANT, Answer, Running
from tests.stored_images import (
    BYTES,
    CONTENT,
    EARLIER_PATCH,
    LIST,
    PATCH,
    create,
    patch,
    shown,
    step,
    upload,
)


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon that takes images."""
    daemon = Running(tmp_path, "writable = true")
    yield daemon
    await daemon.stop()


async def share(
    daemon: Running, image: str, tenant: str = OTHER_TENANT, token: str = "ann"
) -> Answer:
    """Share an image."""
    return await daemon.request("POST", f"{LIST}/{image}/members", {"member": tenant}, token)


async def answer(
    daemon: Running, image: str, status: str, token: str = "bob", tenant: str = OTHER_TENANT
) -> Answer:
    """Answer to a shared image."""
    path = f"{LIST}/{image}/members/{tenant}"
    return await daemon.request("PUT", path, {"status": status}, token)


async def listed(daemon: Running, query: str = "", token: str = "bob") -> list[str]:
    """Return the ids of the listed images."""
    found = (await daemon.request("GET", LIST + query, token=token)).json["images"]
    return [each["id"] for each in found]


@ensureDeferred
async def test_the_life_of_a_membership(daemon: Running) -> None:
    image = await create(daemon)
    assert (await upload(daemon, image)).status == 204
    assert (await daemon.request("GET", f"{LIST}/{image}", token="bob")).status == 404
    made = await share(daemon, image)
    assert made.status == 200
    assert {**made.json, "created_at": "", "updated_at": ""} == {
        "member_id": OTHER_TENANT,
        "image_id": image,
        "status": "pending",
        "created_at": "",
        "updated_at": "",
        "schema": "/v2/schemas/member",
    }
    for status, in_lists in (("pending", []), ("accepted", [image]), ("rejected", [])):
        if status != "pending":
            changed = await answer(daemon, image, status)
            assert (changed.status, changed.json["status"]) == (200, status)
        assert (await shown(daemon, image, "bob"))["id"] == image
        assert await listed(daemon) == in_lists
        assert await listed(daemon, f"?member_status={status}") == [image]
        assert await listed(daemon, f"?visibility=shared&member_status={status}") == [image]
        assert await listed(daemon, "?visibility=shared&member_status=all") == [image]
        assert await listed(daemon, "?visibility=public") == []
        assert await listed(daemon, token="ann") == [image]
        for token in ("ann", "bob"):
            all_of = await daemon.request("GET", f"{LIST}/{image}/members", token=token)
            assert [each["status"] for each in all_of.json["members"]] == [status]
            path = f"{LIST}/{image}/members/{OTHER_TENANT}"
            assert (await daemon.request("GET", path, token=token)).json["status"] == status
    data = await daemon.request("GET", f"{LIST}/{image}/file", token="bob")
    assert data.body == CONTENT
    wanted = {"volume": {"size": 1, "imageRef": image}}
    volume = await daemon.request("POST", f"/v1.1/{OTHER_TENANT}/os-volumes", wanted, "bob")
    assert volume.status == 200, volume
    assert (await share(daemon, image)).status == 409
    # Of an image that is not shared any more, members know nothing.
    assert (await patch(daemon, image, step("replace", "/visibility", "private"))).status == 200
    assert (await daemon.request("GET", f"{LIST}/{image}", token="bob")).status == 404
    refused = await daemon.request("GET", f"{LIST}/{image}/members")
    assert (refused.status, refused.json["error"]["message"]) == (
        403,
        "Only shared images have members.",
    )
    assert (await share(daemon, image)).status == 403
    assert (await patch(daemon, image, step("replace", "/visibility", "shared"))).status == 200
    for code in (204, 404):
        path = f"{LIST}/{image}/members/{OTHER_TENANT}"
        assert (await daemon.request("DELETE", path)).status == code
        assert (await daemon.request("GET", path)).status == 404
    assert (await daemon.request("GET", f"{LIST}/{image}", token="bob")).status == 404


@ensureDeferred
async def test_who_decides_about_members(daemon: Running) -> None:
    """The owner alone chooses members, each member alone answers, and members see no other one.

    Break: `src/bootvol/service/image_members.py`:
    `if tenant != caller.tenant and not rights.all_tenants:` -> `if False:`.
    Break: `src/bootvol/service/image_members.py`:
    `if record.owner == caller.tenant or rights.all_tenants:` -> `if True:`.
    """
    image = await create(daemon)
    for call in (share(daemon, image, token="bob"), answer(daemon, image, "accepted")):
        assert (await call).status == 404
    assert (await share(daemon, image, "third")).status == 200
    assert (await share(daemon, image)).status == 200
    assert (await answer(daemon, image, "accepted", "ann")).status == 403
    assert (await answer(daemon, image, "accepted", tenant="third")).status == 404
    assert (await share(daemon, image, "fourth", "bob")).status == 403
    path = f"{LIST}/{image}/members"
    assert (await daemon.request("DELETE", f"{path}/{OTHER_TENANT}", token="bob")).status == 403
    seen = (await daemon.request("GET", path, token="bob")).json["members"]
    assert [each["member_id"] for each in seen] == [OTHER_TENANT]
    assert (await daemon.request("GET", f"{path}/third", token="bob")).status == 404
    for status, body in (
        (400, {"status": "maybe"}),
        (400, {}),
        (400, {"status": None}),
        (400, []),
        (200, {"status": "accepted", "more": 1}),
    ):
        sent = await daemon.request("PUT", f"{path}/{OTHER_TENANT}", body, "bob")
        assert sent.status == status, body
    for wrong in ({}, {"member": ""}, {"member": 5}, {"member": "x" * 256}):
        assert (await daemon.request("POST", path, wrong)).status == 400, wrong
    refused = await daemon.request("GET", f"{LIST}?member_status=x")
    assert (refused.status, "Invalid status: x" in refused.json["error"]["message"]) == (400, True)


@ensureDeferred
async def test_the_number_of_members(daemon: Running) -> None:
    image = await create(daemon)
    for number in range(MOST_MEMBERS):
        assert (await share(daemon, image, f"project-{number}")).status == 200
    assert (await share(daemon, image, "one-more")).status == 413


@ensureDeferred
async def test_deactivated_images(daemon: Running) -> None:
    image = await create(daemon, visibility="community")
    path = f"{LIST}/{image}/actions"
    early = await daemon.request("POST", f"{path}/deactivate")
    assert (early.status, early.json["error"]["message"]) == (
        403,
        "Not allowed to deactivate image in status 'queued'.",
    )
    assert (await upload(daemon, image)).status == 204
    assert (await daemon.request("POST", f"{path}/deactivate", token="bob")).status == 403
    for _ in range(2):
        assert (await daemon.request("POST", f"{path}/deactivate")).status == 204
        found = await shown(daemon, image)
        assert (found["status"], found["size"]) == ("deactivated", len(CONTENT))
    data = await daemon.request("GET", f"{LIST}/{image}/file")
    assert (data.status, data.json["error"]["message"]) == (403, f"Image {image} is deactivated.")
    wanted = {"volume": {"size": 1, "imageRef": image}}
    assert (await daemon.call("POST", "os-volumes", wanted)).status == 400
    assert (await upload(daemon, image)).status == 409
    for _ in range(2):
        assert (await daemon.request("POST", f"{path}/reactivate")).status == 204
        assert (await shown(daemon, image))["status"] == "active"
    assert (await daemon.request("GET", f"{LIST}/{image}/file")).body == CONTENT


@ensureDeferred
async def test_the_right_to_all_images(daemon: Running) -> None:
    """Admins see, change and give away images of others; nobody else does.

    Break: `src/bootvol/api/glance/rights.py`: `all_tenants=_has(context, Right.ALL_IMAGES)` ->
    `all_tenants=True`.
    """
    image = await create(daemon, "bob")
    assert (await daemon.request("GET", f"{LIST}/{image}", token="ann")).status == 404
    assert (await shown(daemon, image, "root"))["owner"] == OTHER_TENANT
    assert await listed(daemon, token="root") == []
    for query in (f"?owner={OTHER_TENANT}", "?visibility=all", "?visibility=shared"):
        assert await listed(daemon, query, "root") == [image]
        assert await listed(daemon, query, "ann") == []
    given = await patch(daemon, image, step("replace", "/owner", TENANT), token="root")
    assert (given.status, given.json["owner"]) == (200, TENANT)
    assert await listed(daemon, token="ann") == [image]
    assert (await daemon.request("GET", f"{LIST}/{image}", token="bob")).status == 404
    back = [{"replace": "/owner", "value": OTHER_TENANT}]
    headers = {"Content-Type": EARLIER_PATCH}
    for token, status in (("ann", 403), ("root", 200)):
        sent = await daemon.request("PATCH", f"{LIST}/{image}", back, token, headers)
        assert sent.status == status
    assert (await daemon.request("DELETE", f"{LIST}/{image}", token="root")).status == 204
    made = await create(daemon, "root", owner="somebody")
    assert (await shown(daemon, made, "root"))["owner"] == "somebody"
    assert (await daemon.request("GET", f"{LIST}/{made}", token="ann")).status == 404


@pytest.mark.parametrize("name", ["image", "images", "member", "members", "task", "tasks"])
@ensureDeferred
async def test_schemas(daemon: Running, name: str) -> None:
    found = await daemon.request("GET", f"/image/v2/schemas/{name}")
    assert (found.status, found.json["name"]) == (200, name)


@ensureDeferred
async def test_media_types_of_changes(daemon: Running) -> None:
    image = await create(daemon)
    for media, status in ((PATCH, 200), (EARLIER_PATCH, 200), ("application/json", 415)):
        headers = {"Content-Type": media}
        sent = await daemon.request("PATCH", f"{LIST}/{image}", [], headers=headers)
        assert sent.status == status, media
    assert (await daemon.request("PATCH", f"{LIST}/{image}", b"[]", headers=BYTES)).status == 415
