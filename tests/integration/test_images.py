"""The image API over a real socket, and images in Nova's form."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from bootvol.api.glance.described import of_image
from bootvol.api.glance.views import image
from bootvol.model import Digest, Image
from tests.daemons import Running

INDEX = f"""\
[[images]]
id = "1"
file = "debian"
name = "Debian 12"
format = "qcow2"
min_disk = 2
sha512 = "{"ab" * 64}"
"""
#: Sizes in bytes of other files in the folder, with names difficult in paths.
FILES = {"debian": 3000, "a file": 1000, "100% ä?&#": 2000, "empty": 0}
LIST = "/image/v2/images"


@pytest_twisted.async_yield_fixture
async def images(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon with some images."""
    daemon = Running(tmp_path)
    (daemon.images / "index.toml").write_text(INDEX)
    for name, size in FILES.items():
        (daemon.images / name).write_bytes(bytes(size))
    yield daemon
    await daemon.stop()


async def ids(daemon: Running, query: str = "") -> list[str]:
    """Return the ids of the listed images."""
    answer = await daemon.request("GET", LIST + query)
    assert answer.status == 200, answer
    return [each["id"] for each in answer.json["images"]]


@ensureDeferred
async def test_versions_need_no_token(images: Running) -> None:
    for path, status in (
        ("/image", 300),
        ("/image/", 300),
        ("/image/v2", 200),
        ("/image/v2/", 200),
    ):
        answer = await images.request("GET", path, token=None)
        assert answer.status == status
        newest, *older = answer.json["versions"]
        assert (newest["id"], newest["status"]) == ("v2.12", "CURRENT")
        assert [each["id"] for each in older] == [f"v2.{minor}" for minor in range(11, -1, -1)]
        assert {each["status"] for each in older} == {"SUPPORTED"}
        root = f"http://127.0.0.1:{images.port}/image/v2/"
        assert newest["links"] == [{"rel": "self", "href": root}]


@ensureDeferred
async def test_an_image(images: Running) -> None:
    shown = (await images.request("GET", f"{LIST}/1")).json
    changed = shown.pop("updated_at")
    assert changed == shown.pop("created_at")
    assert shown == {
        "id": "1",
        "name": "Debian 12",
        "status": "active",
        "visibility": "public",
        "protected": False,
        "os_hidden": False,
        "owner": None,
        "size": 3000,
        "virtual_size": None,
        "disk_format": "qcow2",
        "container_format": "bare",
        "checksum": None,
        "os_hash_algo": "sha512",
        "os_hash_value": "ab" * 64,
        "min_disk": 2,
        "min_ram": 0,
        "tags": [],
        "file": "/v2/images/1/file",
        "self": "/v2/images/1",
        "schema": "/v2/schemas/image",
    }
    listed = (await images.request("GET", f"{LIST}?id=1")).json
    assert listed["images"] == [{**shown, "created_at": changed, "updated_at": changed}]
    assert (listed["first"], listed["schema"]) == ("/v2/images?id=1", "/v2/schemas/images")
    (nova,) = (await images.call("GET", "images/detail?name=Debian%2012")).json["images"]
    assert (nova["id"], nova["updated"], nova["minDisk"]) == ("1", changed, 2)
    assert (await images.call("GET", "images/1")).json == {"image": nova}


@ensureDeferred
async def test_what_an_image_is_described_by(images: Running) -> None:
    """The shown properties and those of the schema are the same."""
    schema = (await images.request("GET", "/image/v2/schemas/image")).json
    shown = (await images.request("GET", f"{LIST}/1")).json
    assert shown.keys() == schema["properties"].keys()
    assert (await images.request("GET", "/image/v2/schemas/images")).json["name"] == "images"


@ensureDeferred
async def test_hard_names(images: Running) -> None:
    for name in FILES.keys() - {"debian"}:
        shown = (await images.request("GET", f"{LIST}/{quote(name, safe='')}")).json
        assert shown["name"] == name
        again = await images.request("GET", f"/image{shown['self']}")
        assert again.json == shown
        assert await ids(images, f"?name={quote(name, safe='')}") == [name]
        answer = await images.call("GET", f"images/{quote(name, safe='')}")
        assert answer.json["image"]["name"] == name


