"""Timeouts of a body, by a clock controlled by the test."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from bootvol.errors import SourceFailed
from bootvol_plugins.http.stream import Body

STALL = 1.0


def connected() -> tuple[Clock, StringTransport, Body]:
    """Return a body before its first byte."""
    clock, transport = Clock(), StringTransport()
    body = Body(clock, STALL)
    body.makeConnection(transport)
    return clock, transport, body


async def breaks_off(
    waiting: Deferred[int], why: str, clock: Clock, transport: StringTransport, came: int
) -> None:
    """Expect the body to fail, and its connection to be closed."""
    with pytest.raises(SourceFailed, match=f"The server sent {why} seconds") as caught:
        await waiting
    assert caught.value.came == came
    assert transport.producerState == "stopped"
    assert not clock.getDelayedCalls()


@ensureDeferred
async def test_silence_breaks_it_off() -> None:
    clock, transport, body = connected()
    waiting = body.fill(memoryview(bytearray(8)))
    clock.advance(0.9)
    body.dataReceived(b"x")
    clock.advance(0.9)
    assert not waiting.called
    # Let the reactor run once more, for bytes received meanwhile.
    clock.pump([0.1, 0])
    await breaks_off(waiting, "nothing within 1", clock, transport, 1)


@ensureDeferred
async def test_a_byte_now_and_then_is_not_enough() -> None:
    clock, transport, body = connected()
    waiting = body.fill(memoryview(bytearray(64)))
    for _ in range(19):
        clock.advance(0.5)
        body.dataReceived(b"x")
    assert not waiting.called
    clock.pump([0.5, 0])
    await breaks_off(waiting, "19 bytes within 10", clock, transport, 19)


@ensureDeferred
async def test_a_break_says_how_much_had_come() -> None:
    _, _, body = connected()
    memory = bytearray(8)
    waiting = body.fill(memoryview(memory))
    body.dataReceived(b"abc")
    body.connectionLost(Failure(ConnectionLost()))
    with pytest.raises(SourceFailed, match="broke off") as caught:
        await waiting
    assert memory[: caught.value.came] == b"abc"


@ensureDeferred
async def test_it_may_take_long_as_a_whole() -> None:
    clock, _, body = connected()
    for _ in range(3):
        waiting = body.fill(memoryview(bytearray(16)))
        for _ in range(16):
            clock.advance(0.5)
            body.dataReceived(b"x")
        assert await waiting == 16
        # Nobody waits for the body meanwhile.
        clock.advance(60)
    assert not clock.getDelayedCalls()
