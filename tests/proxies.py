"""A forward proxy for tests: absolute URIs and CONNECT, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

reactor: Any = _reactor


class ForwardProxy(Factory):
    """Resolves names itself: it knows just those that it is told.

    :param names: an address for each.
    :ivar answer: what every request is answered instead of being served: then the connection is
        closed, but with ``b""``, where it never is; None serves.
    :ivar requests: the first line of each request.
    :ivar port: where it listens.
    """

    noisy = False

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.answer: bytes | None = None
        self.requests: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See IProtocolFactory."""
        return _Client(self)


class _Side(Protocol):
    """One of two ends that are tied together."""

    other: _Side | None = None
    transport: Any

    def tie(self, other: _Side) -> None:
        """Tie both ends together, the slower setting the pace."""
        self.other, other.other = other, self
        for here, there in ((self, other), (other, self)):
            there.transport.registerProducer(here.transport, True)

    def dataReceived(self, data: bytes) -> None:
        """Pass it on."""
        if self.other is not None:
            self.other.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the other end too."""
        if self.other is not None:
            self.other.transport.unregisterProducer()
            self.other.transport.loseConnection()
            self.other = None


class _Client(_Side):
    """The end that asks."""

    def __init__(self, proxy: ForwardProxy) -> None:
        self._proxy = proxy
        self._head = b""
        self._asked = False

    def dataReceived(self, data: bytes) -> None:
        """Read the request; from then on pass everything on."""
        if self._asked:
            super().dataReceived(data)
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._asked = True
            self._serve()

    def _serve(self) -> None:
        line, _, rest = self._head.partition(b"\r\n")
        self._proxy.requests.append(line.decode())
        answer = self._proxy.answer
        if answer is not None:
            if answer:
                self.transport.write(answer)
                self.transport.loseConnection()
            return
        method, target, version = line.decode().split(" ")
        there = urlsplit(f"//{target}" if method == "CONNECT" else target)
        address = self._proxy.names.get(there.hostname or "")
        if address is None or there.port is None:
            self.transport.write(b"HTTP/1.1 502 No such host\r\nContent-Length: 0\r\n\r\n")
            self.transport.loseConnection()
            return
        if method == "CONNECT":
            near, far = b"HTTP/1.1 200 Connection established\r\n\r\n", b""
        else:
            near, far = b"", f"{method} {there.path} {version}\r\n".encode() + rest
        endpoint = TCP4ClientEndpoint(reactor, address, there.port)
        connectProtocol(endpoint, _Side()).addCallback(self._connected, near, far)

    def _connected(self, server: _Side, near: bytes, far: bytes) -> None:
        self.tie(server)
        self.transport.write(near)
        server.transport.write(far)


@contextmanager
def forward_proxy(names: dict[str, str]) -> Iterator[ForwardProxy]:
    """Run a proxy until the block ends; sync fixtures only."""
    proxy = ForwardProxy(names)
    listening = reactor.listenTCP(0, proxy, interface="127.0.0.1")
    proxy.port = listening.getHost().port
    try:
        yield proxy
    finally:
        pytest_twisted.blockon(listening.stopListening())
