"""Imports into images that projects bring: staged data, and downloads by the daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.testing.backends import noise
from bootvol.testing.web import BadWeb
from bootvol.worker import image_downloads, lanes, retries
from tests.daemons import Answer, Running, reactor
from tests.servers import Server, serve
from tests.stored_images import BYTES, LIST, MIB, create, leftovers, shown, upload
from tests.waiting import until

CONTENT = noise(3 * MIB + 17)
CONFIG = """
writable = true
quota_gib = 0.03125

[imports]
retries = 2

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}images/"]
networks = ["127.0.0.0/8", "::1/128"]
stall = 1
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between attempts, and before a silent download counts no more."""
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(image_downloads, "LOOK", 0.5)
    monkeypatch.setattr(lanes, "STALL", 1.0)


@pytest.fixture
def web() -> BadWeb:
    """A server with faults by path."""
    return BadWeb(CONTENT, reactor, rate=MIB)


@pytest.fixture
def server(web: BadWeb) -> Iterator[Server]:
    """The running server."""
    with serve(web) as server:
        yield server


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path, server: Server) -> AsyncIterator[Running]:
    """A daemon that takes images, 32 MiB of each project, and reads URLs of the server."""
    daemon = Running(tmp_path, CONFIG.format(url=server.url))
    yield daemon
    await daemon.stop()


async def request(
    daemon: Running, image: str, method: object, token: str = "ann", **more: object
) -> Answer:
    """Request an import."""
    body = {"method": method, **more}
    return await daemon.request("POST", f"{LIST}/{image}/import", body, token)


async def download(daemon: Running, server: Server, image: str, name: str = "good") -> Answer:
    """Request the download of an image of the server."""
    return await request(
        daemon, image, {"name": "web-download", "uri": f"{server.url}images/{name}"}
    )


async def stage(daemon: Running, image: str, content: bytes = CONTENT) -> Answer:
    """Stage data."""
    return await daemon.request("PUT", f"{LIST}/{image}/stage", content, headers=BYTES)


async def task(daemon: Running, image: str) -> Any:
    """Return the last import of an image."""
    (found,) = (await daemon.request("GET", f"{LIST}/{image}/tasks")).json["tasks"]
    return found


async def settled(daemon: Running, image: str) -> Any:
    """Wait until a download has ended; return the image."""

    async def look() -> Any:
        return await shown(daemon, image)

    return await until(look, lambda found: found["os_glance_importing_to_stores"] == "")


@ensureDeferred
async def test_staged_data(daemon: Running) -> None:
    image = await create(daemon)
    early = await request(daemon, image, {"name": "glance-direct"})
    assert (early.status, early.json["error"]["message"]) == (
        409,
        f"Image {image} is queued: stage its data first.",
    )
    assert (await daemon.request("GET", f"{LIST}/{image}/tasks")).json == {"tasks": []}
    assert (await stage(daemon, image)).status == 204
    staged = await shown(daemon, image)
    assert (staged["status"], staged["size"], staged["checksum"]) == ("uploading", None, None)
    assert "stores" not in staged
    assert (await daemon.request("GET", f"{LIST}/{image}/file")).status == 204
    for again in (stage(daemon, image), upload(daemon, image)):
        assert (await again).status == 409
    wanted = {"volume": {"size": 1, "imageRef": image}}
    assert (await daemon.call("POST", "os-volumes", wanted)).status == 400
    done = await request(daemon, image, {"name": "glance-direct"}, all_stores=True)
    assert (done.status, done.body) == (202, b"")
    active = await shown(daemon, image)
    assert (active["status"], active["size"]) == ("active", len(CONTENT))
    assert (active["os_hash_value"], active["stores"]) == (sha512(CONTENT).hexdigest(), "images")
    assert (await daemon.request("GET", f"{LIST}/{image}/file")).body == CONTENT
    made = await task(daemon, image)
    assert made["input"]["import_req"]["method"] == {"name": "glance-direct"}
    assert (made["status"], made["message"]) == ("success", "")
    assert made["request_id"] == done.headers["x-openstack-request-id"]
    assert (await daemon.request("GET", f"/image{made['self']}")).json == made
    for token, query, found in (
        ("ann", "", [made]),
        ("ann", "?status=success&type=api_image_import&sort_key=status&sort_dir=asc", [made]),
        ("ann", "?status=failure", []),
        ("ann", f"?marker={made['id']}", []),
        ("bob", "", []),
    ):
        listed = await daemon.request("GET", f"/image/v2/tasks{query}", token=token)
        assert listed.json["tasks"] == found, (token, query)
    assert (await daemon.request("GET", f"/image{made['self']}", token="bob")).status == 404
    assert (await daemon.request("GET", "/image/v2/tasks?sort_key=owner")).status == 400
    assert (await request(daemon, image, {"name": "glance-direct"})).status == 409
    assert leftovers(daemon) == [".disk", ".json"]


@ensureDeferred
async def test_staged_data_that_is_no_image(daemon: Running) -> None:
    image = await create(daemon, disk_format="qcow2")
    refused = await stage(daemon, image)
    assert refused.status == 400
    assert "stated to be qcow2" in refused.json["error"]["message"]
    assert (await shown(daemon, image))["status"] == "queued"
    wrong = await daemon.request("PUT", f"{LIST}/{image}/stage", CONTENT)
    assert wrong.status == 415
    assert leftovers(daemon) == [".json"]


@ensureDeferred
async def test_staged_data_is_deleted_with_the_image(daemon: Running) -> None:
    image = await create(daemon)
    assert (await stage(daemon, image)).status == 204
    assert (await daemon.request("DELETE", f"{LIST}/{image}")).status == 204
    assert leftovers(daemon) == []


@ensureDeferred
async def test_a_download(daemon: Running, server: Server, web: BadWeb) -> None:
    image = await create(daemon)
    answer = await download(daemon, server, image, "slow")
    assert (answer.status, answer.body) == (202, b"")
    begun = await shown(daemon, image)
    assert begun["status"] == "importing"
    assert begun["os_glance_importing_to_stores"] == "images"
    running = await task(daemon, image)
    assert (running["status"], running["result"]) == ("processing", None)
    assert running["input"]["import_req"]["method"] == {
        "name": "web-download",
        "uri": f"{server.url}images/slow",
    }
    for refused in (upload(daemon, image), stage(daemon, image), download(daemon, server, image)):
        assert (await refused).status == 409
    active = await settled(daemon, image)
    assert (active["status"], active["size"]) == ("active", len(CONTENT))
    assert (active["os_glance_failed_import"], active["stores"]) == ("", "images")
    assert active["os_hash_value"] == sha512(CONTENT).hexdigest()
    assert (await daemon.request("GET", f"{LIST}/{image}/file")).body == CONTENT
    assert (await task(daemon, image))["status"] == "success"
    assert web.requests["slow"]
    volume = await daemon.create(image)
    assert await daemon.until(volume, "available", "error") == "available"


@pytest.mark.parametrize(
    "name", ["drop-once", "no-ranges", "changed", "wrong-range", "stall", "busy", "refuses-rest"]
)
@ensureDeferred
async def test_servers_that_break_off(
    daemon: Running, server: Server, web: BadWeb, name: str
) -> None:
    web.pause = 0
    image = await create(daemon)
    assert (await download(daemon, server, image, name)).status == 202
    active = await settled(daemon, image)
    assert active["status"] == "active", await task(daemon, image)
    assert active["os_hash_value"] == sha512(web.content).hexdigest()
    assert leftovers(daemon) == [".disk", ".json"]


@pytest.mark.parametrize(
    ("name", "stated", "told"),
    [
        ("drop", "raw", "closed the connection"),
        ("short", "raw", ""),
        ("page", "raw", "a page instead of the image"),
        ("elsewhere", "raw", "redirect"),
        ("nowhere", "raw", "redirect"),
        ("good", "qcow2", "The image was stated to be qcow2, but is a raw disk."),
    ],
)
@ensureDeferred
async def test_downloads_that_fail(
    daemon: Running, server: Server, name: str, stated: str, told: str
) -> None:
    image = await create(daemon, disk_format=stated, os_distro="debian")
    assert (await download(daemon, server, image, name)).status == 202
    queued = await settled(daemon, image)
    assert (queued["status"], queued["os_glance_failed_import"]) == ("queued", "images")
    assert (queued["size"], queued["os_distro"]) == (None, "debian")
    failed = await task(daemon, image)
    assert (failed["status"], failed["result"]) == ("failure", None)
    assert told in failed["message"]
    assert failed["message"]
    assert leftovers(daemon) == [".json"]
    # The image takes data again.
    if stated == "raw":
        assert (await download(daemon, server, image)).status == 202
        assert (await settled(daemon, image))["status"] == "active"


@ensureDeferred
async def test_a_wrong_digest(daemon: Running, server: Server, web: BadWeb) -> None:
    """The digest beside an image decides, as for volumes.

    Break: `src/bootvol/worker/image_fetches.py`: `if found != stated.value:` -> `if False:`.
    """
    for wanted, status in ((sha256(b"other").hexdigest(), "queued"), ("", "active")):
        digest = wanted or sha256(CONTENT).hexdigest()
        web.lists["SHA256SUMS"] = f"{digest}  good\n".encode()
        image = await create(daemon)
        assert (await download(daemon, server, image)).status == 202
        assert (await settled(daemon, image))["status"] == status
        if wanted:
            assert wanted in (await task(daemon, image))["message"]


@ensureDeferred
async def test_the_rules_for_urls_hold(daemon: Running, server: Server) -> None:
    """Only the source's own rules decide about URLs.

    Break: `src/bootvol/service/images.py`:
    `if "://" in url and IUrlSource.providedBy(source):` -> `if True:`.
    """
    (daemon.images / "debian.raw").write_bytes(CONTENT)
    image = await create(daemon)
    for url, told in (
        (f"{server.url}other/good", "does not allow the URL"),
        ("http://does-not.exist/no/possible/way", "http://does-not.exist/no/possible/way"),
        (f"{server.url}images/missing", "no such file"),
        (f"{server.url}images/../other/good", "does not allow the URL"),
        ("debian.raw", "does not allow the URL"),
        (f"{server.url}debian.raw", "does not allow the URL"),
        ("file:///etc/passwd", ""),
        ("http://user@localhost/images/good", ""),
    ):
        refused = await request(daemon, image, {"name": "web-download", "uri": url})
        assert refused.status == 400, (url, refused)
        assert told in refused.json["error"]["message"], url
    assert (await shown(daemon, image))["status"] == "queued"
    signed = f"{server.url}other/good?signature=secret"
    refused = await request(daemon, image, {"name": "web-download", "uri": signed})
    assert "secret" not in refused.body.decode()
    noted = await task(daemon, image)
    assert noted["status"] == "failure"
    assert noted["message"] == refused.json["error"]["message"]
    assert "secret" not in str(noted)
    assert (await shown(daemon, image))["os_glance_failed_import"] == "images"


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"method": {"name": "web-download"}}, 400, "needs the uri"),
        ({"method": {"name": "copy-image"}}, 400, "Unknown import method name 'copy-image'."),
        ({"method": {}}, 400, "Invalid input received"),
        ({"method": "web-download"}, 400, "Invalid input received"),
        ({}, 400, "Invalid input received"),
        ([], 400, "Invalid input received"),
        ({"method": {"name": "glance-direct"}, "stores": ["other"]}, 400, "in the store images"),
        ({"method": {"name": "glance-direct"}, "stores": "x"}, 400, "Invalid input received"),
    ],
)
@ensureDeferred
async def test_wrong_requests(daemon: Running, body: object, status: int, told: str) -> None:
    image = await create(daemon)
    answer = await daemon.request("POST", f"{LIST}/{image}/import", body)
    assert answer.status == status
    assert told in answer.json["error"]["message"]


@ensureDeferred
async def test_who_imports(daemon: Running, server: Server) -> None:
    image = await create(daemon)
    unformatted = await create(daemon, disk_format=None)
    assert (await download(daemon, server, unformatted)).status == 400
    for visibility, status in (("shared", 404), ("community", 403)):
        change = [{"op": "replace", "path": "/visibility", "value": visibility}]
        headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
        await daemon.request("PATCH", f"{LIST}/{image}", change, headers=headers)
        for method, path, body, more in (
            ("POST", "/import", {"method": {"name": "glance-direct"}}, None),
            ("PUT", "/stage", b"x", BYTES),
            ("GET", "/tasks", None, None),
        ):
            sent = await daemon.request(method, f"{LIST}/{image}{path}", body, "bob", more)
            assert sent.status == status, path
        sent = await daemon.request("DELETE", f"/image/v2/stores/images/{image}", token="bob")
        assert sent.status == status
    for store, status in (("images", 403), ("other", 404)):
        sent = await daemon.request("DELETE", f"/image/v2/stores/{store}/{image}")
        assert sent.status == status


@ensureDeferred
async def test_a_removed_image_ends_its_download(daemon: Running, server: Server) -> None:
    image = await create(daemon)
    assert (await download(daemon, server, image, "drip")).status == 202
    await until(lambda: leftovers(daemon), lambda found: ".part" in found)
    assert (await daemon.request("DELETE", f"{LIST}/{image}")).status == 204
    assert leftovers(daemon) == []


@ensureDeferred
async def test_the_quota_counts_downloads(daemon: Running, server: Server) -> None:
    first, image = await create(daemon), await create(daemon)
    assert (await upload(daemon, first, noise(29 * MIB))).status == 204
    assert (await download(daemon, server, image)).status == 202
    assert (await settled(daemon, image))["status"] == "queued"
    assert "may have 0.03125 GiB together" in (await task(daemon, image))["message"]


@ensureDeferred
async def test_a_project_leaves_places_to_others(
    daemon: Running, server: Server, web: BadWeb
) -> None:
    waiting = [await create(daemon) for _ in range(image_downloads.MOST)]
    for image in waiting:
        assert (await download(daemon, server, image, "drip")).status == 202
    await until(lambda: len(web.requests["drip"]), lambda found: found == len(waiting))
    theirs = await create(daemon, "bob")
    method = {"name": "web-download", "uri": f"{server.url}images/good"}
    assert (await request(daemon, theirs, method, "bob")).status == 202

    async def status() -> str:
        return str((await shown(daemon, theirs, "bob"))["status"])

    await until(status, lambda found: found == "active")
    for image in waiting:
        assert (await shown(daemon, image))["status"] == "importing"


@ensureDeferred
async def test_a_download_goes_on_after_a_restart(
    tmp_path: Path, server: Server, web: BadWeb
) -> None:
    config = CONFIG.format(url=server.url)
    first = Running(tmp_path, config)
    image = await create(first)
    web.also["later"] = "drip"
    assert (await download(first, server, image, "later")).status == 202
    await until(lambda: leftovers(first), lambda found: ".part" in found)
    await first.stop()
    assert leftovers(first) == [".json"]
    web.also["later"] = "good"
    second = Running(tmp_path, config)
    try:
        assert (await settled(second, image))["status"] == "active"
        assert (await second.request("GET", f"{LIST}/{image}/file")).body == CONTENT
    finally:
        await second.stop()


@ensureDeferred
async def test_what_is_offered(daemon: Running, tmp_path: Path) -> None:
    ways = (await daemon.request("GET", "/image/v2/info/import")).json
    assert ways["import-methods"]["value"] == ["glance-direct", "web-download"]
    stores = (await daemon.request("GET", "/image/v2/info/stores")).json
    assert stores == {"stores": [{"id": "images", "default": "true"}]}
    plain = tmp_path / "plain"
    plain.mkdir()
    other = Running(plain)
    try:
        ways = (await other.request("GET", "/image/v2/info/import")).json
        assert ways["import-methods"]["value"] == []
        assert (await other.request("GET", "/image/v2/info/stores")).json == {"stores": []}
    finally:
        await other.stop()


@ensureDeferred
async def test_no_metadata_definitions(daemon: Running) -> None:
    root = "/image/v2/metadefs"
    assert (await daemon.request("GET", f"{root}/namespaces")).json["namespaces"] == []
    assert (await daemon.request("GET", f"{root}/resource_types")).json == {"resource_types": []}
    assert (await daemon.request("POST", f"{root}/namespaces")).status == 403
    assert (await daemon.request("GET", f"{root}/namespaces/OS::Compute")).status == 404
