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
from backports import zstd
from pytest_twisted import ensureDeferred
from twisted.internet.utils import getProcessOutputAndValue

from bootvol.errors import ImageBomb, ImageCorrupt, ImageTruncated, SourceFailed, SourceRefused
from bootvol.interfaces import IOpenEndedStream
from bootvol.jail import Jail
from bootvol.model import Image
from bootvol.testing.answers import NO_LENGTH, answer, right
from bootvol.testing.backends import noise
from bootvol.testing.habits import HABITS, Habits
from bootvol.testing.sources import CALLER, read_all
from bootvol.threads import Threads
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.source import HttpSource
from tests.daemons import Running, reactor
from tests.images import MIB

CONTENT: Final = noise(300_001)
#: Names of images other than ``disk.raw``.
NAMES: Final = {
    "names-its-gzip": "disk.raw.gz",
    "encodes-gz": "disk.raw.gz",
    "until-close-gz": "disk.raw.gz",
}
#: Additional arguments of curl: curl decodes only requested encodings.
CURL: Final = {each: ["--compressed"] for each in ("encodes", "encodes-zstd", "encodes-twice")}
#: A skippable frame (RFC 8878, section 3.1.2).
SKIPPED: Final = b"\x50\x2a\x4d\x18" + (2).to_bytes(4, "little") + b"??"
#: Habits with parts that only the digest can prove to be of one image.
BY_DIGEST: Final = ("mirrors", "weak", "no-validator", "odd-etag", "empty-etag")


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
    return HttpSource("web", options, reactor, threads, Jail())


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


