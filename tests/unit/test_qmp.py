"""The client of QMP, with servers that break the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent

from bootvol.errors import HypervisorFailed
from bootvol.errors.base import LONGEST
from bootvol.interfaces import PluginContext
from bootvol.threads import Threads
from bootvol_plugins.qemu import qmp as client
from bootvol_plugins.qemu.hypervisor import QemuHypervisor
from bootvol_plugins.qemu.qmp import Qmp, QmpFailed, QmpRefused, connected, failures
from tests.daemons import reactor
from tests.fuzzing import fuzz
from tests.machines import options
from tests.reactors import as_reactor
from tests.waiting import LIMIT

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
DONE = b'{"return": {}}\r\n'


class Script(Protocol):
    """Sends one line to a new client, and one more after each received line."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = iter(lines)

    def connectionMade(self) -> None:
        """Send the greeting."""
        self.dataReceived(b"")

    def dataReceived(self, data: bytes) -> None:
        """Send the next line; hang up after the last one."""
        assert self.transport is not None
        line = next(self._lines, None)
        if line is None:
            self.transport.loseConnection()
        else:
            self.transport.write(line)


async def told(folder: Path, *lines: bytes, seconds: float = LIMIT) -> object:
    """Give a command to a server with ``lines`` as answers; return the answer."""
    path = str(folder / "qmp")
    factory = Factory.forProtocol(lambda: Script(list(lines)))
    port = await UNIXServerEndpoint(reactor, path).listen(factory)
    try:
        async with connected(reactor, path, seconds) as qmp:
            return await qmp.execute("query-name")
    finally:
        await port.stopListening()


@ensureDeferred
async def test_an_answer_among_events(tmp_path: Path) -> None:
    event = b'{"event": "RTC_CHANGE", "data": {}}\r\n'
    answer = event + b'{"return": {"name": "server-1"}}\r\n' + event
    assert await told(tmp_path, GREETING, DONE, answer) == {"name": "server-1"}


@ensureDeferred
async def test_a_refusal(tmp_path: Path) -> None:
    refusal = b'{"error": {"class": "GenericError", "desc": "Not today"}}\r\n'
    with pytest.raises(QmpRefused, match="Not today"):
        await told(tmp_path, GREETING, DONE, refusal)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"SSH-2.0-OpenSSH\r\n"],
        [b"[1, 2]\n"],
        [b"\xff\xfe\n"],
        [b"[" * 100_000 + b"\n"],
        [b"x" * (2 * 1024 * 1024)],
        [GREETING],
        [GREETING, DONE],
        [GREETING, DONE, b"what?\n"],
        [GREETING, DONE, b'{"event": "X"}\n' * 2000],
        [GREETING, DONE, b'{"event": "' + b"x" * 1_000_000 + b'"}\n' * 5],
    ],
)
@ensureDeferred
async def test_one_that_does_not_keep_to_the_protocol(tmp_path: Path, lines: list[bytes]) -> None:
    with pytest.raises(QmpFailed, match="closed the connection"):
        await told(tmp_path, *lines)


@ensureDeferred
async def test_one_that_is_silent(tmp_path: Path) -> None:
    with pytest.raises(QmpFailed, match="does not answer"):
        await told(tmp_path, b"", seconds=0.01)


@ensureDeferred
async def test_nobody(tmp_path: Path) -> None:
    with pytest.raises(QmpFailed, match="does not listen"):
        async with connected(reactor, str(tmp_path / "qmp")):
            pass


@ensureDeferred
async def test_cancelled_before_it_is_connected(tmp_path: Path) -> None:
    telling = Deferred.fromCoroutine(told(tmp_path, GREETING, DONE))
    telling.cancel()
    with pytest.raises(CancelledError):
        await telling


#: All questions whose answers the daemon uses.
QUESTIONS: list[Callable[[Qmp], Awaitable[object]]] = [
    lambda qmp: qmp.execute("quit"),
    lambda qmp: client.devices(qmp),
    lambda qmp: client.nodes(qmp),
    lambda qmp: client.drive(qmp, "vda"),
    lambda qmp: qmp.ask(client.FDSETS, "query-fdsets"),
    lambda qmp: qmp.ask(client.ADDED, "add-fd"),
]
KEYS = st.sampled_from(["return", "error", "desc", "name", "node-name", "fds", "opaque", "fd"])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=9,
)


