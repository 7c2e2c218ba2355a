"""Tunnels through a proxy, without a network."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer
from zope.interface.verify import verifyObject

from bootvol.errors import BootvolError, SourceFailed, SourceRefused
from bootvol_plugins.http.addresses import AddressPolicy
from bootvol_plugins.http.proxy import ProxiedAgent, TunnelEndpoint
from bootvol_plugins.http.urls import Refused, parse_proxy
from tests.names import Names
from tests.reactors import as_reactor


class Far(Protocol):
    """The protocol at the end of the tunnel."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        """Record the bytes."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Record the end."""
        self.lost = True


class Transport(StringTransport):
    """A transport with a record of aborts."""

    aborted = False

    def abortConnection(self) -> None:  # noqa: N802
        """Record the abort."""
        self.aborted = True


@implementer(IStreamClientEndpoint)
class Wire:
    """An endpoint that connects at once, to a transport visible to the test."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.near: Any = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint."""
        self.near = protocolFactory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 3128))
        self.near.makeConnection(self.transport)
        return succeed(self.near)


def tunnel(host: bytes = b"images.example") -> tuple[Wire, list[Any]]:
    """Request a tunnel; return the wire, and a list for the outcome."""
    wire = Wire()
    outcome: list[Any] = []
    opening = TunnelEndpoint(wire, host, 443).connect(Factory.forProtocol(Far))
    opening.addBoth(outcome.append)
    return wire, outcome


def failed(outcome: list[Any]) -> BootvolError:
    """Return the failure of the tunnel."""
    (failure,) = outcome
    assert isinstance(failure, Failure)
    assert isinstance(failure.value, BootvolError)
    return failure.value


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 \r\nVia: a\r\nX: b\r\n\r\n",
        b"HTTP/1.1 204\r\n\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_a_tunnel(answer: bytes, step: int) -> None:
    wire, outcome = tunnel()
    asked = b"CONNECT images.example:443 HTTP/1.1\r\nHost: images.example:443\r\n\r\n"
    assert wire.transport.value() == asked
    sent = answer + b"\r\nbeyond"
    for start in range(0, len(sent), step):
        wire.near.dataReceived(sent[start : start + step])
    (far,) = outcome
    assert isinstance(far, Far)
    assert far.transport is wire.transport
    assert far.received == b"\r\nbeyond"
    wire.near.connectionLost(Failure(error.ConnectionDone()))
    assert far.lost
    assert not wire.transport.aborted


def test_a_tunnel_to_an_address() -> None:
    assert tunnel(b"2001:db8::1")[0].transport.value().startswith(b"CONNECT [2001:db8::1]:443 ")


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", SourceRefused, "The proxy answers 403."),
        (b"HTTP/1.1 407 Who?\r\n\r\n", SourceRefused, "The proxy wants credentials"),
        (b"HTTP/1.1 405 No\r\n\r\n", SourceRefused, "The proxy answers 405."),
        (b"HTTP/1.1 302 There\r\nLocation: /\r\n\r\n", SourceRefused, "The proxy answers 302."),
        (b"HTTP/1.1 429 Slow\r\n\r\n", SourceFailed, "The proxy answers 429."),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", SourceFailed, "The proxy answers 502."),
        (b"HTTP/1.0 503\r\n\r\n", SourceFailed, "The proxy answers 503."),
        (b"HTTP/1.1 100 Continue\r\n\r\n", SourceFailed, "is not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", SourceFailed, "is not HTTP"),
        (b"HTTP/1.1 200OK\r\n\r\n", SourceFailed, "is not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", SourceFailed, "is not HTTP"),
        (b"\x16\x03\x01", SourceFailed, "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20000, SourceFailed, "is not HTTP"),
    ],
)
@pytest.mark.parametrize("step", [1, 100000])
def test_no_tunnel(answer: bytes, kind: type[BootvolError], told: str, step: int) -> None:
    wire, outcome = tunnel()
    for start in range(0, len(answer), step):
        wire.near.dataReceived(answer[start : start + step])
    found = failed(outcome)
    assert type(found) is kind
    assert told in found.message
    assert wire.transport.aborted
    # Later bytes have no effect.
    wire.near.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
    wire.near.connectionLost(Failure(error.ConnectionAborted()))
    assert len(outcome) == 1


