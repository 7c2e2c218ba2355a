"""Proxies for tests, over real sockets: one to ask through, and one that stands before a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


class Front(Factory):
    """Passes connections on, and breaks some of those that carry much.

    :param port: where they go, on this machine.
    :param most: how many bytes of a server's answers one carries, until it breaks.
    :param times: how many break.
    :ivar broke: called when one has.
    :ivar said: what clients sent, piece by piece.
    :ivar port: where it listens.
    """

    noisy = False

    def __init__(self, port: int, most: int, times: int) -> None:
        self.most = most
        self.times = times
        self.broke: Callable[[], None] = lambda: None
        self.said: list[bytes] = []
        self.port = 0
        self._to = port

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See IProtocolFactory."""
        return _Caller(self, TCP4ClientEndpoint(reactor, "127.0.0.1", self._to))


class _Caller(_Side):
    """The end that asks; what it says is kept until there is another end."""

    def __init__(self, proxy: Front, to: TCP4ClientEndpoint) -> None:
        self._proxy = proxy
        self._to = to
        self._said = b""

    def connectionMade(self) -> None:
        """Connect to the server."""
        made = connectProtocol(self._to, _Answerer(self._proxy))
        made.addCallbacks(self._connected, lambda _failure: self.transport.loseConnection())

    def dataReceived(self, data: bytes) -> None:
        """Pass it on, as soon as that can be."""
        self._proxy.said.append(data)
        if self.other is None:
            self._said += data
        super().dataReceived(data)

    def _connected(self, server: _Side) -> None:
        self.tie(server)
        server.transport.write(self._said)


class _Answerer(_Side):
    """The end that answers."""

    def __init__(self, proxy: Front) -> None:
        self._proxy = proxy
        self._passed = 0

    def dataReceived(self, data: bytes) -> None:
        """Pass it on, but for what is too much."""
        self._passed += len(data)
        if self._passed <= self._proxy.most or not self._proxy.times:
            super().dataReceived(data)
        elif self.other is not None:
            self._proxy.times -= 1
            self._proxy.broke()
            self.transport.abortConnection()


@contextmanager
def front(port: int, most: int = 0, times: int = 0, tls: Any = None) -> Iterator[Front]:
    """Stand before a server until the block ends; sync fixtures only.  See :class:`Front`.

    :param tls: a context factory, to be reached by TLS.
    """
    made = Front(port, most, times)
    if tls is None:
        listening = reactor.listenTCP(0, made, interface="127.0.0.1")
    else:
        listening = reactor.listenSSL(0, made, tls, interface="127.0.0.1")
    made.port = listening.getHost().port
    try:
        yield made
    finally:
        pytest_twisted.blockon(listening.stopListening())
