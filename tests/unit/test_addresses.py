"""The addresses to which the http source connects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.web.client import URI, BrowserLikePolicyForHTTPS
from zope.interface.verify import verifyObject

from bootvol.errors import SourceRefused
from bootvol_plugins.http.addresses import (
    AddressPolicy,
    CheckedEndpoint,
    CheckedEndpoints,
    FilteringResolver,
)
from bootvol_plugins.http.urls import parse
from tests.names import Names
from tests.reactors import as_reactor

PUBLIC = "93.184.215.14"
ANOTHER = "2606:4700::1111"
INSIDE = "10.0.0.1"


def policy(networks: Iterable[str] = (), allow: Iterable[str] = ()) -> AddressPolicy:
    """Return the policy of an operator."""
    return AddressPolicy.of(networks, [parse(each) for each in allow])


# --- the policy ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        PUBLIC,
        ANOTHER,
        "1.1.1.1",
        "172.32.0.1",
        "192.167.255.255",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2a00:1450:4001::200e",
    ],
)
def test_public(address: str) -> None:
    assert policy().allows(address, "images.example")


@pytest.mark.parametrize(
    "address",
    [
        # This machine.
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "::1",
        # Its neighbours, and the metadata service of the cloud.
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "192.0.0.192",
        "168.63.129.16",
        "fe80::1",
        "fe80::1%2",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        # Nobody.
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "240.0.0.1",
        "255.255.255.255",
        "100::1",
        "2001:db8::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        # Many hosts at once.
        "224.0.0.1",
        "239.255.255.255",
        "ff02::1",
        "ff0e::1",
        # An address written as another one.
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:224.0.0.1",
        "::127.0.0.1",
        "::7f00:1",
        # An address behind another one.
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::e000:1",
        "64:ff9b:1::808:808",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "2001:0:7f00:1::f7f7:f7f7",
        "2001:0:808:808::80ff:fffe",
        "192.88.99.1",
        # No address at all.
        "",
        "localhost",
        "127.1",
        "1.1.1.1/32",
    ],
)
def test_not_public(address: str) -> None:
    """No address inside is allowed, however the address is written.

    Break: `plugins/bootvol_plugins/http/addresses.py`: `if address.is_multicast or any(address in
    each for each in _INTERNAL):` -> `if address.is_multicast:`.
    Break: `plugins/bootvol_plugins/http/addresses.py`: `return address.is_global` -> `return True`.
    """
    assert not policy().allows(address, "images.example")
    assert not policy(allow=["http://127.0.0.1/", "http://images.example"]).allows(
        address, "images.example"
    )


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("64:ff9b::a01:203", True),
        ("fd12::1", True),
        (PUBLIC, True),
        ("11.0.0.1", True),
        ("192.168.1.1", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("fd13::1", False),
        ("2002:a01:203::1", False),
    ],
)
def test_networks_of_ones_own(address: str, allowed: bool) -> None:
    own = policy(["10.0.0.0/8", "fd12::/16"])
    assert own.allows(address, "images.example") is allowed


def test_what_an_allowed_address_carries_must_be_allowed_too() -> None:
    every_6 = policy(["::/0"])
    assert every_6.allows("::1", "images.example")
    assert every_6.allows("2002:808:808::1", "images.example")
    for address in ("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "127.0.0.1"):
        assert not every_6.allows(address, "images.example")


def test_an_address_that_is_named_is_meant() -> None:
    named = policy(allow=["http://127.0.0.1:8080/images/", "http://[fd00::1]/", "http://a/"])
    assert named.allows("127.0.0.1", "127.0.0.1")
    assert named.allows("fd00::1", "fd00::1")
    assert named.allows("fd00::1", "fd00:0::1")
    # The host itself, by its own name.
    assert not named.allows("127.0.0.1", "localhost")
    assert not named.allows("127.0.0.1", "fd00::1")
    assert not named.allows("127.0.0.2", "127.0.0.1")
    assert not named.allows("127.0.0.2", "127.0.0.2")
    assert not named.allows("127.0.0.1", "127.1")
    assert not named.allows("::ffff:127.0.0.1", "127.0.0.1")


def test_what_a_proxy_may_be_asked_for() -> None:
    named = policy(["192.168.0.0/16"], ["http://10.0.0.1/"])
    for host in ("images.example", "localhost", "10.0.0.1", "192.168.1.1", PUBLIC, ANOTHER):
        assert named.allows_unresolved(host)
    for host in ("127.0.0.1", "::1", "10.0.0.2", "127.1", "0x7f000001", "2130706433", "0177.1"):
        assert not named.allows_unresolved(host)


# --- connecting ---------------------------------------------------------------------------------


class Net(MemoryReactorClock):
    """A reactor with prepared answers to name lookups."""

    def __init__(self, answers: dict[str, list[list[str]]]) -> None:
        super().__init__()
        self.nameResolver = Names(answers)

    @property
    def called(self) -> list[str]:
        """Return the addresses of all attempts to connect."""
        return [client[0] for client in self.tcpClients]


def connect(net: Net, host: str, **more: Iterable[str]) -> Any:
    """Begin to connect; return the Deferred."""
    endpoint = CheckedEndpoint(as_reactor(net), host, 80, 10.0, policy(**more), "web")
    return endpoint.connect(Factory.forProtocol(Protocol))


def refused(connecting: Any) -> str:
    """Return the message of a refusal. The refusal must have happened already."""
    failures: list[Failure] = []
    connecting.addErrback(failures.append)
    (failure,) = failures
    told = failure.value
    assert isinstance(told, SourceRefused)
    assert (told.code, told.retryable) == ("source-refused", False)
    return told.message


def test_provides_the_interface() -> None:
    verifyObject(IHostnameResolver, FilteringResolver(Names({}), policy(), "web"))


def test_a_refusal_names_the_host_and_the_log_the_address() -> None:
    net = Net({"trap.example": [[INSIDE, "::1"]]})
    with capturedLogs() as events:
        message = refused(connect(net, "trap.example"))
    assert message == "trap.example leads to an address that the operator does not allow."
    assert net.called == []
    told = [event for event in events if "address" in event]
    assert [event["log_level"] for event in told] == [LogLevel.warn] * 2
    assert [event["address"] for event in told] == [INSIDE, "::1"]
    assert {(event["source"], event["host"]) for event in told} == {("web", "trap.example")}


def test_refused_addresses_are_dropped_and_the_others_used() -> None:
    net = Net({"mixed.example": [[INSIDE, PUBLIC, "127.0.0.1", ANOTHER]]})
    connecting = connect(net, "mixed.example")
    net.advance(1)
    assert net.called == [PUBLIC, ANOTHER]
    # If these connections fail, the connections are the cause: this error is passed on, a refusal
    # is not.
    for client, connector in zip(net.tcpClients, net.connectors, strict=True):
        client[2].clientConnectionFailed(connector, Failure(error.ConnectionRefusedError()))
    net.advance(1)
    failures: list[Failure] = []
    connecting.addErrback(failures.append)
    assert failures[0].check(error.ConnectionRefusedError)


def test_a_name_without_addresses_is_not_refused() -> None:
    failures: list[Failure] = []
    connect(Net({}), "nowhere.example").addErrback(failures.append)
    assert failures[0].check(error.DNSLookupError)


def test_an_answer_that_changes() -> None:
    """Rebinding: each connection goes to the addresses of its own lookup, or is not made.

    Break: `plugins/bootvol_plugins/http/addresses.py`: `if self._chooser.passes(address,
    self._host):` -> `if address:`.
    """
    net = Net({"turns.example": [[PUBLIC], [INSIDE], [ANOTHER]]})
    connect(net, "turns.example")
    assert net.called == [PUBLIC]
    refused(connect(net, "turns.example"))
    assert net.called == [PUBLIC]
    connect(net, "turns.example")
    assert net.called == [PUBLIC, ANOTHER]
    names: Any = net.nameResolver
    assert len(names.asked) == 3, "nobody asks twice for one connection"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_with_and_without_tls(scheme: str) -> None:
    net = Net({"images.example": [[PUBLIC]], "trap.example": [[INSIDE]]})
    endpoints = CheckedEndpoints(
        as_reactor(net), policy(), BrowserLikePolicyForHTTPS(), 10.0, "web"
    )
    for host in ("images.example", "trap.example"):
        uri = URI.fromBytes(f"{scheme}://{host}/a".encode())
        connecting = endpoints.endpointForURI(uri).connect(Factory.forProtocol(Protocol))
        if host == "trap.example":
            refused(connecting)
    assert net.called == [PUBLIC]


def test_networks_and_literals() -> None:
    answers = {"nas.example": [[INSIDE]], "127.0.0.1": [["127.0.0.1"]]}
    net = Net(answers)
    connect(net, "nas.example", networks=["10.0.0.0/8"])
    connect(net, "127.0.0.1", allow=["http://127.0.0.1:8080/"])
    assert net.called == [INSIDE, "127.0.0.1"]
    refused(connect(Net(answers), "nas.example", allow=["http://10.0.0.1/", "http://nas.example"]))
