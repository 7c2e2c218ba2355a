"""Bodies that end too soon, in every form: no volume is available with other bytes than the image.

Each case is a server: its answer to the first request, its validators, the form of its bodies, and
its answer to a request for the rest.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from backports import zstd
from pytest_twisted import ensureDeferred
from twisted.internet.defer import succeed

from bootvol.testing.answers import NO_LENGTH, Asked, answer, gzipped
from bootvol.testing.backends import noise
from bootvol.testing.habits import Habits
from bootvol.worker import retries
from bootvol_plugins.keystone.api import Keystone
from tests.daemons import Running, reactor
from tests.images import convert

#: Length of each disk in bytes, and of its part before a break.
LENGTH, HALF = 300_001, 200_000
ALWAYS: Final = 10**9
OLD: Final = "Last-Modified: Mon, 02 Nov 2020 10:00:00 GMT"
NOW: Final = "Date: Mon, 02 Nov 2026 10:00:00 GMT"


@attrs.frozen
class Case:
    """The behaviour of a server with one image.

    :ivar kind: the format of the image: see :data:`KINDS`.
    :ivar look: the answer to the request for the first byte.
    :ivar tag: the validators of the answers.
    :ivar framing: the form of the other bodies.
    :ivar breaks: number of bodies that end too soon.
    :ivar rest: the answer to a request for the rest.
    """

    kind: str = "raw"
    look: str = "part"
    tag: str = "strong"
    framing: str = "chunked"
    breaks: int = ALWAYS
    rest: str = "right"


def _members(pack: Callable[[bytes], bytes]) -> Callable[[bytes, Path], tuple[bytes, int]]:
    """Return a function that packs both parts of a disk one after the other."""

    def make(disk: bytes, _folder: Path) -> tuple[bytes, int]:
        first = pack(disk[:HALF])
        return first + pack(disk[HALF:]), len(first)

    return make


def _qcow2(disk: bytes, folder: Path) -> tuple[bytes, int]:
    image = convert(folder, "qcow2", disk=disk + bytes(-len(disk) % 512))
    return image, len(image) - 1000


#: Functions that put a disk into an image, and say where its bodies break.  The compressed images
#: break between two members, so that the beginning is a right image, too.
KINDS: Final[dict[str, Callable[[bytes, Path], tuple[bytes, int]]]] = {
    "raw": lambda disk, _: (disk, HALF),
    "gz": _members(lambda data: gzip.compress(data, 1)),
    "xz": _members(lambda data: lzma.compress(data, preset=0)),
    "zst": _members(zstd.compress),
    "bz2": _members(bz2.compress),
    "gz-within": lambda disk, _: (gzip.compress(disk, 1), HALF),
    "qcow2": _qcow2,
}
LOOKS: Final = ("part", "part-in-chunks", "star", "whole", "refused", "closed")
TAGS: Final = ("strong", "none", "weak", "each", "empty", "two-kinds")
FRAMINGS: Final = (
    "length",
    "old-length",
    "chunked",
    "chunked-broken",
    "close",
    "old-close",
    "encoded",
)
RESTS: Final = (
    "right",
    "framed",
    "star",
    "untagged",
    "whole",
    "whole-as-part",
    "whole-as-206",
    "nothing",
    "416",
    "503",
)
CASES: Final = [
    Case(*each)
    for each in product(KINDS, LOOKS, TAGS, FRAMINGS, (0, 1, ALWAYS), RESTS)
    if each[0] != "qcow2"
]


class Server:
    """The server of one case, as a habit.

    :ivar image: the image.
    :ivar stated: whether an answer has stated the size of the image.
    :ivar broken: whether a body has ended too soon.
    """

    def __init__(self, case: Case, image: bytes, cut: int) -> None:
        self.stated = self.broken = False
        self._case = case
        self.image = image
        self._cut = cut
        self._asked = self._bodies = 0

    def __call__(self, asked: Asked) -> bytes:
        """Answer a request."""
        self._asked += 1
        span = attrs.evolve(asked, content=self.image).range
        if span is None:
            return self._whole()
        if span[0] >= len(self.image):
            return answer(b"", f"Content-Range: bytes */{len(self.image)}", status="416 No")
        return self._look() if span == (0, 1) else self._rest(*span)

    def _look(self) -> bytes:
        look = self._case.look
        if look == "busy":
            return answer(b"", status="503 No")
        if look == "refused":
            return answer(b"", status="403 No")
        if look == "closed":
            return b""
        if look == "whole":
            return self._framed(self.image, "200 OK", whole=True)
        first = self.image[:1]
        head = [
            *self._tags(),
            f"Content-Range: bytes 0-0/{self._total('*' if look == 'star' else '')}",
        ]
        if look == "part":
            return answer(first, *head, status="206 Part")
        chunks = b"1\r\n" + first + b"\r\n0\r\n\r\n"
        coding = "Transfer-Encoding: chunked"
        return answer(chunks, *head, coding, status="206 Part", length=NO_LENGTH)

    def _rest(self, start: int, end: int) -> bytes:
        way = self._case.rest
        if way in {"416", "503"}:
            return answer(b"", status=f"{way} No")
        if way == "nothing":
            return b""
        if way == "whole":
            return self._whole()
        if way == "whole-as-206":
            return self._framed(self.image, "206 Part", whole=True)
        if way == "whole-as-part":
            head = f"Content-Range: bytes 0-{len(self.image) - 1}/{self._total()}"
            return self._framed(self.image, "206 Part", head, whole=True)
        total = self._total("*" if way == "star" else "")
        head = f"Content-Range: bytes {start}-{end - 1}/{total}"
        body = self.image[start:end]
        if way == "framed":
            return self._framed(body, "206 Part", head)
        tags = [] if way == "untagged" else self._tags()
        return answer(body, *tags, head, status="206 Part")

    def _whole(self) -> bytes:
        return self._framed(self.image, "200 OK", whole=True)

    def _framed(self, body: bytes, status: str, *head: str, whole: bool = False) -> bytes:
        """Return an answer in the case's framing; the body may break."""
        cut = self._cut if whole else 70_000
        breaks = self._bodies < self._case.breaks and cut < len(body)
        self._bodies += 1
        self.broken |= breaks
        sent = body[:cut] if breaks else body
        framing = self._case.framing
        version = "HTTP/1.0" if framing.startswith("old") else "HTTP/1.1"
        head = (*self._tags(), *head)
        if framing.endswith("length"):
            self.stated = True
            return answer(sent, *head, status=status, version=version, length=len(body))
        if framing.endswith("close"):
            return answer(sent, *head, status=status, version=version, length=NO_LENGTH)
        if framing == "encoded" and whole:
            sent, head = gzipped(sent), (*head, "Content-Encoding: gzip")
        pieces = [sent[at : at + 50_000] for at in range(0, len(sent), 50_000)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces)
        chunks += b"" if breaks and framing == "chunked-broken" else b"0\r\n\r\n"
        head = (*head, "Transfer-Encoding: chunked")
        return answer(chunks, *head, status=status, version=version, length=NO_LENGTH)

    def _total(self, instead: str = "") -> str:
        """Return the size for a Content-Range, or ``instead``."""
        self.stated |= not instead
        return instead or str(len(self.image))

    def _tags(self) -> list[str]:
        """Return the headers with validators."""
        two_kinds = ['ETag: "e"'] if self._asked % 2 else [OLD, NOW]
        return {
            "strong": ['ETag: "e"'],
            "none": [],
            "weak": ['ETag: W/"e"'],
            "each": [f'ETag: "{self._asked}"'],
            "empty": ['ETag: ""'],
            "two-kinds": two_kinds,
        }[self._case.tag]


