"""Images over several connections, from servers with habits."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from bootvol.errors import ImportFailed, SourceFailed
from bootvol.interfaces import IImageStream, IPrefetchingStream
from bootvol.jail import Jail
from bootvol.model import Caller, Digest, Image
from bootvol.testing.backends import noise
from bootvol.threads import Threads
from bootvol_plugins.http import connections, growth, parallel
from bootvol_plugins.http.options import HttpOptions
from bootvol_plugins.http.source import HttpSource
from tests.daemons import Running, reactor
from tests.images import qemu_img
from tests.waiting import until

MIB: Final = 1024 * 1024
CONTENT: Final = noise(6 * MIB + 5)
WINDOW: Final = 2 * MIB
#: Bytes that a connection gets in each turn, and the seconds of a turn.
PORTION: Final = 32 * 1024
TURN: Final = 0.01


CONFIG: Final = """
[imports]
buffer_kib = 512

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}"]
checksums = "none"
"""

_MIRRORED: Final = """
[imports]
buffer_kib = 512

[[sources]]
name = "web"
plugin = "http"
allow = ["{url}", "{other}"]
checksums = "SHA256SUMS"
"""


class Slow(Factory):
    """A server that limits each connection.

    :ivar etag: the ETag.
    :ivar content: the image.
    :ivar habit: changes the answer to a request for a part; gets status, headers and body.
    :ivar drops: breaks each further answer off after so many bytes; None for never.
    :ivar limit: the most connections that get an answer.
    :ivar closes: whether further connections are closed; else they get 503.
    :ivar refused: the number of refused requests.
    :ivar ranges: the Range of each request.
    :ivar connections: the open connections.
    :ivar most: the largest number of open connections that sent bodies.
    """

    noisy = False

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag = '"e"'
        self.habit: Callable[[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]
        self.habit = lambda *answer: answer
        self.drops: int | None = None
        self.limit, self.closes, self.refused = 100, False, 0
        self.ranges: list[str | None] = []
        self.connections: set[_Connection] = set()
        self.most = 0

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See :meth:`twisted.internet.interfaces.IProtocolFactory.buildProtocol`."""
        return _Connection(self)

    def answer(self, head: str) -> bytes:
        """Return the answer to a request."""
        span = re.search(r"Range: bytes=(\d+)-(\d*)\r", head)
        self.ranges.append(span and span[0])
        condition = re.search(r"If-Range: (.*)\r", head)
        headers = {"ETag": self.etag}
        status, body = 200, self.content
        if span is not None and (condition is None or condition[1] == self.etag):
            end = int(span[2]) + 1 if span[2] else len(self.content)
            status, body = 206, self.content[int(span[1]) : end]
            headers["Content-Range"] = f"bytes {span[1]}-{end - 1}/{len(self.content)}"
        if span is not None:
            status, headers, body = self.habit(status, headers, body)
        headers["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {status} .\r\n{lines}\r\n".encode() + body


class _Connection(Protocol):
    transport: ITCPTransport

    def __init__(self, server: Slow) -> None:
        self._server = server
        self._left = b""
        self._sent = 0
        self._sending = LoopingCall(self._send)

    def connectionMade(self) -> None:
        self._server.connections.add(self)
        self._is_refused = len(self._server.connections) > self._server.limit
        self._sending.start(TURN)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.connections.discard(self)
        self._sending.stop()

    def dataReceived(self, data: bytes) -> None:
        if self._is_refused:
            self._refuse()
            return
        self._left = self._server.answer(data.decode())
        self._sent = 0

    def _refuse(self) -> None:
        self._server.refused += 1
        if self._server.closes:
            self.transport.abortConnection()
        else:
            self.transport.write(b"HTTP/1.1 503 .\r\nContent-Length: 0\r\n\r\n")

    def _send(self) -> None:
        server = self._server
        server.most = max(server.most, sum(bool(each._left) for each in server.connections))
        self.transport.write(self._left[:PORTION])
        self._sent += len(self._left[:PORTION])
        self._left = self._left[PORTION:]
        if server.drops is not None and len(server.ranges) > 1 and self._sent > server.drops:
            self.transport.abortConnection()


@contextmanager
def listening(server: Slow) -> Iterator[str]:
    """Run a server; yield the URL."""
    port = reactor.listenTCP(0, server, interface="127.0.0.1")
    yield f"http://127.0.0.1:{port.getHost().port}/"
    pytest_twisted.blockon(port.stopListening())


@pytest.fixture
def server() -> Slow:
    """The server."""
    return Slow()


@pytest.fixture
def root(server: Slow) -> Iterator[str]:
    """The URL of the running server."""
    with listening(server) as url:
        yield url


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for a short time, so that little content shows every effect.

    On a busy machine the reader may be late itself, so any wait counts.
    """
    monkeypatch.setattr(parallel, "_WAITED", 0.0)
    monkeypatch.setattr(parallel, "_SPAN", 0.05)
    monkeypatch.setattr(parallel, "_LONG", 0.1)
    monkeypatch.setattr(parallel, "_LARGE", MIB)
    monkeypatch.setattr(growth, "PERIOD", 0.1)
    monkeypatch.setattr(connections, "_TICK", 0.05)


def source(root: str, threads: Threads, **more: Any) -> HttpSource:
    """Return a source that may reach the server."""
    options = HttpOptions(allow=[root], **{"checksums": "none", **more})
    return HttpSource("web", options, reactor, threads, Jail())


def image(root: str, digest: Digest | None = None) -> Image:
    """Return the image of the server."""
    return Image(f"{root}disk.raw", "web", "disk.raw", size_bytes=len(CONTENT), digest=digest)


#: No test compares the digest.
DIGEST: Final = Digest("sha256", "0" * 64)


async def read(stream: IImageStream, offset: int = 0) -> tuple[bytes, ImportFailed | None]:
    """Read a stream to its end; return the bytes, and the error of the stream."""
    IPrefetchingStream(stream).lend(memoryview(bytearray(WINDOW)))
    found = bytearray(len(CONTENT) + 1)
    at = offset
    try:
        while count := await stream.read_into(memoryview(found)[at : at + PORTION]):
            at += count
    except ImportFailed as error:
        return bytes(found[offset : at + error.came]), error
    finally:
        await stream.close()
    return bytes(found[offset:at]), None


@pytest.mark.parametrize("digest", [None, DIGEST])
@pytest.mark.parametrize("offset", [0, MIB + 3])
@ensureDeferred
async def test_more_connections_are_faster(
    server: Slow, root: str, threads: Threads, offset: int, digest: Digest | None
) -> None:
    web = source(root, threads)
    proof = f"sha256:{DIGEST.value}" if digest else '"e"'
    stream = await web.open(image(root, digest), offset, proof if offset else None)
    assert stream.offset == offset
    assert await read(stream, offset) == (CONTENT[offset:], None)
    assert server.most > 1
    await web.close()
    await until(lambda: not server.connections)


@ensureDeferred
async def test_one_connection_if_the_operator_wants(
    server: Slow, root: str, threads: Threads
) -> None:
    stream = await source(root, threads, connections=1).open(image(root))
    assert not IPrefetchingStream.providedBy(stream)
    await stream.close()


@ensureDeferred
async def test_an_image_without_validator_has_one_connection(
    server: Slow, root: str, threads: Threads
) -> None:
    """Nothing would prove the parts to be of one image."""
    server.etag = ""
    stream = await source(root, threads).open(image(root))
    assert not IPrefetchingStream.providedBy(stream)
    await stream.close()


def _busy(status: int, headers: dict[str, str], body: bytes) -> Any:
    return 503, {"Retry-After": "60"}, b""


def _ignores(status: int, headers: dict[str, str], body: bytes) -> Any:
    return 200, {"ETag": '"e"'}, CONTENT


def _other_total(status: int, headers: dict[str, str], body: bytes) -> Any:
    total = headers["Content-Range"].rpartition("/")[0] + f"/{len(CONTENT) + 1}"
    return status, {**headers, "Content-Range": total}, body


def _other_validator(status: int, headers: dict[str, str], body: bytes) -> Any:
    return status, {**headers, "ETag": '"other"'}, bytes(len(body))


def _short(status: int, headers: dict[str, str], body: bytes) -> Any:
    span = headers["Content-Range"]
    first = int(span.removeprefix("bytes ").partition("-")[0])
    stated = f"bytes {first}-{first + len(body) // 2 - 1}/{len(CONTENT)}"
    return status, {**headers, "Content-Range": stated}, body[: len(body) // 2]


def _encoded(status: int, headers: dict[str, str], body: bytes) -> Any:
    return status, {**headers, "Content-Encoding": "gzip"}, body


@pytest.mark.parametrize(
    "habit", [_busy, _ignores, _other_total, _other_validator, _short, _encoded]
)
@ensureDeferred
async def test_a_server_that_gives_no_parts(
    habit: Any, server: Slow, root: str, threads: Threads
) -> None:
    """The first connection brings the whole image, whatever others get."""
    server.habit = habit
    web = source(root, threads)
    assert await read(await web.open(image(root))) == (CONTENT, None)
    assert 1 < len(server.ranges) < 5
    await web.close()
    await until(lambda: not server.connections)


@pytest.mark.parametrize("closes", [False, True])
@ensureDeferred
async def test_a_server_that_limits_the_connections_of_an_address(
    closes: bool, server: Slow, root: str, threads: Threads
) -> None:
    """The connections of one import keep no other request from the server."""
    server.limit, server.closes = 2, closes
    web = source(root, threads)
    first = Deferred.fromCoroutine(read(await web.open(image(root))))
    await until(lambda: server.most == 2)
    found = await web.find(Caller("ann", "tenant"), f"{root}other.raw")
    assert found.size_bytes == len(CONTENT)
    # The server counts the connection of the search until the server has noticed its end.
    await until(lambda: len(server.connections) == 1)
    assert await read(await web.open(image(root))) == (CONTENT, None)
    assert await first == (CONTENT, None)
    assert server.refused
    await web.close()


@ensureDeferred
async def test_a_server_that_is_busy_without_other_streams(
    server: Slow, root: str, threads: Threads
) -> None:
    """If no connection can make room, no request is repeated: one has a Range, and one has none."""
    server.limit = 0
    web = source(root, threads)
    with pytest.raises(SourceFailed):
        await web.find(Caller("ann", "tenant"), f"{root}other.raw")
    assert server.refused == 2
    await web.close()


@ensureDeferred
async def test_connections_that_break(server: Slow, root: str, threads: Threads) -> None:
    """The bytes stay in order, and the next attempt asks for no byte again."""
    server.drops = 200 * 1024
    web = source(root, threads)
    found, validator = b"", None
    for _ in range(100):
        stream = await web.open(image(root), len(found), validator)
        assert stream.offset == len(found)
        validator = stream.validator
        more, error = await read(stream, len(found))
        found += more
        assert CONTENT.startswith(found)
        if error is None:
            break
    assert found == CONTENT
    await web.close()


@ensureDeferred
async def test_an_image_that_changes(server: Slow, root: str, threads: Threads) -> None:
    """No byte of the new image follows bytes of the old image."""
    web = source(root, threads)

    def change(status: int, headers: dict[str, str], body: bytes) -> Any:
        if server.most > 1 and server.etag == '"e"':
            server.etag, server.content = '"new"', bytes(len(CONTENT))
            for each in server.connections:
                each.transport.abortConnection()
        return status, headers, body

    server.habit = change
    found, error = await read(await web.open(image(root)))
    assert error is None or isinstance(error, SourceFailed)
    assert CONTENT.startswith(found)
    assert error is not None or found == CONTENT
    await web.close()


@pytest.mark.parametrize("container", [None, "qcow2"])
@ensureDeferred
async def test_an_import(server: Slow, root: str, tmp_path: Path, container: str | None) -> None:
    """The daemon lends memory to the stream of an image, and of a container."""
    disk = bytes(512) + CONTENT + bytes(-len(CONTENT) % 512)
    name = f"disk.{container or 'raw'}"
    server.content = disk
    if container is not None:
        (tmp_path / "disk").write_bytes(disk)
        qemu_img("convert", "-f", "raw", "-O", container, tmp_path / "disk", tmp_path / name)
        server.content = (tmp_path / name).read_bytes()
    running = Running(tmp_path, CONFIG.format(url=root))
    try:
        number = await running.create(f"{root}{name}")
        settled = await running.until(number, "available", "error")
        assert settled == "available", await running.progress(number)
        (file,) = running.files()
        with file.open("rb") as volume:
            assert volume.read(len(disk)) == disk
        assert server.most > 1
    finally:
        await running.stop()


@pytest.fixture
def other() -> Slow:
    """Another server of the image."""
    return Slow()


@pytest.fixture
def other_root(other: Slow) -> Iterator[str]:
    """The URL of the other server."""
    with listening(other) as url:
        yield url


def mirrored(root: str, other_root: str, threads: Threads, **more: Any) -> HttpSource:
    """Return a source with a mirror."""
    options = HttpOptions(
        allow=[root, other_root], checksums="none", mirrors={root: [other_root]}, **more
    )
    return HttpSource("web", options, reactor, threads, Jail())


async def attempts(web: HttpSource, wanted: Image) -> bytes:
    """Read an image with new attempts after failures, as an import does."""
    found, validator = b"", None
    for _ in range(5):
        stream = await web.open(wanted, len(found), validator)
        found, validator = found[: stream.offset], stream.validator
        more, error = await read(stream, stream.offset)
        found += more
        if error is None:
            return found
    raise AssertionError("The image did not come.")


def gone(server: Slow) -> None:
    """Break all connections of a server, and answer nothing more."""
    server.answer = lambda head: b""  # type: ignore[method-assign]
    for each in server.connections:
        each.transport.abortConnection()


@pytest.mark.parametrize("wide", [1, 4])
@pytest.mark.parametrize("digest", [None, DIGEST])
@ensureDeferred
async def test_a_mirror_goes_on_in_the_middle(
    server: Slow,
    root: str,
    other: Slow,
    other_root: str,
    threads: Threads,
    digest: Digest | None,
    wide: int,
) -> None:
    """With a digest the mirror may have its own ETags, without one only the same ETag."""
    web = mirrored(root, other_root, threads, connections=wide, timeout=0.5)
    if digest is not None:
        other.etag = '"of the mirror"'
    answer = server.answer

    def answer_once(head: str) -> bytes:
        reactor.callLater(0.3, gone, server)
        return answer(head)

    server.answer = answer_once  # type: ignore[method-assign]
    wanted = attrs.evolve(image(root, digest), validator='"e"')
    assert await attempts(web, wanted) == CONTENT
    assert other.ranges
    assert None not in other.ranges
    await web.close()


@ensureDeferred
async def test_a_mirror_of_another_image_is_not_read(
    server: Slow, root: str, other: Slow, other_root: str, threads: Threads
) -> None:
    """Without a digest, only an equal validator proves the image to be the same.

    Break: `plugins/bootvol_plugins/http/source.py`: `same = wanted is not None and stream.validator
    == wanted` -> `same = True`.
    """
    web = mirrored(root, other_root, threads, timeout=0.5)
    other.etag, other.content = '"other"', bytes(len(CONTENT))
    wanted = attrs.evolve(image(root), validator='"e"')
    stream = await web.open(wanted)
    await stream.close()
    gone(server)
    for offset, validator in ((0, None), (MIB, '"e"')):
        with pytest.raises(SourceFailed):
            await web.open(wanted, offset, validator)
        with pytest.raises(SourceFailed):
            await web.open_part(wanted, offset, 10, validator)
    assert len(other.ranges) >= 4
    await web.close()


@ensureDeferred
async def test_a_new_start_asks_the_named_server_first(
    server: Slow, root: str, other: Slow, other_root: str, threads: Threads
) -> None:
    """After an attempt with the wrong bytes of a mirror, the named server's bytes come.

    Break: `plugins/bootvol_plugins/http/source.py`: `if not offset:` -> `if False:`.
    """
    web = mirrored(root, other_root, threads, connections=1, timeout=0.5)
    other.content = bytes(len(CONTENT))
    wanted, answer = image(root, DIGEST), server.answer
    stream = await web.open(wanted)
    validator = stream.validator
    await stream.close()
    gone(server)
    stream = await web.open(wanted, MIB, validator)
    await stream.close()
    assert other.ranges
    server.answer = answer  # type: ignore[method-assign]
    assert await attempts(web, wanted) == CONTENT
    await web.close()


@pytest.mark.parametrize("name", ["disk.raw", "disk.raw.gz"])
@ensureDeferred
async def test_a_mirror_with_other_bytes(
    server: Slow, root: str, other: Slow, other_root: str, tmp_path: Path, name: str
) -> None:
    """If a mirror among several servers gave wrong bytes, the named server gives the whole image.

    Breaks:

    - `src/bootvol/worker/retries.py`: `(start is None and not progress.mixed)` -> `start is None`
    - `plugins/bootvol_plugins/http/source.py`: `if self._mirrors.gave_lately(parse(image.id))` ->
      `if False`
    """
    disk = bytes(512) + CONTENT
    server.content = gzip.compress(disk, 1) if name.endswith(".gz") else disk
    half = len(server.content) // 2
    other.content = server.content[:half] + bytes(len(server.content) - half)
    sums = f"{hashlib.sha256(server.content).hexdigest()}  {name}\n".encode()
    answer = server.answer

    def with_sums(head: str) -> bytes:
        if head.startswith("GET /SHA256SUMS"):
            return b"HTTP/1.1 200 .\r\nContent-Length: %d\r\n\r\n" % len(sums) + sums
        return answer(head)

    server.answer = with_sums  # type: ignore[method-assign]
    mirrors = f'mirrors = {{ "{root}" = ["{other_root}"] }}'
    running = Running(tmp_path, _MIRRORED.format(url=root, other=other_root) + mirrors)
    try:
        number = await running.create(f"{root}{name}")
        settled = await running.until(number, "available", "error")
        assert settled == "available", await running.progress(number)
        (file,) = running.files()
        with file.open("rb") as volume:
            assert volume.read(len(disk)) == disk
        assert other.ranges
    finally:
        await running.stop()


@ensureDeferred
async def test_a_part_from_a_mirror(
    server: Slow, root: str, other: Slow, other_root: str, threads: Threads
) -> None:
    web = mirrored(root, other_root, threads, timeout=0.5)
    wanted = attrs.evolve(image(root), validator='"e"')
    gone(server)
    for offset in (0, 5):
        part = await web.open_part(wanted, offset, 10, '"e"')
        memory = bytearray(10)
        assert await part.read_into(memoryview(memory)) == 10
        assert memory == CONTENT[offset : offset + 10]
        await part.close()
    await web.close()


@ensureDeferred
async def test_redirects_hold_for_each_connection(
    server: Slow, root: str, threads: Threads
) -> None:
    """A part from another origin than allowed is not read.

    Break: `plugins/bootvol_plugins/http/requests.py`: `if not lies_under(target, self._allow):` ->
    `if target is None:`.
    """
    elsewhere = Slow()
    elsewhere.content = bytes(len(CONTENT))
    port = reactor.listenTCP(0, elsewhere, interface="127.0.0.1")
    location = f"http://127.0.0.1:{port.getHost().port}/disk.raw"
    server.habit = lambda *_answer: (302, {"Location": location}, b"")
    web = source(root, threads)
    assert await read(await web.open(image(root))) == (CONTENT, None)
    assert elsewhere.ranges == []
    assert len(server.ranges) > 1
    await web.close()
    await port.stopListening()
