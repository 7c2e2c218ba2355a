"""Habits of web servers: the http source fetches everything that curl fetches."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.utils import getProcessOutputAndValue

from bootvol.errors import ImageCorrupt, ImageTruncated, SourceFailed, SourceRefused
from bootvol.interfaces import IOpenEndedStream
from bootvol.model import Image
from bootvol.testing.answers import answer, right
from bootvol.testing.backends import noise
from bootvol.testing.habits import HABITS, Habits
from bootvol.testing.sources import CALLER, read_all
from bootvol.threads import Threads
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.source import HttpSource
from tests.daemons import Running, reactor

CONTENT: Final = noise(300_001)
#: Names of images other than ``disk.raw``.
NAMES: Final = {
    "names-its-gzip": "disk.raw.gz",
    "encodes-gz": "disk.raw.gz",
    "until-close-gz": "disk.raw.gz",
}
#: Additional arguments of curl: curl decodes only requested encodings.
CURL: Final = {"encodes": ["--compressed"], "encodes-zstd": ["--compressed"]}
#: Habits with parts that only the digest can prove to be of one image.
BY_DIGEST: Final = ("mirrors", "weak", "no-validator", "odd-etag")


@pytest.fixture
def habits() -> Habits:
    """The habits of the server."""
    return Habits(CONTENT)


@pytest.fixture
def root(habits: Habits) -> Iterator[str]:
    """The URL of the running server."""
    listening = reactor.listenTCP(0, habits, interface="127.0.0.1")
    yield f"http://127.0.0.1:{listening.getHost().port}/"
    pytest_twisted.blockon(listening.stopListening())


def source(root: str, threads: Threads, **more: Any) -> HttpSource:
    """Return a source that may reach the server."""
    options = HttpOptions(allow=[root], **{"checksums": "none", **more})
    return HttpSource("web", options, reactor, threads)


async def curl(url: str, *more: str) -> bytes:
    """Return the bytes fetched by curl."""
    options = ("--silent", "--show-error", "--fail", "--location", *more, url)
    out, complaint, status = await getProcessOutputAndValue("curl", options)
    assert status == 0, complaint
    return bytes(out)


async def fetched(web: HttpSource, url: str) -> tuple[Image, bytes]:
    """Return the bytes fetched by a source, and the image found before."""
    image = await web.find(CALLER, url)
    return image, await read_all(await web.open(image), 65536)


@pytest.mark.parametrize("habit", HABITS)
@ensureDeferred
async def test_what_curl_fetches(habit: str, root: str, threads: Threads) -> None:
    name = NAMES.get(habit, "disk.raw")
    url = f"{root}{habit}/{name}"
    image, content = await fetched(source(root, threads), url)
    assert image.name == name
    assert image.size_bytes in (None, len(content))
    by_curl = await curl(url, *CURL.get(habit, []))
    assert content == (gzip.decompress(by_curl) if habit == "encodes-gz" else by_curl)
    assert (gzip.decompress(content) if name.endswith(".gz") else content) == CONTENT


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("a b.img", "/right/a%20b.img"),
        ("\u00e9/e\u0301.img", "/right/%C3%A9/e%CC%81.img"),
        ("%7e%c3%bc/100%.img?x=a/b:c+d&&e==", "/right/%7e%c3%bc/100%.img?x=a/b:c+d&&e=="),
        ("../right//./a%2Fb.img#part", "/right//a%2Fb.img"),
        ("?file=disk.img", "/right/?file=disk.img"),
    ],
)
@ensureDeferred
async def test_what_is_sent_of_a_url(
    written: str, sent: str, habits: Habits, root: str, threads: Threads
) -> None:
    image, content = await fetched(source(root, threads), f"{root.upper()}right/{written}")
    assert content == CONTENT
    assert image.name
    assert {each.path for each in habits.asked} == {sent}


@ensureDeferred
async def test_a_list_that_breaks_off(habits: Habits, root: str, threads: Threads) -> None:
    habits.broken_lists = True
    image = await source(root, threads, checksums="auto").find(CALLER, f"{root}right/disk.raw")
    assert image.digest is None
    with pytest.raises(SourceFailed, match="The list beside the image broke off"):
        await source(root, threads, checksums="SUMS").find(CALLER, f"{root}right/disk.raw")


@pytest.mark.parametrize("habit", ["until-close", "until-close-1.0", "chunked", "until-close-gz"])
@ensureDeferred
async def test_whether_the_end_is_known(habit: str, root: str, threads: Threads) -> None:
    web = source(root, threads)
    stream = await web.open(await web.find(CALLER, f"{root}{habit}/disk.raw"))
    assert IOpenEndedStream(stream).proven
    await read_all(stream, 65536)
    assert IOpenEndedStream(stream).proven is (habit == "chunked")


@pytest.mark.parametrize(
    "habit",
    [
        *BY_DIGEST,
        "right",
        "range-ignored",
        "range-star",
        "range-200",
        "range-early",
        "range-multipart",
        "range-unless-if",
        "range-400",
        "range-closes",
        "encodes",
        "until-close",
        "chunked",
        "redirect-302",
    ],
)
@pytest.mark.parametrize("offset", [1, 5000, len(CONTENT) - 1, len(CONTENT)])
@ensureDeferred
async def test_going_on(
    habit: str, offset: int, habits: Habits, root: str, threads: Threads
) -> None:
    """With a stated digest, an import resumes, also if the server sends everything again."""
    habits.lists = True
    web = source(root, threads, checksums="SHA256SUMS")
    image = await web.find(CALLER, f"{root}{habit}/disk.raw")
    assert image.digest is not None
    assert image.digest.value == hashlib.sha256(CONTENT).hexdigest()
    first = await web.open(image)
    await first.close()
    if habit == "encodes":
        # Nobody knows the offsets of parts in the encoded bytes.
        assert first.validator is None
        return
    assert first.validator == image.validator
    stream = await web.open(image, offset, first.validator)
    assert stream.offset == offset
    assert stream.size in (None, len(CONTENT))
    assert await read_all(stream, 4096) == CONTENT[stream.offset :]


@pytest.mark.parametrize(
    ("habit", "goes_on"),
    [
        ("right", True),
        ("range-early", True),
        ("range-star", True),
        ("range-unless-if", True),
        ("range-ignored", True),
        ("range-closes", True),
        ("range-416", True),
        ("mirrors", False),
        ("weak", False),
    ],
)
@ensureDeferred
async def test_going_on_without_a_digest(
    habit: str, goes_on: bool, root: str, threads: Threads
) -> None:
    """Only the validator proves the image to be the same."""
    web = source(root, threads)
    image = await web.find(CALLER, f"{root}{habit}/disk.raw")
    first = await web.open(image)
    await first.close()
    offset = 70_000
    stream = await web.open(image, offset, first.validator or '"e"')
    assert stream.offset == (offset if goes_on else 0)
    assert await read_all(stream, 4096) == CONTENT[stream.offset :]


CONFIG: Final = """
[imports]
retries = 1
buffer_kib = 64