CONFIG: Final = """
[imports]
retries = 2
buffer_kib = 64

[quota]
volumes = -1
gigabytes = -1

[[sources]]
name = "web"
plugin = "http"
allow = ["{root}"]
checksums = "none"

[[sources]]
name = "glance"
plugin = "glance"
endpoints = ["{root}"]

[sources.keystone]
url = "{root}"
username = "bootvol"
password = "secret"
project = "service"
"""


def start_of(file: Path, length: int) -> bytes:
    """Return the first bytes of a file."""
    with file.open("rb") as opened:
        return opened.read(length)


class Site(Habits):
    """A web server, and a Glance, with an image of each case.

    :ivar servers: the servers by the number of the case.
    :ivar images: Glance's descriptions of the images.
    """

    def __init__(self) -> None:
        super().__init__(b"")
        self.servers: dict[int, Server] = {}
        self.images: dict[int, dict[str, Any]] = {}

    def add(self, number: int, case: Case, image: bytes, cut: int) -> Server:
        """Add an image.  In Glance, only images with a strong validator have a digest."""
        server = self.servers[number] = Server(case, image, cut)
        self.images[number] = {
            "id": glance_id(number),
            "status": "active",
            "container_format": "bare",
            "disk_format": "qcow2" if case.kind == "qcow2" else "raw",
            "size": len(image),
            "checksum": hashlib.md5(image).hexdigest() if case.tag == "strong" else None,
        }
        return server

    def answer(self, method: str, path: str, headers: dict[str, str], port: int) -> bytes:
        """See :class:`Habits`."""
        number = int(path.split("/")[3].partition("-")[0], 16)
        if path.startswith("/v2/images/") and not path.endswith("/file"):
            return answer(json.dumps(self.images[number]).encode())
        return self.servers[number](Asked(method, path, headers, b"", 0))


