"""Proxies for tests, over real sockets: a forward proxy, and a front proxy before a server."""

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
    """A proxy that resolves names itself, and knows the given names only.

    :param names: maps each name to its address.
    :ivar answer: the answer to every request, after which the connection is closed; ``b""`` leaves
        the connection open without an answer; None serves the requests.
    :ivar requests: the first line of each request.
    :ivar port: the port that the proxy listens on.
    """

    noisy = False

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.answer: bytes | None = None
        self.requests: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        """The proxy's URL."""
        return f"http://127.0.0.1:{self.port}"

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See IProtocolFactory."""
        return _Client(self)


class _Side(Protocol):
    """One of two connected ends."""

    other: _Side | None = None
    transport: Any

    def tie(self, other: _Side) -> None:
        """Connect both ends, with backpressure: the slower end sets the pace."""
        self.other, other.other = other, self
        for here, there in ((self, other), (other, self)):
            there.transport.registerProducer(here.transport, True)

    def dataReceived(self, data: bytes) -> None:
        """Pass data to the other end."""
        if self.other is not None:
            self.other.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Close the other end, too."""
        if self.other is not None:
            self.other.transport.unregisterProducer()
            self.other.transport.loseConnection()
            self.other = None


class _Client(_Side):
    """The client's end."""

    def __init__(self, proxy: ForwardProxy) -> None:
        self._proxy = proxy
        self._head = b""
        self._asked = False

    def dataReceived(self, data: bytes) -> None:
        """Read the request; from then on pass all data to the server."""
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
    """Run a proxy until the block ends. For synchronous fixtures only."""
    proxy = ForwardProxy(names)
    listening = reactor.listenTCP(0, proxy, interface="127.0.0.1")
    proxy.port = listening.getHost().port
    try:
        yield proxy
    finally:
        pytest_twisted.blockon(listening.stopListening())


class Front(Factory):
    """Passes connections on, and breaks some connections that carry much data.

    :param port: the server's port on this machine.
    :param most: bytes of the server's answers after which a connection breaks.
    :param times: the number of connections to break.
    :ivar broke: called for each broken connection.
    :ivar said: the data from clients, piece by piece.
    :ivar port: the port that the proxy listens on.
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
    """The client's end. Data are kept until the server's end is connected."""

    def __init__(self, proxy: Front, to: TCP4ClientEndpoint) -> None:
        self._proxy = proxy
        self._to = to
        self._said = b""

    def connectionMade(self) -> None:
        """Connect to the server."""
        made = connectProtocol(self._to, _Answerer(self._proxy))
        made.addCallbacks(self._connected, lambda _failure: self.transport.loseConnection())

    def dataReceived(self, data: bytes) -> None:
        """Pass data on as soon as the server is connected."""
        self._proxy.said.append(data)
        if self.other is None:
            self._said += data
        super().dataReceived(data)

    def _connected(self, server: _Side) -> None:
        self.tie(server)
        server.transport.write(self._said)


class _Answerer(_Side):
    """The server's end."""

    def __init__(self, proxy: Front) -> None:
        self._proxy = proxy
        self._passed = 0

    def dataReceived(self, data: bytes) -> None:
        """Pass data on until the limit; then break the connection."""
        self._passed += len(data)
        if self._passed <= self._proxy.most or not self._proxy.times:
            super().dataReceived(data)
        elif self.other is not None:
            self._proxy.times -= 1
            self._proxy.broke()
            self.transport.abortConnection()


@contextmanager
def front(port: int, most: int = 0, times: int = 0, tls: Any = None) -> Iterator[Front]:
    """Run a :class:`Front` before a server until the block ends. For synchronous fixtures only.

    :param tls: a context factory, to listen with TLS.
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
