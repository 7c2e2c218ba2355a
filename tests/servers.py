"""HTTP servers for tests: on loopback, on a free port, stopped at the end of the test."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import attrs
import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

reactor: Any = _reactor


@attrs.frozen
class Server:
    """A running server.

    :ivar connections: the connections that clients hold open.
    :ivar accepted: the client's address of each connection so far.
    """

    scheme: str
    port: int
    connections: set[object]
    accepted: list[object]

    @property
    def url(self) -> str:
        """The root URL, with a slash at the end."""
        return f"{self.scheme}://localhost:{self.port}/"


@contextmanager
def serve(
    root: IResource, tls: Any = None, interface: str = "127.0.0.1", port: int = 0
) -> Iterator[Server]:
    """Serve a resource until the block ends. For synchronous fixtures only.

    :param tls: a context factory, for https.
    :param interface: the address to listen at.
    :param port: the port; 0 takes a free one.
    """
    site = Site(root)
    connections: set[object] = set()
    accepted: list[object] = []
    build = site.buildProtocol

    def counted(address: Any) -> Any:
        protocol = build(address)
        accepted.append(address)
        connections.add(protocol)
        lost = protocol.connectionLost

        def connection_lost(reason: Any) -> None:
            connections.discard(protocol)
            lost(reason)

        protocol.connectionLost = connection_lost
        return protocol

    site.buildProtocol = counted  # type: ignore[method-assign]
    if tls is None:
        listening = reactor.listenTCP(port, site, interface=interface)
    else:
        listening = reactor.listenSSL(port, site, tls, interface=interface)
    scheme = "http" if tls is None else "https"
    try:
        yield Server(scheme, listening.getHost().port, connections, accepted)
    finally:
        pytest_twisted.blockon(listening.stopListening())


def only_looks(request: Request) -> bool:
    """Return whether a request only checks an image: the http source gets the first byte then."""
    return request.getHeader(b"range") == b"bytes=0-0"


def free_port() -> int:
    """Return a port that nobody listens on.

    The port lies below the ephemeral ports (32768 and more, on Linux), which concurrent tests get
    from the system, and above the default ``ports`` of exports.
    """
    while True:
        port = random.randrange(12_000, 32_768)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
