"""Endpoint descriptions."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory

from bootvol import endpoints
from bootvol.api import tls
from tests.daemons import reactor
from tests.waiting import LIMIT


@pytest.mark.parametrize(
    ("description", "backlog"),
    [
        ("tcp:8776", endpoints.BACKLOG),
        ("tcp:8776:interface=127.0.0.1", endpoints.BACKLOG),
        ("tcp6:8776", endpoints.BACKLOG),
        ("haproxy:tcp:8776", endpoints.BACKLOG),
        ("tcp:8776:backlog=7", 7),
        ("haproxy:tcp6:8776:backlog=7", 7),
    ],
)
def test_the_backlog_of_sockets(description: str, backlog: int) -> None:
    assert [each.backlog for each in tls.plan(description)] == [backlog]


@ensureDeferred
async def test_a_burst_of_connections_waits_for_the_reactor() -> None:
    """The system takes more connections than Twisted's own backlog, and drops none.

    Break: `src/bootvol/endpoints.py`: `BACKLOG: Final = 1024` -> `BACKLOG: Final = 50`
    """
    port = await endpoints.parse(reactor, "tcp:0:interface=127.0.0.1").listen(Factory())
    host: Any = port.getHost()
    with ExitStack() as stack:
        # The reactor runs in this thread, so accepts none of the connections.
        for _ in range(200):
            address = ("127.0.0.1", host.port)
            stack.enter_context(socket.create_connection(address, LIMIT))
    await maybeDeferred(port.stopListening)
