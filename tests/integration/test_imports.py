"""Imports: good and bad images, cancelled, stopped and resumed."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from bootvol.model import GIB
from bootvol.testing.backends import noise
from tests.daemons import Running, pause
from tests.servers import Server, only_looks, serve
from tests.waiting import until

CONTENT = noise(3 * 1024 * 1024 + 11)


BAD_IMAGES = [
    ("empty", b"", "not-a-disk"),
    ("page", b"\n <!DOCTYPE html><html>", "not-a-disk"),
    ("json", b'{"error": "no such image"}', "not-a-disk"),
    ("gzip", gzip.compress(CONTENT)[:-100], "image-corrupt"),
    ("twice", gzip.compress(gzip.compress(CONTENT)), "unsupported-format"),
]


@pytest.mark.parametrize(("name", "content", "code"), BAD_IMAGES)
@ensureDeferred
async def test_what_is_no_disk_is_refused(
    running: Running, name: str, content: bytes, code: str
) -> None:
    (running.images / name).write_bytes(content)
    number = await running.create(name)
    assert await running.until(number, "available", "error") == "error"
    progress = await running.progress(number)
    assert progress["phase"] == "failed"
    assert progress["error"]["code"] == code
    assert progress["error"]["retryable"] is False
    assert progress["error"]["message"]
    assert progress["error"]["remedy"]
    answer = await running.call("GET", f"os-volumes/{number}/error")
    assert answer.json == {"error": progress["error"]}
    assert running.files() == [], "its space is given back"
    await running.call("DELETE", f"os-volumes/{number}")
    await running.until(number, "gone")


@ensureDeferred
async def test_a_digest_that_does_not_match(running: Running) -> None:
    """An image with another digest than stated ends in error, without a volume.

    Break: `src/bootvol/imaging/pipeline.py`: `digest = self._scan.digester.verify()` ->
    `self._scan.digester.stated = None; digest = self._scan.digester.verify()`.
    """
    (running.images / "disk.raw").write_bytes(CONTENT)
    for stated, expected in (
        (hashlib.sha512(CONTENT).hexdigest(), "available"),
        ("0" * 128, "error"),
    ):
        (running.images / "index.toml").write_text(
            f'[[images]]\nid = "disk"\nfile = "disk.raw"\nsha512 = "{stated}"\n'
        )
        number = await running.create("disk")
        assert await running.until(number, "available", "error") == expected
    assert (await running.progress(number))["error"]["code"] == "digest-mismatch"
    assert len(running.files()) == 1


@ensureDeferred
async def test_zeros_take_no_space(running: Running) -> None:
    content = CONTENT + bytes(40 * 1024 * 1024) + CONTENT
    (running.images / "disk.raw").write_bytes(content)
    number = await running.create("disk.raw")
    await running.until(number, "available")
    (file,) = running.files()
    assert file.stat().st_blocks * 512 < 2 * len(CONTENT) + 3 * 65536
    with file.open("rb") as volume:
        assert volume.read(len(content)) == content


class Web(Resource):
    """A server controlled by a test.

    :ivar requests: waiting requests, answered by the test.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []

    def render_HEAD(self, request: Request) -> bytes:
        """State that the image exists, without its length."""
        return b""

    def render_GET(self, request: Request) -> bytes | int:
        """Answer by name."""
        if only_looks(request):
            return self.render_HEAD(request)
        name = request.path.rsplit(b"/")[-1]
        if name == b"slow":
            request.write(CONTENT)
            self.requests.append(request)
            return NOT_DONE_YET
        if name == b"endless":
            return self._endless(request)
        if name.startswith(b"to-"):
            request.setResponseCode(302)
            request.setHeader(b"location", b"/images/good" if name == b"to-good" else b"/secret")
            return b""
        if name == b"missing":
            request.setResponseCode(404)
            return b""
        return CONTENT

    def _endless(self, request: Request) -> int:
        class Producer:
            def resumeProducing(self) -> None:
                request.write(b"\1" * 4 * 1024 * 1024)

            def stopProducing(self) -> None:
                pass

        request.registerProducer(Producer(), False)
        return NOT_DONE_YET


@pytest.fixture
def web() -> Iterator[tuple[Server, Web]]:
    """A server on loopback."""
    root = Web()
    with serve(root) as server:
        yield server, root


