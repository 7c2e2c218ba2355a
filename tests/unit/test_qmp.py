"""The client of QMP, with servers that break the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from bootvol_plugins.qemu.qmp import QmpFailed, QmpRefused, connected
from tests.daemons import reactor
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
        [GREETING, DONE, b'{"event": "X"}\n' * 300_000],
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