[[sources]]
name = "web"
plugin = "http"
allow = ["{root}"]
"""


async def imported(folder: Path, root: str, path: str) -> tuple[bytes | None, Any]:
    """Import an image; return the first bytes of the volume, or None, and the error if any."""
    running = Running(folder, CONFIG.format(root=root))
    try:
        number = await running.create(root + path)
        if await running.until(number, "available", "error") == "error":
            return None, (await running.progress(number))["error"]
        (file,) = running.files()
        with file.open("rb") as volume:
            return volume.read(len(CONTENT)), None
    finally:
        await running.stop()


@pytest.mark.parametrize(
    ("path", "lists"),
    [
        ("until-close/disk.raw", True),
        ("until-close-gz/disk.raw.gz", False),
        ("chunked/disk.raw", False),
        ("encodes/disk.raw", False),
        ("encodes-gz/disk.raw.gz", False),
        ("names-its-gzip/disk.raw.gz", False),
        ("breaks-until-close/disk.raw", True),
        ("breaks-until-close-gz/disk.raw.gz", False),
        ("until-close-but-parts/disk.raw", False),
        ("breaks-until-close-but-parts/disk.raw", False),
        ("breaks-soon/disk.raw", False),
        ("breaks-soon-gz/disk.raw.gz", False),
        ("breaks-then-small-parts/disk.raw", False),
        ("breaks-then-small-parts-gz/disk.raw.gz", False),
        ("breaks-then-until-close/disk.raw", False),
    ],
)
@ensureDeferred
async def test_what_shows_that_an_image_is_whole(
    tmp_path: Path, habits: Habits, root: str, path: str, lists: bool
) -> None:
    """The digest or the end of the format shows a complete image; without either, the image is
    fetched again.
    """
    habits.lists = lists
    assert await imported(tmp_path, root, path) == (CONTENT, None)


@ensureDeferred
async def test_nothing_shows_that_an_image_is_whole(tmp_path: Path, root: str) -> None:
    content, error = await imported(tmp_path, root, "until-close/disk.raw")
    assert content is None
    assert error["code"] == "image-length-unknown"
    assert "states no length" in error["message"]


@ensureDeferred
async def test_an_image_that_is_never_whole(tmp_path: Path, habits: Habits, root: str) -> None:
    habits.lists = True
    content, error = await imported(tmp_path, root, "always-breaks/disk.raw")
    assert content is None
    assert error["code"] == "image-truncated"


@pytest.mark.parametrize(
    ("encoding", "body", "error", "message"),
    [
        ("br", CONTENT, SourceRefused, "encoded .br., though bootvol asked for the plain"),
        ("deflate", CONTENT, SourceRefused, "encoded .deflate."),
        ("gzip, zstd", CONTENT, SourceRefused, "encoded .gzip, zstd."),
        ("gzip", gzip.compress(CONTENT)[:-9], ImageTruncated, "The encoded image is incomplete"),
        ("gzip", b"\x1f\x8b" + CONTENT, ImageCorrupt, "cannot be decoded"),
        ("zstd", b"\x28\xb5\x2f\xfd" + CONTENT, ImageCorrupt, "cannot be decoded"),
    ],
)
@ensureDeferred
async def test_encodings_that_are_of_no_use(
    root: str,
    threads: Threads,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    body: bytes,
    error: type[Exception],
    message: str,
) -> None:
    said = answer(body, f"Content-Encoding: {encoding}")
    monkeypatch.setitem(HABITS, "encodes-badly", lambda _asked: said)
    with pytest.raises(error, match=message):
        await fetched(source(root, threads), f"{root}encodes-badly/disk.raw")


@pytest.mark.parametrize("offset", [0, 5000])
@ensureDeferred
async def test_less_of_an_image_than_was_stated(
    root: str, threads: Threads, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    """A proxy that kept a part of the image serves the part as the whole."""
    web = source(root, threads)
    monkeypatch.setitem(HABITS, "keeps-a-part", right)
    image = await web.find(CALLER, f"{root}keeps-a-part/disk.raw")
    monkeypatch.setitem(
        HABITS, "keeps-a-part", lambda asked: right(attrs.evolve(asked, content=CONTENT[:200_000]))
    )
    with pytest.raises(SourceFailed, match="states 200000 bytes for the image, but stated 3000"):
        await web.open(image, offset, image.validator if offset else None)