@ensureDeferred
async def test_an_id_with_slashes(images: Running) -> None:
    """An encoded slash is part of the id; another one separates segments."""
    named = "debian/12//x"
    (images.images / "index.toml").write_text(INDEX.replace('id = "1"', f'id = "{named}"'))
    encoded = quote(named, safe="")
    shown = (await images.request("GET", f"{LIST}/{encoded}")).json
    assert shown["id"] == named
    assert (await images.request("GET", f"/image{shown['self']}")).json == shown
    answer = await images.call("GET", f"images/{encoded}")
    assert answer.json["image"]["id"] == named
    assert answer.json["image"]["links"][0]["href"].endswith(f"/images/{encoded}")
    assert (await images.call("GET", f"images/{named}")).status in {400, 404}
    assert (await images.call("GET", "os-volumes/1%2F2")).status == 404


@ensureDeferred
async def test_a_name_in_another_form(images: Running) -> None:
    """A Mac separates letters and their marks; a person who types the name does not."""
    apart, composed = (unicodedata.normalize(form, "Größe é.raw") for form in ("NFD", "NFC"))
    (images.images / apart).write_bytes(b"\1" * 4096)
    for form in (apart, composed):
        shown = await images.request("GET", f"{LIST}/{quote(form)}")
        assert shown.json["id"] == apart
        assert await ids(images, f"?name={quote(form)}") == [apart]
        listed = await images.call("GET", f"images?name={quote(form)}")
        assert [each["id"] for each in listed.json["images"]] == [apart]
        for reference in (form, quote(form), f"http://127.0.0.1:1/images/{quote(form)}"):
            number = await images.create(reference)
            assert await images.until(number, "available", "error") == "available"


@pytest.mark.parametrize("name", ["a\u00a0b.raw", "\u200bx\u2003y", "\ue000.raw", "\u0378"])
@ensureDeferred
async def test_characters_that_cannot_be_printed(images: Running, name: str) -> None:
    """Unusual spaces and private characters: every servable file has an id."""
    (images.images / name).write_bytes(b"\1" * 4096)
    assert name in await ids(images)
    for path in (f"{LIST}/{quote(name)}", f"{LIST}/{quote(quote(name))}"):
        assert (await images.request("GET", path)).json["id"] == name
    assert (await images.call("GET", f"images/{quote(name)}")).json["image"]["id"] == name
    for reference in (name, quote(name), f"http://127.0.0.1:1/images/{quote(name)}"):
        number = await images.create(reference)
        assert await images.until(number, "available", "error") == "available"


@ensureDeferred
async def test_a_name_that_ends_like_a_statement_of_the_format(images: Running) -> None:
    for name in ("a.json", "b", "b.json"):
        (images.images / name).write_bytes(b"\1" * 4096)
    for written, meant in (
        ("a.json", "a.json"),
        ("a.json.json", "a.json"),
        ("b", "b"),
        ("b.json", "b.json"),
        ("debian.json", None),
        ("1.json", "1"),
    ):
        shown = await images.request("GET", f"{LIST}/{written}")
        answer = await images.call("GET", f"images/{written}")
        if meant is None:
            assert shown.status == answer.status == 404
        else:
            assert (shown.json["id"], answer.json["image"]["id"]) == (meant, meant)
    key = {"keypair": {"name": "a.json"}}
    assert (await images.call("POST", "os-keypairs", key)).status in (200, 201)
    assert (await images.call("GET", "os-keypairs/a.json")).json["keypair"]["name"] == "a.json"
    assert (await images.call("DELETE", "os-keypairs/a.json")).status == 202
    assert (await images.call("GET", "os-keypairs")).json["keypairs"] == []


@ensureDeferred
async def test_a_name_that_looks_encoded(images: Running) -> None:
    """The image with exactly the written name is found first."""
    for name in ("a%20file", "50%25.raw"):
        (images.images / name).write_bytes(b"\1" * 4096)
        for reference in (name, quote(name)):
            shown = await images.request("GET", f"{LIST}/{quote(reference, safe='')}")
            assert shown.json["id"] == name
    assert (await images.call("GET", "images/a%20file")).json["image"]["id"] == "a file"
    for reference in ("none%00", "none%ff", "none%2520"):
        assert (await images.call("GET", f"images/{quote(reference)}")).status == 404


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"1", "a file", "100% ä?&#", "empty"}),
        ("?name=in:empty,a%20file", {"empty", "a file"}),
        ("?name=debian", set()),
        ("?disk_format=qcow2", {"1"}),
        ("?status=active&visibility=public&container_format=bare&name=empty", {"empty"}),
        ("?visibility=private", set()),
        ("?visibility=all&name=empty", {"empty"}),
        ("?os_hidden=False&name=empty", {"empty"}),
        ("?os_hidden=true", set()),
        ("?protected=False&name=empty", {"empty"}),
        ("?size_min=1000&size_max=2000", {"a file", "100% ä?&#"}),
        ("?min_disk=2", {"1"}),
        ("?owner=me", set()),
        ("?owner=None", set()),
        ("?tag=x", set()),
        ("?hw_disk_bus=virtio", set()),
        ("?limit=0", set()),
    ],
)
@ensureDeferred
async def test_filters(images: Running, query: str, found: set[str]) -> None:
    assert set(await ids(images, query)) == found