def glance_id(number: int) -> str:
    """Return the id of a case's image in Glance."""
    return f"{number:08x}-0000-0000-0000-000000000000"


async def outcomes(
    folder: Path, cases: Sequence[Case], monkeypatch: pytest.MonkeyPatch, *, glance: bool = False
) -> list[tuple[Case, Server, str]]:
    """Import an image of each case.

    :param glance: whether the images are Glance's.
    :returns: with each case its server and "exact", "other bytes", or the code of the error.
    """
    monkeypatch.setattr(retries, "sleep", lambda _clock, _seconds: succeed(None))
    monkeypatch.setattr(Keystone, "own_token", lambda _keystone: succeed("token"))
    site = Site()
    listening = reactor.listenTCP(0, site, interface="127.0.0.1")
    root = f"http://127.0.0.1:{listening.getHost().port}/"
    running = Running(folder, CONFIG.format(root=root))
    try:
        begun: dict[int, tuple[Case, Server, bytes]] = {}
        for number, case in enumerate(cases):
            # The first bytes tell the disks apart.
            disk = b"%08d" % number + noise(LENGTH - 8, number)
            server = site.add(number, case, *KINDS[case.kind](disk, folder))
            url = f"{root}web/images/{number:x}-/disk.img"
            volume = await running.create(glance_id(number) if glance else url)
            begun[volume] = (case, server, disk)
        ended = {each: await running.until(each, "available", "error") for each in begun}
        stored = {start_of(file, 8): file for file in running.files()}
        found: list[tuple[Case, Server, str]] = []
        for volume, (case, server, disk) in begun.items():
            if ended[volume] == "error":
                outcome = str((await running.progress(volume))["error"]["code"])
            else:
                content = start_of(stored[disk[:8]], LENGTH + 65536)
                exact = content == disk + bytes(65536)
                outcome = "exact" if exact else "other bytes"
            found.append((case, server, outcome))
        return found
    finally:
        await running.stop()
        await listening.stopListening()


def judge(case: Case, server: Server, outcome: str) -> str | None:
    """Return the fault of an outcome; None if the outcome is right."""
    if outcome == "other bytes":
        # Without any statement, chunks with a last chunk are whole, and so is a right packed image.
        possible = case.framing in {"chunked", "encoded"} or case.kind != "raw"
        return None if possible and not server.stated else "lost bytes"
    if outcome != "exact" and not server.broken and "close" not in case.framing:
        return "failed without a fault of the server"
    if outcome != "exact" and case.breaks <= 1 and server.stated:
        return "did not get over one fault"
    return None


@pytest.mark.parametrize("part", range(4))
@ensureDeferred
async def test_no_volume_has_other_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """A sample of all cases.

    Break: `src/bootvol/imaging/source_size.py`: `and self._at < self._least:` -> `and False:`.
    """
    found = await outcomes(tmp_path, CASES[part * 293 :: 4 * 293], monkeypatch)
    faults = [(*each, fault) for each in found if (fault := judge(*each)) is not None]
    assert [(case, outcome, fault) for case, _, outcome, fault in faults] == []


