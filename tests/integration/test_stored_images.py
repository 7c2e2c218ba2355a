"""Images that callers bring, over a real socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from hashlib import md5, sha512
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bootvol.testing.backends import noise
from bootvol_plugins.directory_records import FOLDER
from tests.daemons import Running
from tests.stored_images import (
    BYTES,
    CONTENT,
    EARLIER_PATCH,
    LIST,
    MIB,
    PATCH,
    create,
    leftovers,
    patch,
    shown,
    step,
    upload,
)
from tests.waiting import until

V3 = "/volume/v3/11692683195772/volumes/detail"


@pytest_twisted.async_yield_fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Running]:
    """A daemon that takes images, 32 MiB of each project."""
    daemon = Running(tmp_path, "writable = true\nquota_gib = 0.03125")
    yield daemon
    await daemon.stop()


@ensureDeferred
async def test_the_life_of_an_image(daemon: Running) -> None:
    made = await daemon.request(
        "POST", LIST, {"name": "disk", "os_distro": "debian", "tags": ["b", "a", "b"]}
    )
    assert made.status == 201
    image = made.json["id"]
    assert made.headers["location"] == f"http://127.0.0.1:{daemon.port}{LIST}/{image}"
    assert made.json == await shown(daemon, image)
    assert {name: made.json[name] for name in ("status", "visibility", "owner", "size")} == {
        "status": "queued",
        "visibility": "shared",
        "owner": "11692683195772",
        "size": None,
    }
    assert (made.json["os_distro"], made.json["tags"]) == ("debian", ["b", "a"])
    refused = await upload(daemon, image)
    assert (refused.status, refused.json["error"]["message"]) == (
        400,
        "Properties disk_format, container_format must be set prior to saving data.",
    )
    assert (await daemon.request("GET", f"{LIST}/{image}/file")).status == 204
    formats = (step("add", "/disk_format", "raw"), step("add", "/container_format", "bare"))
    assert (await patch(daemon, image, *formats)).status == 200
    answer = await upload(daemon, image)
    assert (answer.status, answer.body) == (204, b"")
    active = await shown(daemon, image)
    assert (active["status"], active["size"]) == ("active", len(CONTENT))
    assert active["virtual_size"] == len(CONTENT)
    assert active["checksum"] == md5(CONTENT).hexdigest()
    assert (active["os_hash_algo"], active["os_hash_value"]) == (
        "sha512",
        sha512(CONTENT).hexdigest(),
    )
    data = await daemon.request("GET", f"/image{active['file']}")
    assert (data.status, data.body) == (200, CONTENT)
    assert data.headers["content-type"] == "application/octet-stream"
    assert data.headers["content-md5"] == active["checksum"]
    listed = (await daemon.request("GET", f"{LIST}?name=disk&os_distro=debian&tag=a")).json
    assert listed["images"] == [active]
    assert (await daemon.request("DELETE", f"{LIST}/{image}")).status == 204
    assert (await daemon.request("GET", f"{LIST}/{image}")).status == 404
    assert (await daemon.request("DELETE", f"{LIST}/{image}")).status == 404
    assert leftovers(daemon) == []


@ensureDeferred
async def test_a_volume_of_an_uploaded_image(daemon: Running, tmp_path: Path) -> None:
    raw, qcow2 = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(CONTENT)
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2], check=True, timeout=60
    )
    for path, virtual in ((raw, len(CONTENT)), (qcow2, -(-len(CONTENT) // 512) * 512)):
        image = await create(daemon, disk_format=path.suffix[1:], min_disk=1, os_distro="debian")
        assert (await upload(daemon, image, path.read_bytes())).status == 204
        assert (await shown(daemon, image))["virtual_size"] == virtual
        nova = (await daemon.call("GET", f"images/{image}")).json["image"]
        assert (nova["status"], nova["minDisk"]) == ("ACTIVE", 1)
        volume = await daemon.create(image)
        assert await daemon.until(volume, "available", "error") == "available"
        (file,) = daemon.files()
        with file.open("rb") as opened:
            assert opened.read(len(CONTENT)) == CONTENT
        (shown_in_v3,) = (await daemon.request("GET", V3)).json["volumes"]
        facts = shown_in_v3["volume_image_metadata"]
        assert facts == {
            "image_id": image,
            "image_name": "disk",
            "disk_format": path.suffix[1:],
            "container_format": "bare",
            "checksum": md5(path.read_bytes()).hexdigest(),
            "size": str(path.stat().st_size),
            "min_disk": "1",
            "min_ram": "0",
            "os_distro": "debian",
        }
        assert (await daemon.call("DELETE", f"os-volumes/{volume}")).status == 202
        assert await daemon.until(volume, "gone") == "gone"


@ensureDeferred
async def test_an_image_without_data_makes_no_volume(daemon: Running) -> None:
    image = await create(daemon)
    answer = await daemon.call("POST", "os-volumes", {"volume": {"size": 1, "imageRef": image}})
    assert answer.status == 400
    assert "not active yet; it is queued" in answer.body.decode()
    assert (await daemon.request("GET", LIST)).json["images"][0]["status"] == "queued"
    assert (await daemon.call("GET", "images")).json["images"] == []


@ensureDeferred
async def test_another_project_knows_nothing_of_a_private_image(daemon: Running) -> None:
    """A private image of another project does not exist: for no call of the API.

    Break: `src/bootvol/service/stored_images.py`:
    `if rights.all_tenants or found.is_usable_by(caller.tenant):` -> `if found:`.
    Break: `plugins/bootvol_plugins/directory_store.py`:
    `if not record.is_usable_by(caller.tenant):` -> `if not record:`.
    """
    image, queued = await create(daemon), await create(daemon)
    assert (await upload(daemon, image)).status == 204
    for each in (image, queued):
        for method, path, body, headers in (
            ("GET", "", None, None),
            ("GET", "/file", None, None),
            ("PUT", "/file", b"x", BYTES),
            ("PATCH", "", [step("add", "/name", "x")], {"Content-Type": PATCH}),
            ("PUT", "/tags/x", None, None),
            ("DELETE", "/tags/x", None, None),
            ("DELETE", "", None, None),
        ):
            answer = await daemon.request(method, f"{LIST}/{each}{path}", body, "bob", headers)
            assert answer.status == 404, (method, path)
            assert answer.json["error"]["message"] == f"Image {each} could not be found."
    for query in ("", "?visibility=private", "?visibility=all", f"?id={image}", "?owner=x"):
        assert (await daemon.request("GET", LIST + query, token="bob")).json["images"] == []
    wanted = {"volume": {"size": 1, "imageRef": image}}
    made = await daemon.request("POST", "/v1.1/22222222222222/os-volumes", wanted, "bob")
    assert made.status in {400, 404}
    assert (await shown(daemon, image))["status"] == "active"


@ensureDeferred
async def test_visibility(daemon: Running) -> None:
    """Only admins make an image public; only the owner's project changes an image.

    Break: `src/bootvol/service/stored_images.py`: `and not rights.publishes` -> `and False`.
    Break: `src/bootvol/service/stored_images.py`:
    `if record.owner != caller.tenant and not rights.all_tenants:` -> `if False:`.
    """
    image = await create(daemon)
    assert (await upload(daemon, image)).status == 204

    async def of_bob(query: str = "") -> list[str]:
        found = (await daemon.request("GET", LIST + query, token="bob")).json["images"]
        return [each["id"] for each in found]

    for visibility, usable, listed in (
        ("shared", False, False),
        ("community", True, False),
        ("private", False, False),
    ):
        answer = await patch(daemon, image, step("replace", "/visibility", visibility))
        assert (answer.status, answer.json["visibility"]) == (200, visibility)
        status = (await daemon.request("GET", f"{LIST}/{image}", token="bob")).status
        assert (status == 200) is usable
        assert (await of_bob() == [image]) is listed
        assert (await of_bob("?visibility=community") == [image]) is usable
    public = step("replace", "/visibility", "public")
    refused = await patch(daemon, image, public)
    assert refused.status == 403
    assert "publicize_image" in refused.json["error"]["message"]
    body = {"visibility": "public"}
    assert (await daemon.request("POST", LIST, body)).status == 403
    assert (await patch(daemon, image, public, token="root")).status == 200
    assert await of_bob() == [image]
    # The owner goes on to change the image.
    assert (await patch(daemon, image, step("add", "/name", "new"))).status == 200
    for method, path, sent, headers in (
        ("PATCH", "", [step("add", "/name", "x")], {"Content-Type": PATCH}),
        ("DELETE", "", None, None),
        ("PUT", "/file", b"x", BYTES),
        ("PUT", "/tags/x", None, None),
    ):
        answer = await daemon.request(method, f"{LIST}/{image}{path}", sent, "bob", headers)
        assert answer.status == 403, method
    data = await daemon.request("GET", f"{LIST}/{image}/file", token="bob")
    assert data.body == CONTENT


@pytest.mark.parametrize(
    ("steps", "status", "told"),
    [
        ([step("add", "/x", "1"), step("replace", "/x", "2")], 200, ""),
        ([step("add", "/a~1b~0c", "1"), step("remove", "/a~1b~0c")], 200, ""),
        ([step("replace", "/name", None)], 200, ""),
        ([step("replace", "/min_ram", 64)], 200, ""),
        ([step("replace", "/missing", "1")], 409, "Property missing does not exist."),
        ([step("remove", "/missing")], 409, "Property missing does not exist."),
        ([step("remove", "/name")], 403, "Property 'name' may not be removed."),
        ([step("replace", "/size", 1)], 403, "Attribute 'size' is read-only."),
        (
            [step("add", "/owner", "x")],
            403,
            "not permitted to give images to the owner 'x'.",
        ),
        ([step("remove", "/owner")], 403, "Property 'owner' may not be removed."),
        ([step("add", "/os_glance_x", "1")], 403, "Attribute 'os_glance_x' is reserved."),
        ([step("add", "/stores", "x")], 403, "Attribute 'stores' is read-only."),
        ([step("add", "/status", "active")], 403, "Attribute 'status' is read-only."),
        ([step("add", "/a/b", "1")], 400, "Invalid JSON pointer"),
        ([step("add", "/a~2", "1")], 400, "Invalid JSON pointer"),
        ([step("add", "name", "1")], 400, "Invalid input received"),
        ([step("move", "/name", "1")], 400, "Invalid input received"),
        ([step("add", "/x", 5)], 400, "Invalid input received"),
        ([step("add", "/x", "y" * 8193)], 400, "Invalid input received"),
        ([step("add", f"/{n}", "y" * 2048) for n in range(4)], 400, "at most 8192 characters"),
        ([step("add", f"/{'x' * 256}", "1")], 400, "Invalid name of a property"),
        ([step("add", "/disk_format", "ami")], 400, "Invalid input received"),
        ([step("add", "/visibility", "everybody")], 400, "Invalid input received"),
        ([step("add", "/tags", ["x" * 256])], 400, "Invalid input received"),
        ([step("add", "/min_disk", -1)], 400, "Invalid input received"),
        ([step("add", f"/p{n}", "1") for n in range(129)], 400, "at most 128 properties"),
        (["x"], 400, "Invalid input received"),
    ],
)
@ensureDeferred
async def test_changes(daemon: Running, steps: list[object], status: int, told: str) -> None:
    image = await create(daemon)
    before = await shown(daemon, image)
    answer = await patch(daemon, image, *steps)
    assert answer.status == status, answer
    if status == 200:
        assert answer.json == await shown(daemon, image)
    else:
        assert told in answer.json["error"]["message"]
        assert await shown(daemon, image) == before


@pytest.mark.parametrize(
    ("steps", "status", "told"),
    [
        ([{"add": "/x", "value": "1"}, {"replace": "/x", "value": "2"}], 200, ""),
        ([{"replace": "/name", "value": "new"}, {"add": "/a~1b~0c", "value": "1"}], 200, ""),
        ([{"add": "/x", "value": "1"}, {"remove": "/x"}], 200, ""),
        ([{"add": "/name", "value": "new"}], 409, "Property name already present."),
        ([{"replace": "/missing", "value": "1"}], 409, "Property missing does not exist."),
        ([{"remove": "/name"}], 403, "Property 'name' may not be removed."),
        ([{"replace": "/size", "value": 1}], 403, "Attribute 'size' is read-only."),
        ([{"add": "/a/b", "value": "1"}], 400, "Invalid JSON pointer"),
        ([{"add": "/x", "replace": "/x", "value": "1"}], 400, "exactly one of"),
        ([{"value": "1"}], 400, "exactly one of"),
        ([{"add": "x", "value": "1"}], 400, "Invalid input received"),
        ([step("add", "/x", "1")], 400, "exactly one of"),
    ],
)
@ensureDeferred
async def test_changes_in_the_earlier_form(
    daemon: Running, steps: list[object], status: int, told: str
) -> None:
    image = await create(daemon)
    before = await shown(daemon, image)
    headers = {"Content-Type": EARLIER_PATCH}
    answer = await daemon.request("PATCH", f"{LIST}/{image}", steps, headers=headers)
    assert answer.status == status, answer
    if status == 200:
        assert answer.json == await shown(daemon, image)
    else:
        assert told in answer.json["error"]["message"]
        assert await shown(daemon, image) == before


@ensureDeferred
async def test_an_active_image_keeps_its_format(daemon: Running) -> None:
    image = await create(daemon)
    assert (await upload(daemon, image)).status == 204
    refused = await patch(daemon, image, step("replace", "/disk_format", "qcow2"))
    assert refused.status == 403
    assert "only of a queued image" in refused.json["error"]["message"]
    assert (await patch(daemon, image, step("replace", "/disk_format", "raw"))).status == 200


@ensureDeferred
async def test_tags_and_protection(daemon: Running) -> None:
    image = await create(daemon, protected=True)
    for method, status, tags in (
        ("PUT", 204, ["t"]),
        ("PUT", 204, ["t"]),
        ("DELETE", 204, []),
        ("DELETE", 404, []),
    ):
        answer = await daemon.request(method, f"{LIST}/{image}/tags/t")
        assert answer.status == status
        assert (await shown(daemon, image))["tags"] == tags
    refused = await daemon.request("DELETE", f"{LIST}/{image}")
    assert refused.status == 403
    assert "is protected and cannot be deleted" in refused.json["error"]["message"]
    assert (await patch(daemon, image, step("replace", "/protected", False))).status == 200
    assert (await daemon.request("DELETE", f"{LIST}/{image}")).status == 204


@ensureDeferred
async def test_too_long_tags(daemon: Running) -> None:
    """Calls in a row are bounded as one call is: all records stay in memory.

    Break: `src/bootvol/api/glance/bodies.py`: `> _LONGEST:` -> `< 0:`.
    """
    image = await create(daemon)
    for number in range(33):
        tag = f"{number:02}{'x' * 253}"
        answer = await daemon.request("PUT", f"{LIST}/{image}/tags/{tag}")
        assert answer.status == (204 if number < 32 else 400), number
    answer = await daemon.request("PUT", f"{LIST}/{image}/tags/{'x' * 256}")
    assert answer.status == 400
    assert len((await shown(daemon, image))["tags"]) == 32


@ensureDeferred
async def test_hidden_images_are_listed_on_demand(daemon: Running) -> None:
    image = await create(daemon, os_hidden=True)
    assert (await daemon.request("GET", LIST)).json["images"] == []
    listed = (await daemon.request("GET", f"{LIST}?os_hidden=true")).json["images"]
    assert [each["id"] for each in listed] == [image]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"id": "0" * 32}, 403, "Attribute 'id' is read-only."),
        ({"owner": "22222222222222"}, 403, "not permitted to give images to the owner"),
        ({"owner": ""}, 400, "Invalid input received"),
        ({"os_glance_x": "1"}, 403, "Attribute 'os_glance_x' is reserved."),
        ({"owner": "11692683195772"}, 201, ""),
        ({"disk_format": "ploop"}, 400, "Invalid input received"),
        ({"container_format": "ovf"}, 400, "Invalid input received"),
        ({"name": "x" * 256}, 400, "Invalid input received"),
        ({"x": None}, 400, "Invalid input received"),
        ([], 400, "Invalid input received"),
    ],
)
@ensureDeferred
async def test_new_images(daemon: Running, body: object, status: int, told: str) -> None:
    answer = await daemon.request("POST", LIST, body)
    assert answer.status == status
    assert told in answer.body.decode()


@pytest.mark.parametrize(
    ("stated", "content", "told"),
    [
        ("raw", b"", "The image is empty."),
        ("qcow2", CONTENT, "The image was stated to be qcow2, but is a raw disk."),
        ("raw", b"QFI\xfb" + bytes(70000), "The image was stated to be raw, but is qcow2."),
        ("raw", b"<!DOCTYPE html><html><body>" + b"x" * 9000, "not a disk."),
        ("raw", b"\x89PNG\r\n\x1a\n" + noise(9000), "PNG"),
        ("qcow2", b"QFI\xfb\0\0\0\3" + bytes(20), "qcow2"),
    ],
)
@ensureDeferred
async def test_no_data_but_an_image(
    daemon: Running, stated: str, content: bytes, told: str
) -> None:
    image = await create(daemon, disk_format=stated)
    answer = await upload(daemon, image, content)
    assert answer.status == 400
    assert told in answer.json["error"]["message"]
    assert (await shown(daemon, image))["status"] == "queued"
    assert leftovers(daemon) == [".json"]


@ensureDeferred
async def test_a_hostile_image_is_refused(daemon: Running, tmp_path: Path) -> None:
    """An upload that refers to files of the daemon's machine is refused by name.

    Break: `src/bootvol/imaging/uploads.py`: `self._inspection.begin(data)` -> `pass`.
    """
    path = tmp_path / "hostile.qcow2"
    backing = ["-b", "/etc/passwd", "-F", "raw"]
    command = ["qemu-img", "create", "-u", "-f", "qcow2", *backing, str(path), "1G"]
    subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
    image = await create(daemon, disk_format="qcow2")
    answer = await upload(daemon, image, path.read_bytes())
    assert answer.status == 400
    assert "Image has a backing file" in answer.json["error"]["message"]
    assert (await shown(daemon, image))["status"] == "queued"


@ensureDeferred
async def test_uploads_that_are_refused(daemon: Running) -> None:
    image = await create(daemon)
    path = f"{LIST}/{image}/file"
    wrong = await daemon.request("PUT", path, CONTENT, headers={"Content-Type": "text/plain"})
    assert wrong.status == 415
    assert "application/octet-stream" in wrong.json["error"]["message"]
    assert (await upload(daemon, image, token=None)).status == 401
    assert (await upload(daemon, "0" * 32)).status == 404
    assert (await upload(daemon, image)).status == 204
    assert (await upload(daemon, image)).status == 409
    large = await daemon.request("PUT", f"{LIST}/{image}/other", CONTENT, headers=BYTES)
    assert large.status == 400
    assert "too large" in large.json["error"]["message"]


@pytest.mark.parametrize("stated", [True, False])
@ensureDeferred
async def test_the_quota_within_an_upload(daemon: Running, stated: bool) -> None:
    """The answer arrives though the client has more to send."""
    first, image = await create(daemon), await create(daemon)
    assert (await upload(daemon, first, noise(20 * MIB))).status == 204
    status, message = await Raw(daemon, image).send(noise(20 * MIB), stated=stated)
    assert status == 413
    assert message == "The project's images may have 0.03125 GiB together."
    assert leftovers(daemon) == [".disk", ".json", ".json"]
    assert (await upload(daemon, image)).status == 204


class Raw:
    """A client that sends by hand.

    :param image: the image to upload.
    """

    def __init__(self, daemon: Running, image: str, token: str = "ann", more: str = "") -> None:
        self._port = daemon.port
        self._head = (
            f"PUT {LIST}/{image}/file HTTP/1.1\r\nHost: h\r\nX-Auth-Token: {token}\r\n"
            f"Content-Type: application/octet-stream\r\n{more}"
        )

    async def send(self, content: bytes, *, stated: bool) -> tuple[int, str]:
        """Send a whole upload, with its length or in chunks; return the status and message."""
        status, message = await in_thread(self._send, content, stated)
        return status, message

    def opened(self, head: str) -> socket.socket:
        """Return a connection, after sending the head."""
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        connection.sendall((self._head + head).encode())
        return connection

    def _send(self, content: bytes, stated: bool) -> tuple[int, str]:
        head = f"Content-Length: {len(content)}" if stated else "Transfer-Encoding: chunked"
        with self.opened(f"{head}\r\n\r\n") as connection:
            try:
                for start in range(0, len(content), 65536):
                    piece = content[start : start + 65536]
                    if not stated:
                        piece = b"%x\r\n%b\r\n" % (len(piece), piece)
                    connection.sendall(piece)
                if not stated:
                    connection.sendall(b"0\r\n\r\n")
            except ConnectionError:
                pass
            return received(connection)


def received(connection: socket.socket) -> tuple[int, str]:
    """Return the status and the message of the answer to a connection."""
    answer = HTTPResponse(connection)
    answer.begin()
    assert answer.headers["Connection"] == "close"
    body = answer.read()
    return answer.status, json.loads(body)["error"]["message"] if body else ""


@pytest.mark.parametrize("stated", [True, False])
@ensureDeferred
async def test_a_client_that_leaves(daemon: Running, stated: bool) -> None:
    """The image is queued again, and its space is free.

    Break: `src/bootvol/service/stored_images.py`: `await upload.abort()` -> `pass`.
    """
    image = await create(daemon)
    head = f"Content-Length: {len(CONTENT)}" if stated else "Transfer-Encoding: chunked"
    part = CONTENT[:-5] if stated else b"%x\r\n%b" % (len(CONTENT), CONTENT[:-5])
    connection = Raw(daemon, image).opened(f"{head}\r\n\r\n")
    await in_thread(connection.sendall, part)
    assert await status_of(daemon, image, "saving") == "saving"
    assert (await upload(daemon, image)).status == 409
    connection.close()
    assert await status_of(daemon, image, "queued") == "queued"
    assert leftovers(daemon) == [".json"]
    assert (await upload(daemon, image)).status == 204


@ensureDeferred
async def test_a_client_that_sends_no_more_within_the_body(daemon: Running) -> None:
    image = await create(daemon)
    connection = Raw(daemon, image).opened("Content-Length: 9999999\r\n\r\n")
    await in_thread(connection.sendall, CONTENT)
    connection.shutdown(socket.SHUT_WR)
    answer = await in_thread(received, connection)
    assert answer == (400, "The body of the request is incomplete.")
    connection.close()
    assert (await shown(daemon, image))["status"] == "queued"


@ensureDeferred
async def test_a_client_that_waits_to_be_told_to_continue(daemon: Running) -> None:
    """Only an admitted caller is told to send the body."""
    image = await create(daemon)
    more = f"Expect: 100-continue\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
    for token, expected in (("nobody", 401), ("bob", 404)):
        connection = Raw(daemon, image, token).opened(more)
        assert (await in_thread(received, connection))[0] == expected
        connection.close()
    connection = Raw(daemon, image).opened(more)
    told = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert await in_thread(connection.recv, len(told)) == told
    await in_thread(connection.sendall, CONTENT)
    assert await in_thread(received, connection) == (204, "")
    connection.close()


@ensureDeferred
async def test_an_upload_is_the_last_request_of_its_connection(daemon: Running) -> None:
    """Bytes behind the body are no request: the connection ends after the answer."""
    image, other = await create(daemon), await create(daemon)
    connection = Raw(daemon, image).opened(f"Content-Length: {len(CONTENT)}\r\n\r\n")
    behind = f"DELETE {LIST}/{other} HTTP/1.1\r\nHost: h\r\nX-Auth-Token: ann\r\n\r\n"
    await in_thread(connection.sendall, CONTENT + behind.encode())
    assert await in_thread(received, connection) == (204, "")
    connection.close()
    assert (await shown(daemon, other))["status"] == "queued"


@ensureDeferred
async def test_malformed_chunks(daemon: Running) -> None:
    image = await create(daemon)
    connection = Raw(daemon, image).opened("Transfer-Encoding: chunked\r\n\r\n")
    await in_thread(connection.sendall, b"5\r\nabcdeX\r\n")
    assert await in_thread(received, connection) == (400, "Malformed request")
    connection.close()
    assert (await shown(daemon, image))["status"] == "queued"


@ensureDeferred
async def test_an_image_deleted_during_its_upload(daemon: Running) -> None:
    image = await create(daemon)
    connection = Raw(daemon, image).opened(f"Content-Length: {len(CONTENT)}\r\n\r\n")
    await in_thread(connection.sendall, CONTENT[:-5])
    assert await status_of(daemon, image, "saving") == "saving"
    assert (await daemon.request("DELETE", f"{LIST}/{image}")).status == 204
    await in_thread(connection.sendall, CONTENT[-5:])
    assert (await in_thread(received, connection))[0] == 404
    connection.close()
    assert leftovers(daemon) == []


@ensureDeferred
async def test_a_download_that_nobody_reads_to_its_end(daemon: Running) -> None:
    """The daemon stops reading the image, and lets go of the file, when the client leaves."""
    image = await create(daemon)
    assert (await upload(daemon, image, noise(20 * MIB))).status == 204
    path = str(daemon.images / FOLDER / f"{image}.disk")

    def is_open() -> bool:
        links = Path("/proc/self/fd").iterdir()
        return path in [os.path.realpath(each) for each in links]

    connection = socket.create_connection(("127.0.0.1", daemon.port), timeout=30)
    head = f"GET {LIST}/{image}/file HTTP/1.1\r\nHost: h\r\nX-Auth-Token: ann\r\n\r\n"
    connection.sendall(head.encode())
    answer = HTTPResponse(connection)
    await in_thread(answer.begin)
    assert answer.headers["Content-Length"] == str(20 * MIB)
    assert await in_thread(answer.read, 1000) == noise(20 * MIB)[:1000]
    assert is_open()
    connection.close()
    answer.close()

    assert await until(lambda: not is_open())


async def status_of(daemon: Running, image: str, wanted: str) -> str:
    """Wait until an image has a status; return the status."""

    async def found() -> str:
        return str((await shown(daemon, image))["status"])

    return await until(found, lambda status: status == wanted)


@ensureDeferred
async def test_a_service_that_takes_no_images(tmp_path: Path) -> None:
    daemon = Running(tmp_path)
    try:
        answer = await daemon.request("POST", LIST, {})
        assert answer.status == 501
        assert answer.json["error"]["message"] == "This service takes no images."
    finally:
        await daemon.stop()


async def in_thread(call: Any, *args: object) -> Any:
    """Run a blocking call while the daemon in this process serves."""
    return await deferToThread(call, *args)


@ensureDeferred
async def test_a_volume_of_an_image_by_name(daemon: Running) -> None:
    """As in Cinder, ``imageRef`` is an id, or else the name of one image."""
    path = "/volume/v3/11692683195772/volumes"

    async def volume(reference: str, token: str = "ann") -> Any:
        wanted = {"volume": {"size": 1, "imageRef": reference}}
        return await daemon.request("POST", path, wanted, token)

    image = await create(daemon, name="laptop disk")
    assert (await upload(daemon, image, noise(1000))).status == 204
    made = (await volume("laptop disk")).json["volume"]["id"]
    shown = (await daemon.request("GET", f"{path}/{made}")).json["volume"]
    assert shown["volume_image_metadata"]["image_id"] == image
    for unknown in ("laptop", "", f"http://x/{image}x"):
        assert (await volume(unknown)).status == 400
    second = await create(daemon, name="laptop disk")
    assert (await upload(daemon, second, noise(2000))).status == 204
    answer = await volume("laptop disk")
    words = "Multiple matches found for 'laptop disk', use an ID to be more specific."
    assert (answer.status, answer.json["conflictingRequest"]["message"]) == (409, words)
    assert (await volume(image)).status == 202