def test_a_proxy_that_hangs_up() -> None:
    wire, outcome = tunnel()
    wire.near.dataReceived(b"HTTP/1.1 200")
    wire.near.connectionLost(Failure(error.ConnectionDone()))
    assert isinstance(failed(outcome), SourceFailed)


def test_cancelled_while_the_proxy_thinks() -> None:
    wire = Wire()
    outcome: list[Any] = []
    opening = TunnelEndpoint(wire, b"images.example", 443).connect(Factory.forProtocol(Far))
    opening.addBoth(outcome.append)
    opening.cancel()
    assert outcome[0].check(CancelledError)
    assert wire.transport.aborted
    wire.near.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
    wire.near.connectionLost(Failure(error.ConnectionAborted()))
    assert len(outcome) == 1


def test_an_inner_factory_that_makes_nothing() -> None:
    class Nothing(Factory):
        def buildProtocol(self, addr: object) -> None:
            return None

    @implementer(IStreamClientEndpoint)
    class Refusing:
        def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
            assert protocolFactory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)) is None
            return fail(error.ConnectionRefusedError())

    outcome: list[Any] = []
    TunnelEndpoint(Refusing(), b"a", 1).connect(Nothing()).addBoth(outcome.append)
    assert outcome[0].check(error.ConnectionRefusedError)


# --- the agent ----------------------------------------------------------------------------------


class Net(MemoryReactorClock):
    """A reactor that resolves only the proxy's name."""

    def __init__(self, proxy: list[str]) -> None:
        super().__init__()
        self.nameResolver = Names({"proxy.example": [proxy]})


def agent(net: Net) -> ProxiedAgent:
    """Return an agent with the proxy."""
    policy = AddressPolicy.of([], [])
    tls = BrowserLikePolicyForHTTPS()
    return ProxiedAgent(as_reactor(net), "http://proxy.example:3128", policy, tls, 10.0)


def test_provides_the_interfaces() -> None:
    verifyObject(IAgent, agent(Net([])))
    verifyObject(IAgentEndpointFactory, agent(Net([])))


@pytest.mark.parametrize("url", ["http://images.example/a", "https://images.example/a"])
def test_the_proxy_may_live_inside(url: str) -> None:
    """The operator names the proxy, so an inside address is right."""
    net = Net(["10.0.0.1"])
    asking = agent(net).request(b"GET", url.encode())
    assert [client[:2] for client in net.tcpClients] == [("10.0.0.1", 3128)]
    asking.addErrback(lambda _failure: None)
    asking.cancel()


@pytest.mark.parametrize("url", ["http://127.0.0.1/a", "https://[::1]/a", "http://2130706433/"])
def test_addresses_are_judged_all_the_same(url: str) -> None:
    net = Net(["10.0.0.1"])
    outcome: list[Any] = []
    agent(net).request(b"GET", url.encode()).addBoth(outcome.append)
    assert isinstance(failed(outcome), SourceRefused)
    assert net.tcpClients == []


def test_a_proxy_whose_name_is_unknown() -> None:
    """The message to tenants does not name the proxy.

    Break: `plugins/bootvol_plugins/http/client.py`: `if isinstance(error, DNSLookupError):` -> `if
    False:`
    """
    for url in (b"http://images.example/a", b"https://images.example/a"):
        outcome: list[Any] = []
        agent(Net([])).request(b"GET", url).addBoth(outcome.append)
        found = failed(outcome)
        assert isinstance(found, SourceFailed)
        assert found.message == "The proxy cannot be reached: its name has no address."


# --- the URL ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://proxy.example:3128", ("proxy.example", 3128)),
        ("http://proxy_1:80/", ("proxy_1", 80)),
        ("http://10.0.0.1:8080", ("10.0.0.1", 8080)),
        ("http://[fd00::1]:8080", ("fd00::1", 8080)),
    ],
)
def test_proxies(text: str, expected: tuple[str, int]) -> None:
    assert parse_proxy(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "proxy.example:3128",
        "http://proxy.example",
        "https://proxy.example:3128",
        "socks5://proxy.example:1080",
        "http://:3128",
        "http://proxy.example:0",
        "http://proxy.example:65536",
        "http://proxy.example:3128/path",
        "http://proxy.example:3128?a",
        "http://user:word@proxy.example:3128",
        "http://user@proxy.example:3128",
        "http://proxy.example:3128\n",
    ],
)
def test_what_is_no_proxy(text: str) -> None:
    with pytest.raises(Refused):
        parse_proxy(text)