@pytest.mark.parametrize("habit", ["right", "range-star", "range-early", "range-ignored"])
@pytest.mark.parametrize("size", [len(CONTENT) // 2, len(CONTENT) + 1000])
@ensureDeferred
async def test_going_on_with_a_newer_image(
    habit: str, size: int, root: str, threads: Threads
) -> None:
    """The size that was found belongs to an older image, and does not count."""
    web = source(root, threads)
    image = await web.find(CALLER, f"{root}{habit}/disk.raw")
    older = attrs.evolve(image, size_bytes=size, validator='"older"')
    stream = await web.open(older, 70_000, image.validator)
    assert stream.size in (None, len(CONTENT))
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
        ("breaks-in-chunks/disk.raw", False),
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


def _with_window(logarithm: int) -> bytes:
    """Return the content in a zstd frame with a window of so many bits."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: logarithm})
    return packer.compress(CONTENT) + packer.flush()


#: A gzip member whose header has a name without an end (RFC 1952, section 2.3.1).
_NAMED: Final = b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 6 * MIB


@pytest.mark.parametrize(
    ("encoding", "body", "error", "message"),
    [
        ("br", CONTENT, SourceRefused, "encoded .br., though bootvol asked for the plain"),
        ("deflate", CONTENT, SourceRefused, "encoded .deflate."),
        ("gzip, br", CONTENT, SourceRefused, "encoded .br."),
        (
            ", ".join(["gzip"] * 6),
            CONTENT,
            SourceRefused,
            "encoded .gzip, gzip, gzip, ",
        ),
        ("gzip", gzip.compress(CONTENT) + b"?", ImageCorrupt, "Foreign bytes follow"),
        ("gzip", gzip.compress(CONTENT) + b"\x1f\x8b", ImageTruncated, "is incomplete"),
        ("gzip", gzip.compress(CONTENT)[:-9], ImageTruncated, "The encoded image is incomplete"),
        ("gzip", b"\x1f\x8b" + CONTENT, ImageCorrupt, "cannot be decoded"),
        ("zstd", b"\x28\xb5\x2f\xfd" + CONTENT, ImageCorrupt, "cannot be decoded"),
        ("zstd", _with_window(24), ImageCorrupt, "cannot be decoded: .* too much memory"),
        ("gzip", gzip.compress(b"") * 16_000, ImageBomb, "too many headers or empty parts"),
        ("gzip, zstd", zstd.compress(_NAMED), ImageBomb, "too many headers or empty parts"),
        (
            "gzip, zstd",
            zstd.compress(gzip.compress(CONTENT) + bytes(6 * MIB)),
            ImageBomb,
            "too many headers or empty parts",
        ),
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
    """An answer is refused that cannot be decoded, or takes much time or memory.

    Break: `plugins/bootvol_plugins/http/encodings.py`: `window_log_max: 23}` -> `window_log_max:
    27}`.
    Break: `plugins/bootvol_plugins/http/encodings.py`: `if self._credit < 0:` -> `if False:`.
    """
    said = answer(body, f"Content-Encoding: {encoding}")
    monkeypatch.setitem(HABITS, "encodes-badly", lambda _asked: said)
    with pytest.raises(error, match=message):
        await fetched(source(root, threads), f"{root}encodes-badly/disk.raw")


@pytest.mark.parametrize(
    ("encoding", "body", "name"),
    [
        ("gzip, gzip", gzip.compress(gzip.compress(CONTENT)), "disk.raw"),
        ("zstd, gzip", gzip.compress(zstd.compress(CONTENT)), "disk.raw"),
        ("gzip, zstd", zstd.compress(gzip.compress(CONTENT)), "disk.raw"),
        ("gzip\r\nContent-Encoding: gzip", gzip.compress(CONTENT), "disk.raw"),
        ("gzip, identity, , binary", gzip.compress(CONTENT), "disk.raw"),
        ("gzip, gzip", CONTENT, "disk.raw"),
        ("gzip, gzip", gzip.compress(CONTENT), "disk.raw.gz"),
        ("gzip, gzip", gzip.compress(gzip.compress(gzip.compress(CONTENT))), "disk.raw.gz"),
        ("gzip", gzip.compress(CONTENT[:99]) + bytes(2000) + gzip.compress(CONTENT[99:]), "disk"),
        ("gzip", gzip.compress(b"") * 9000 + gzip.compress(CONTENT) + bytes(3), "disk"),
        ("zstd", zstd.compress(CONTENT[:99]) + SKIPPED + zstd.compress(CONTENT[99:]), "disk"),
        ("zstd", SKIPPED + zstd.compress(CONTENT), "disk"),
        ("zstd", _with_window(23), "disk"),
    ],
)
@ensureDeferred
async def test_lists_of_encodings_and_members(
    root: str,
    threads: Threads,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    body: bytes,
    name: str,
) -> None:
    """Each encoding is removed if the body really has it, with all members."""
    said = answer(body, f"Content-Encoding: {encoding}")
    monkeypatch.setitem(HABITS, "encodes-more", lambda _asked: said)
    _, content = await fetched(source(root, threads), f"{root}encodes-more/{name}")
    assert (gzip.decompress(content) if name.endswith(".gz") else content) == CONTENT


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("Content-Length: -1", "its Content-Length is no number"),
        ("Content-Length: +300001", "its Content-Length is no number"),
        ("Content-Length:", "its Content-Length is no number"),
        ("Content-Length: 300001\r\nContent-Length: 1", "it states different lengths"),
        ("Content-Length: 300001, 1", "it states different lengths"),
        (f"Content-Length: {'0' * 5000}1", "its Content-Length is no number"),
        ("Transfer-Encoding: odd", "transfer encoding that is not known, b?'odd'"),
    ],
)
@ensureDeferred
async def test_heads_that_cannot_be_read(
    root: str,
    threads: Threads,
    monkeypatch: pytest.MonkeyPatch,
    header: str,
    shown: str,
) -> None:
    """The message names the fault."""
    said = answer(CONTENT, header, length=NO_LENGTH)
    monkeypatch.setitem(HABITS, "wrong-head", lambda _asked: said)
    with pytest.raises(SourceFailed, match=rf"answer of [0-9.]+ cannot be read: .*{shown}"):
        await fetched(source(root, threads), f"{root}wrong-head/disk.raw")


@pytest.mark.parametrize("digest", [False, True])
@pytest.mark.parametrize(
    "head", [None, f"Content-Range: bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"]
)
@ensureDeferred
async def test_the_whole_image_as_a_part(
    habits: Habits,
    root: str,
    threads: Threads,
    monkeypatch: pytest.MonkeyPatch,
    head: str | None,
    digest: bool,
) -> None:
    """Whatever part bootvol asks for, the server sends everything as 206."""
    heads = ['ETag: "e"', *([] if head is None else [head])]
    said = answer(CONTENT, *heads, status="206 Partial Content")
    monkeypatch.setitem(
        HABITS, "all-as-206", lambda asked: right(asked) if asked.range == (0, 1) else said
    )
    habits.lists = digest
    web = source(root, threads, checksums="SHA256SUMS" if digest else "none")
    image = await web.find(CALLER, f"{root}all-as-206/disk.raw")
    stream = await web.open(image, 5000, image.validator)
    assert stream.offset == 5000
    assert await read_all(stream, 4096) == CONTENT[5000:]
    assert len(habits.asked) == 2 + digest, "no further request is needed"
