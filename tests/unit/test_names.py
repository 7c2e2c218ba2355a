"""Names are resolved in threads without delay for other names or for the process's end."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from threading import Event, Thread
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from bootvol.errors import SourceFailed
from bootvol.names import IReasonedReceiver, Resolver
from bootvol.shortage import short_of
from bootvol_plugins.http.addresses import ANYWHERE, CheckedEndpoint
from tests.reactors import as_reactor
from tests.waiting import LIMIT

reactor: Any = _reactor


@implementer(IReasonedReceiver)
class Receiver:
    """Records the results of a resolution."""

    def __init__(self) -> None:
        self.addresses: list[IAddress] = []
        self.reasons: list[str] = []
        self.causes: list[Exception | None] = []
        self.told: Deferred[None] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """The resolution has begun."""

    def addressResolved(self, address: IAddress) -> None:
        """Record an address."""
        self.addresses.append(address)

    def resolutionFailed(self, reason: str, cause: Exception | None) -> None:
        """Record a failure."""
        self.reasons.append(reason)
        self.causes.append(cause)

    def resolutionComplete(self) -> None:
        """End the resolution."""
        self.told.callback(None)


class Names:
    """Stands for getaddrinfo: blocks on ``silent`` names until the test ends the wait.

    :ivar asked: every requested name.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = Event()

    def __call__(self, host: str, *_rest: object) -> list[tuple[Any, ...]]:
        """Return the addresses of a host."""
        self.asked.append(host)
        if host.startswith("silent"):
            self.go.wait(LIMIT)
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        if host == "unknown":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            (socket.AF_INET6, 1, 6, "", ("2001:db8::1", 0, 0, 0)),
            (socket.AF_INET, 1, 6, "", ("192.0.2.1", 0)),
        ]


@pytest.fixture
def names() -> Any:
    """The name server. The fixture ends blocked calls afterwards."""
    names = Names()
    yield names
    names.go.set()


class Loop(Clock):
    """A clock controlled by the test, with the reactor's ``callFromThread``."""

    callFromThread = staticmethod(reactor.callFromThread)  # noqa: N815 - the reactor's own name


@ensureDeferred
async def test_addresses_with_the_port_that_each_asked_for(names: Names) -> None:
    resolver, receivers = Resolver(as_reactor(Loop()), look_up=names), [Receiver(), Receiver()]
    for port, receiver in enumerate(receivers, 80):
        resolver.resolveHostName(receiver, "well", port)
    for port, receiver in enumerate(receivers, 80):
        await receiver.told
        assert receiver.addresses == [
            IPv6Address("TCP", "2001:db8::1", port, 0, 0),
            IPv4Address("TCP", "192.0.2.1", port),
        ]
    assert names.asked == ["well"]


@ensureDeferred
async def test_a_silent_name_server_stops_no_other_host(names: Names) -> None:
    clock = Loop()
    resolver, silent, well = Resolver(as_reactor(clock), most=2, look_up=names), [], Receiver()
    for _ in range(50):
        silent.append(Receiver())
        resolver.resolveHostName(silent[-1], "silent")
    resolver.resolveHostName(well, "well")
    await well.told
    assert well.addresses
    assert names.asked == ["silent", "well"]
    clock.advance(30)
    for receiver in silent:
        assert receiver.told.called
        assert receiver.reasons == ["The name server does not answer for silent."]
    # The first question is still open: nobody asks again.
    resolver.resolveHostName(Receiver(), "silent")
    assert names.asked == ["silent", "well"]


@ensureDeferred
async def test_those_beyond_the_bound_wait_their_turn(names: Names) -> None:
    resolver, receivers = (
        Resolver(as_reactor(Loop()), most=1, look_up=names),
        [Receiver() for _ in range(3)],
    )
    for receiver, name in zip(receivers, ("silent", "given-up", "well"), strict=True):
        resolution = resolver.resolveHostName(receiver, name)
        if name == "given-up":
            resolution.cancel()
    assert names.asked == ["silent"]
    names.go.set()
    await receivers[0].told
    await receivers[2].told
    assert receivers[0].reasons == ["The name server does not answer for silent."]
    assert names.asked == ["silent", "well"]
    assert not receivers[1].told.called


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unknown", "The name server knows no host unknown."),
        ("a..b", "a..b is no name of a host."),
    ],
)
@ensureDeferred
async def test_why_there_is_no_address(names: Names, name: str, reason: str) -> None:
    look_up = names if name == "unknown" else socket.getaddrinfo
    receiver = Receiver()
    Resolver(as_reactor(Loop()), look_up=look_up).resolveHostName(receiver, name)
    await receiver.told
    assert receiver.reasons == [reason]


@ensureDeferred
async def test_who_gives_up_is_told_what_was_waited_for(names: Names) -> None:
    before = reactor.installNameResolver(Resolver(reactor, look_up=names))
    try:
        endpoint = CheckedEndpoint(reactor, "silent", 80, 5, ANYWHERE, "web")
        connecting = endpoint.connect(None)  # type: ignore[arg-type]
        connecting.cancel()
        with pytest.raises(SourceFailed, match="The name server does not answer for silent"):
            await connecting
    finally:
        reactor.installNameResolver(before)


_ENDS = """
import time
from twisted.internet import reactor
from bootvol.names import Resolver
from tests.unit.test_names import Receiver
resolver = Resolver(reactor, look_up=lambda *_: time.sleep(3600))
reactor.callWhenRunning(resolver.resolveHostName, Receiver(), "silent")
reactor.callLater(0.2, reactor.stop)
reactor.run()
"""


def test_the_process_ends_while_names_are_asked_for() -> None:
    subprocess.run([sys.executable, "-c", _ENDS], check=True, timeout=LIMIT)


@ensureDeferred
async def test_a_name_is_asked_for_again_that_got_no_thread(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Loop()
    resolver = Resolver(as_reactor(clock), most=1, look_up=names)
    first, in_line, refused = Receiver(), Receiver(), Receiver()
    resolver.resolveHostName(first, "silent")
    resolver.resolveHostName(in_line, "well")
    start, short = Thread.start, True

    def failing(thread: Thread) -> None:
        if short and thread.name.startswith("name "):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(Thread, "start", failing)
    names.go.set()
    await first.told
    alone = Resolver(as_reactor(clock), look_up=names)
    with pytest.raises(RuntimeError) as raised:
        alone.resolveHostName(refused, "well")
    assert short_of(raised.value)
    short = False
    clock.advance(1)
    await in_line.told
    assert in_line.addresses
    again = Receiver()
    alone.resolveHostName(again, "well")
    await again.told
    assert again.addresses
    clock.advance(60)
    assert not refused.told.called


@ensureDeferred
async def test_a_name_that_got_no_descriptor_is_not_taken_for_wrong() -> None:
    def look_up(*_: object) -> list[tuple[Any, ...]]:
        raise OSError(errno.EMFILE, "Too many open files")

    before = reactor.installNameResolver(Resolver(reactor, look_up=look_up))
    try:
        endpoint = CheckedEndpoint(reactor, "well", 80, 5, ANYWHERE, "web")
        with pytest.raises(SourceFailed, match="well cannot be resolved: Too many") as raised:
            await endpoint.connect(Factory.forProtocol(Protocol))
    finally:
        reactor.installNameResolver(before)
    assert short_of(raised.value)
