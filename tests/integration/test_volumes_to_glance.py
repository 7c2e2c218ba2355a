"""Images that are made of volumes, in a real Glance, with the rights of the caller."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.model import GIB
from bootvol.testing.backends import noise
from tests.daemons import TENANT, Answer
from tests.integration.test_glance_imports import Site, site_of
from tests.openstack.cloud import Cloud, blocking
from tests.waiting import until

CONTENT = noise(70_001)


@pytest_twisted.async_yield_fixture
async def site(cloud: Cloud, tmp_path: Path) -> AsyncIterator[Site]:
    """A daemon with a volume, and a Glance."""
    made = await site_of(cloud, tmp_path, cloud.glance.url)
    number = await made.running.create()
    await made.running.until(number, "available")
    (file,) = made.running.files()
    with file.open("r+b") as held:
        held.write(CONTENT)
    yield made
    await made.running.stop()


async def upload(site: Site, token: str, **more: object) -> Answer:
    """Ask for an image of the volume."""
    headers = {"OpenStack-API-Version": "volume latest"}
    root = f"/volume/v3/{TENANT}/volumes"
    found = await site.running.request("GET", root, None, token, headers)
    (volume,) = found.json["volumes"]
    asked = {"os-volume_upload_image": {"image_name": "img", **more}}
    path = f"{root}/{volume['id']}/action"
    return await site.running.request("POST", path, asked, token, headers)


async def image(site: Site, number: str) -> dict[str, Any] | None:
    """Return an image of ann's; None if Glance has no such image."""
    try:
        found = await blocking(site.cloud.glance.call, "GET", f"/{number}", site.tokens["ann"])
    except HTTPError as error:
        error.close()
        if error.code != 404:
            raise
        return None
    return dict(found)


async def code(site: Site) -> str | None:
    """Return the code of the volume's error."""
    error = (await site.running.call("GET", "os-volumes/1/error")).json["error"]
    return None if error is None else str(error["code"])


@ensureDeferred
async def test_glance_takes_an_image_of_a_volume(site: Site) -> None:
    answer = await upload(site, site.tokens["ann"], protected=False, visibility="shared")
    assert answer.status == 202
    number = answer.json["os-volume_upload_image"]["image_id"]
    await site.running.until(1, "available")
    assert await code(site) is None
    found = await image(site, number)
    assert found is not None
    whole = hashlib.sha512(CONTENT + bytes(GIB - len(CONTENT))).hexdigest()
    assert (found["status"], found["size"], found["os_hash_value"]) == ("active", GIB, whole)
    shown = {key: found[key] for key in ("name", "visibility", "disk_format", "owner")}
    assert shown == {
        "name": "img",
        "visibility": "shared",
        "disk_format": "raw",
        "owner": site.cloud.projects["ann"],
    }


@ensureDeferred
async def test_a_caller_whom_glance_does_not_know_makes_no_image(site: Site) -> None:
    answer = await upload(site, "ann")
    assert answer.status == 401
    assert await site.running.status(1) == "available"
    assert site.running.files()


@ensureDeferred
async def test_an_upload_that_glance_breaks_off_leaves_no_image(
    site: Site,
) -> None:
    """Break: `src/bootvol/worker/tasks/uploads.py`: `await self._give_up(upload)` -> `pass`."""
    answer = await upload(site, site.tokens["ann"])
    number = answer.json["os-volume_upload_image"]["image_id"]
    await until(lambda: image(site, number), lambda found: _is(found, "saving"))
    await blocking(site.cloud.glance.kill)
    await blocking(site.cloud.glance.start)
    await site.running.until(1, "available")
    assert await code(site) == "source-failed"
    assert await image(site, number) is None


def _is(found: dict[str, Any] | None, status: str) -> bool:
    return found is not None and found["status"] == status


@ensureDeferred
async def test_an_upload_ends_with_the_daemon(site: Site, tmp_path: Path) -> None:
    """The token of the caller is in memory only, so another daemon cannot go on."""
    away = site.running.volumes.rename(tmp_path / "away")
    answer = await upload(site, site.tokens["ann"])
    number = answer.json["os-volume_upload_image"]["image_id"]
    assert _is(await image(site, number), "queued")
    await site.running.stop()
    away.rename(site.running.volumes)
    later = await site_of(site.cloud, tmp_path, site.cloud.glance.url)
    try:
        await later.running.until(1, "available")
        assert await code(later) == "upload-forgotten"
        assert await image(site, number) is None
    finally:
        await later.running.stop()