@pytest.fixture
def over_http(tmp_path: Path, web: tuple[Server, Web]) -> str:
    """The configuration of a source for the server."""
    return (
        f'[[sources]]\nname = "web"\nplugin = "http"\nallow = ["{web[0].url}images/"]\n'
        'networks = ["127.0.0.0/8", "::1/128"]\nchecksums = "none"\n'
    )


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("good", "available", None),
        ("to-good", "available", None),
        ("to-secret", "error", "source-refused"),
        ("missing", "error", "image-not-found"),
        ("endless", "error", "image-too-large"),
    ],
)
@ensureDeferred
async def test_over_http(
    tmp_path: Path,
    web: tuple[Server, Web],
    over_http: str,
    name: str,
    status: str,
    code: str | None,
) -> None:
    running = Running(tmp_path, over_http)
    try:
        url = f"{web[0].url}images/{name}"
        number = await running.create(url)
        assert await running.until(number, "available", "error") == status
        progress = await running.progress(number)
        assert (progress["error"] or {}).get("code") == code
        shown = (await running.call("GET", f"hp-bootable-volumes/{number}")).json["volume"]
        assert shown["sourceImageRef"] == url
        assert len(running.files()) == (code is None)
        if code is None:
            with running.files()[0].open("rb") as volume:
                assert volume.read(len(CONTENT) + 1) == CONTENT + b"\0"
    finally:
        await running.stop()


async def _downloading(running: Running, web: tuple[Server, Web], requests: int) -> int:
    """Start an import that waits for the server half way; return the volume."""
    number = await running.create(f"{web[0].url}images/slow")
    await running.until(number, "downloading")
    while len(web[1].requests) < requests:
        await pause(0.02)
    return number


@ensureDeferred
async def test_progress_is_seen_while_it_downloads(
    tmp_path: Path, web: tuple[Server, Web], over_http: str
) -> None:
    running = Running(tmp_path, over_http + "[imports]\nbuffer_kib = 64\n")
    try:
        number = await _downloading(running, web, 1)
        progress = await until(
            lambda: running.progress(number),
            lambda found: found["bytesDone"] >= len(CONTENT) - 65536,
        )
        assert progress["phase"] == "downloading"
        assert len(CONTENT) - 65536 <= progress["bytesDone"] <= len(CONTENT)
        assert progress["bytesTotal"] is None
        assert progress["etaSeconds"] is None
        assert progress["attempt"] == 1
    finally:
        await running.stop()


@ensureDeferred
async def test_deleting_cancels_a_download(
    tmp_path: Path, web: tuple[Server, Web], over_http: str
) -> None:
    running = Running(tmp_path, over_http)
    try:
        number = await _downloading(running, web, 1)
        gone = web[1].requests[0].notifyFinish()
        assert (await running.call("DELETE", f"os-volumes/{number}")).status == 202
        await running.until(number, "gone")
        assert running.files() == []
        await gone.addErrback(lambda _failure: None)  # the socket was closed
    finally:
        await running.stop()


@ensureDeferred
async def test_an_import_goes_on_after_a_restart(
    tmp_path: Path, web: tuple[Server, Web], over_http: str
) -> None:
    first = Running(tmp_path, over_http)
    number = await _downloading(first, web, 1)
    await first.stop()
    second = Running(tmp_path, over_http)
    try:
        assert await second.status(number) == "downloading"
        while len(web[1].requests) < 2:
            await pause(0.02)
        web[1].requests[1].finish()
        assert await second.until(number, "available", "error") == "available"
        assert (await second.progress(number))["attempt"] == 2
        (file,) = second.files()
        assert file.stat().st_size == GIB
        with file.open("rb") as volume:
            assert volume.read(len(CONTENT) + 1) == CONTENT + b"\0"
    finally:
        await second.stop()


@ensureDeferred
async def test_imports_beyond_the_limit_wait_in_line(
    tmp_path: Path, web: tuple[Server, Web], over_http: str
) -> None:
    running = Running(tmp_path, over_http + "[imports]\nconcurrent = 1\n")
    try:
        first = await _downloading(running, web, 1)
        second = await running.create(f"{web[0].url}images/good")
        plain = await running.create()
        await running.until(plain, "available")
        assert (await running.progress(second))["phase"] == "queued"
        assert await running.status(second) == "creating"
        web[1].requests[0].finish()
        assert await running.until(first, "available", "error") == "available"
        assert await running.until(second, "available", "error") == "available"
    finally:
        await running.stop()


@ensureDeferred
async def test_deletion_is_refused_while_it_goes_on(running: Running) -> None:
    number = await running.create()
    await running.until(number, "available")
    assert (await running.call("DELETE", f"os-volumes/{number}")).status == 202
    again = await running.call("DELETE", f"os-volumes/{number}")
    assert again.status in {400, 404}
    await running.until(number, "gone")


@ensureDeferred
async def test_a_volume_that_cannot_be_made_now_says_why(running: Running) -> None:
    await running.until(await running.create(), "available")
    running.volumes.rename(running.folder / "elsewhere")
    running.volumes.write_text("a file is where the folder should be")
    number = await running.create()
    while (
        error := (await running.call("GET", f"os-volumes/{number}/error")).json["error"]
    ) is None:
        await pause(0.05)
    assert error["code"] == "wrong-store"
    assert error["message"] == "The directory of backend local is gone."
    assert await running.status(number) == "creating", "an operator can bring it back"