@ensureDeferred
async def test_order(images: Running) -> None:
    by_size = ["empty", "a file", "100% ä?&#", "1"]
    for query in ("?sort=size:asc", "?sort_key=size&sort_dir=asc", "?sort=status,size:asc"):
        assert await ids(images, query) == by_size
    assert await ids(images, "?sort=size") == by_size[::-1]
    assert (await ids(images, "?sort=disk_format:desc"))[0] == "1"
    assert (await ids(images, "?sort=disk_format:asc"))[-1] == "1"


@ensureDeferred
async def test_pages(images: Running) -> None:
    path = f"{LIST}?sort=size:asc&limit=3&visibility=public"
    first = (await images.request("GET", path)).json
    assert [each["id"] for each in first["images"]] == ["empty", "a file", "100% ä?&#"]
    last = (await images.request("GET", f"/image{first['next']}")).json
    assert [each["id"] for each in last["images"]] == ["1"]
    assert "next" not in last
    assert last["first"] == first["first"]
    listed = (await images.call("GET", "images")).json["images"]
    page = await images.call("GET", f"images?limit=2&marker={quote(listed[0]['id'])}")
    assert page.json["images"] == listed[1:3]
    assert (await images.call("GET", f"images?limit={'9' * 5000}")).json["images"] == listed


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", f"{LIST}/nothing", 404, "Image nothing could not be found."),
        ("GET", f"{LIST}/..%2Ftwistd.conf", 404, "Image ../twistd.conf could not be found."),
        ("GET", f"{LIST}/%00", 404, "Image \\x00 could not be found."),
        ("GET", f"{LIST}/none/file", 404, "Image none could not be found."),
        ("GET", f"{LIST}/http:%2F%2Fh%2Fx/file", 404, "Image http://h/x could not be found."),
        ("GET", f"{LIST}?marker=nothing", 400, "marker [nothing] not found"),
        ("GET", f"{LIST}?limit=-1", 400, "limit param must be an integer, and positive"),
        ("GET", f"{LIST}?sort=colour", 400, None),
        ("GET", f"{LIST}?sort=name:up", 400, "Invalid sort direction: up"),
        ("GET", f"{LIST}?sort_key=name&sort_dir=asc&sort_dir=desc", 400, None),
        ("GET", f"{LIST}?size_min=x", 400, "size_min must be a number of bytes"),
        ("GET", "/image/v2/schemas/metadefs", 404, "The resource could not be found."),
        ("GET", "/image/v1/images", 404, "The resource could not be found."),
        ("POST", f"{LIST}/1", 405, None),
        ("PUT", f"{LIST}/1", 405, None),
        ("DELETE", f"{LIST}/1", 404, "Image 1 could not be found."),
    ],
)
@ensureDeferred
async def test_refusals(
    images: Running, method: str, path: str, status: int, message: str | None
) -> None:
    answer = await images.request(method, path)
    error: Any = answer.json["error"]
    assert (answer.status, error["code"]) == (status, status)
    assert message in (None, error["message"])


@ensureDeferred
async def test_a_source_that_does_not_answer(images: Running) -> None:
    (images.images / "index.toml").write_text("nonsense")
    for path in (LIST, f"{LIST}/1"):
        answer = await images.request("GET", path)
        assert answer.status == 503
        assert answer.json["error"]["title"] == "Service Unavailable"
    assert (await images.call("GET", "images/1")).status == 503


@ensureDeferred
async def test_calls_are_counted(tmp_path: Path) -> None:
    limit = (
        '[[rate_limits]]\nverb = "GET"\nuri = "*"\nregex = "^/images"\nvalue = 1\nunit = "DAY"\n'
    )
    daemon = Running(tmp_path, limit)
    try:
        assert (await daemon.request("GET", LIST)).status == 200
        refused = await daemon.request("GET", LIST)
        assert (refused.status, refused.json["error"]["code"]) == (413, 413)
        assert int(refused.headers["retry-after"]) > 0
        assert (await daemon.request("GET", LIST, token="bob")).status == 200
    finally:
        await daemon.stop()


def test_md5_is_the_checksum() -> None:
    value = md5(b"").hexdigest()
    shown = image(of_image(Image("i", "s", "n", digest=Digest("md5", value))))
    assert (shown["checksum"], shown["os_hash_algo"]) == (value, "md5")
    assert shown["updated_at"] is None