@fuzz(300)
@given(question=st.sampled_from(QUESTIONS), answer=st.dictionaries(KEYS, JSON, max_size=3))
@example(question=QUESTIONS[0], answer={"error": 5})
@example(question=QUESTIONS[1], answer={"return": [{"name": 5}]})
@example(question=QUESTIONS[2], answer={"error": {"desc": "\x1b" * 100_000}})
def test_whatever_qemu_answers_is_used_or_named(
    question: Callable[[Qmp], Awaitable[object]], answer: dict[str, Any]
) -> None:
    """A guest that broke out of QEMU answers anything: no answer is a defect of the daemon.

    Break: `plugins/bootvol_plugins/qemu/qmp.py`: `except ValidationError:` -> `except KeyError:`.
    Break: `plugins/bootvol_plugins/qemu/qmp.py`: `if isinstance(error, dict) else` ->
    `if error else`.
    Break: `src/bootvol/errors/base.py`: `if len(text) > LONGEST:` -> `if False:`.
    """
    qmp = Qmp(Clock())
    qmp.makeConnection(StringTransport())

    async def asked() -> None:
        with failures("The server fails"):
            await question(qmp)

    results: list[Any] = []
    Deferred.fromCoroutine(asked()).addBoth(results.append)
    qmp.dataReceived(orjson.dumps(answer) + b"\n")
    for result in results:
        if result is not None:
            error = result.check(HypervisorFailed) and result.value
            assert error, result
            assert error.message.isprintable()
            assert len(error.message) <= LONGEST
    assert results or "event" in answer


@pytest.mark.parametrize("line", [b'{"event": 1}\n', b"{}\n", b"1\n", b"\n"])
def test_few_messages_of_a_flood_are_read(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that broke out of QEMU sends messages without end: the daemon reads few.

    Break: `plugins/bootvol_plugins/qemu/qmp.py`: `_MOST_MESSAGES: Final = 1000` ->
    `_MOST_MESSAGES: Final = 10**9`.
    """
    read: list[bytes] = []

    def loads(line: bytes) -> dict[str, Any]:
        read.append(line)
        return {"event": "X"}

    monkeypatch.setattr("bootvol_plugins.qemu.qmp.orjson.loads", loads)
    qmp, transport = Qmp(Clock()), StringTransport()
    qmp.makeConnection(transport)
    while not transport.disconnected:
        qmp.dataReceived(line * 10_000)
    assert len(read) < 2000


class Generous(Script):
    """Sends each byte with a descriptor."""

    def dataReceived(self, data: bytes) -> None:
        """Send the next line."""
        sender: Any = self.transport
        for each in next(self._lines):
            sender.sendFileDescriptor(0)
            sender.write(bytes([each]))


@ensureDeferred
async def test_no_descriptors_are_taken(tmp_path: Path) -> None:
    """A guest that broke out of QEMU sends a descriptor with each byte.

    Break: `plugins/bootvol_plugins/qemu/qmp.py`: `refuse_descriptors(self.transport)` -> `pass`.
    """
    path = str(tmp_path / "qmp")
    lines = [GREETING, DONE, b'{"return": 1}\r\n']
    port = await UNIXServerEndpoint(reactor, path).listen(
        Factory.forProtocol(lambda: Generous(lines))
    )
    with capturedLogs() as logged:
        async with connected(reactor, path) as qmp:
            assert await qmp.execute("query-name") == 1
    await port.stopListening()
    assert [each for each in logged if "descriptor" in str(formatEvent(each))] == []


class Dragging(StringTransport):
    """A QEMU that answers each command late, and names many things to close."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.qmp = Qmp(clock)
        self.qmp.makeConnection(self)
        self._clock = clock

    def write(self, data: bytes) -> None:
        """Answer a command."""
        named = [f"vdb-{number}" for number in range(1000)]
        answers: dict[str, object] = {
            "query-named-block-nodes": [{"node-name": each} for each in named],
            "query-fdsets": [
                {"fdset-id": number, "fds": [{"opaque": each}]} for number, each in enumerate(named)
            ],
            "qom-list": [],
        }
        answer = {"return": answers.get(orjson.loads(data)["execute"], {})}
        self._clock.callLater(9, self.qmp.dataReceived, orjson.dumps(answer) + b"\n")


def test_a_detachment_ends_however_late_qemu_answers(tmp_path: Path) -> None:
    """A guest that broke out of QEMU keeps the daemon for a while, not for hours.

    Break: `plugins/bootvol_plugins/qemu/hypervisor.py`: `await in_time(closing, _CLOSE,
    self._reactor)` -> `await closing`.
    """
    clock = Clock()
    qemu = QemuHypervisor(
        "local", options(tmp_path), PluginContext(as_reactor(clock), Threads(reactor, "q", 1), "q")
    )

    @asynccontextmanager
    async def monitor(_: str) -> AsyncIterator[Qmp]:
        yield Dragging(clock).qmp

    qemu._monitor = monitor  # type: ignore[method-assign,assignment]
    ended: list[Any] = []
    Deferred.fromCoroutine(qemu.detach("server-1", "vdb")).addBoth(ended.append)
    while not ended:
        clock.advance(1)
    error = ended[0].value
    assert isinstance(error, HypervisorFailed)
    assert error.message == "Server server-1 may still use vdb: QEMU takes too long."
    assert clock.seconds() < 120