@ensureDeferred
async def test_no_volume_of_glance_has_other_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample of all cases, as images of Glance, with and without a digest."""
    sample = [
        Case(kind, "part", tag, framing, breaks, rest)
        for kind, tag, framing, breaks, rest in product(
            KINDS, ("strong", "none"), FRAMINGS[:-1], (0, 1, ALWAYS), RESTS
        )
        if kind != "qcow2"
    ][::37]
    found = await outcomes(tmp_path, sample, monkeypatch, glance=True)
    for _, server, _ in found:
        server.stated = True
    faults = [(*each, fault) for each in found if (fault := judge(*each)) is not None]
    assert [(case, outcome, fault) for case, _, outcome, fault in faults] == []


@ensureDeferred
async def test_less_data_than_glance_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer states the smaller length, too."""
    monkeypatch.setattr(Server, "__call__", lambda server, _asked: answer(server.image[:-1]))
    ((_, _, outcome),) = await outcomes(tmp_path, [Case(tag="none")], monkeypatch, glance=True)
    assert outcome == "image-truncated"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case(), "exact"),
        (Case("gz"), "exact"),
        (Case("qcow2"), "exact"),
        (Case(rest="star"), "exact"),
        (Case(rest="untagged"), "exact"),
        (Case(tag="none"), "image-truncated"),
        (Case(tag="none", breaks=1), "exact"),
        (Case(framing="old-close", rest="whole"), "image-truncated"),
        (Case(framing="length", breaks=1, rest="whole-as-206"), "exact"),
        (Case(framing="chunked", breaks=1, rest="whole-as-part"), "exact"),
        (Case(framing="encoded"), "source-failed"),
        # Glance fails at each request for a part.
        (Case(look="busy", framing="length", breaks=0), "exact"),
        (Case(look="busy", framing="length", breaks=1, rest="503"), "exact"),
        (Case("gz", look="closed", framing="length", breaks=1, rest="nothing"), "exact"),
        (Case(framing="length", rest="503"), "image-truncated"),
    ],
)
@ensureDeferred
async def test_what_glance_states_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case, expected: str
) -> None:
    ((_, _, outcome),) = await outcomes(tmp_path, [case], monkeypatch, glance=True)
    assert outcome == expected


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("strong", "source-failed"), ("each", "exact"), ("weak", "exact"), ("none", "exact")],
)
@ensureDeferred
async def test_a_shorter_image_replaces_the_image_before_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str, expected: str
) -> None:
    look = Server._look

    def longer(server: Server) -> bytes:
        now, server.image = server.image, server.image + bytes(1000)
        try:
            return look(server)
        finally:
            server.image = now

    monkeypatch.setattr(Server, "_look", longer)
    case = Case(tag=tag, framing="length", breaks=0)
    ((_, _, outcome),) = await outcomes(tmp_path, [case], monkeypatch)
    assert outcome == expected


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (Case(breaks=1), "exact"),
        (Case(), "exact"),
        (Case(rest="framed"), "exact"),
        (Case(rest="star"), "exact"),
        (Case(rest="whole"), "image-truncated"),
        (Case("gz"), "exact"),
        (Case("gz", rest="whole"), "image-truncated"),
        (Case("zst", tag="none"), "image-truncated"),
        (Case("qcow2"), "exact"),
        (Case("qcow2", tag="weak"), "image-truncated"),
        # The size is stated only after the first answer, by the first body.
        (Case(look="closed", framing="length", rest="star"), "exact"),
        (Case(framing="old-close", rest="whole"), "image-truncated"),
        (Case(framing="close", breaks=1, rest="whole"), "exact"),
        (Case(framing="encoded"), "image-truncated"),
        (Case(framing="encoded", breaks=1), "exact"),
        (Case(tag="each"), "image-truncated"),
        (Case(tag="empty"), "image-truncated"),
        (Case(tag="two-kinds"), "image-truncated"),
        (Case(breaks=1, rest="whole-as-206"), "exact"),
        (Case(breaks=1, rest="whole-as-part"), "exact"),
        (Case(look="whole", framing="close"), "image-length-unknown"),
    ],
)
@ensureDeferred
async def test_what_was_stated_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case, expected: str
) -> None:
    ((_, _, outcome),) = await outcomes(tmp_path, [case], monkeypatch)
    assert outcome == expected
