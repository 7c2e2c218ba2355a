"""TLS handshakes and encrypted input take turns, so they delay no other client."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme
from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.logger import capturedLogs

from bootvol.api.pieces import PIECE
from bootvol.api.tls import ModernTls
from tests.reactors import as_reactor
from tests.unit.test_channels import turn


class Listening(Clock):
    """A reactor that only records the listening ports."""

    factory: Any

    def listenTCP(self, port: int, factory: Any) -> None:
        """See :class:`twisted.internet.interfaces.IReactorTCP`."""
        self.factory = factory


class Talking(Protocol):
    """A protocol that echoes."""

    def dataReceived(self, data: bytes) -> None:
        """Send the bytes back."""
        assert self.transport is not None
        self.transport.write(data)


@attrs.define
class Client:
    """A client with an address, and the server's connection to the client."""

    own: SSL.Connection
    server: Any
    transport: StringTransportWithDisconnection

    @property
    def heard(self) -> bool:
        """True once the server has answered."""
        return bool(self.transport.value())

    def shake_hands(self, clock: Clock) -> None:
        """Complete the handshake."""
        while self.own.get_state_string() != b"SSL negotiation finished successfully":
            self.send()
            turn(clock)
            self.step()
        self.send()
        turn(clock)
        self.transport.clear()

    def send(self) -> None:
        """Send the client's pending bytes."""
        self.server.dataReceived(self.own.bio_read(65536))

    def step(self) -> None:
        """Make the client's next step of the handshake with the server's answer."""
        if said := self.transport.value():
            self.own.bio_write(said)
        self.transport.clear()
        with suppress(SSL.WantReadError):
            self.own.do_handshake()


class Server:
    """The connections of an ``ssl:`` endpoint, without the network."""

    def __init__(self, folder: Path) -> None:
        issued = trustme.CA().issue_cert("localhost")
        issued.private_key_pem.write_to_path(folder / "key")
        issued.cert_chain_pems[0].write_to_path(folder / "cert")
        context = ssl.DefaultOpenSSLContextFactory(str(folder / "key"), str(folder / "cert"))
        self.clock = Listening()
        ModernTls(as_reactor(self.clock), "").listenSSL(0, Factory.forProtocol(Talking), context)

    def connect(self, address: str) -> Client:
        """Connect from an address, without sending."""
        own = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        own.set_connect_state()
        server = self.clock.factory.buildProtocol(None)
        transport = StringTransportWithDisconnection(peerAddress=IPv4Address("TCP", address, 1))
        transport.protocol = server
        server.makeConnection(transport)
        client = Client(own, server, transport)
        client.step()
        return client


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """A server, without the network."""
    return Server(tmp_path)


def test_one_step_of_a_handshake_is_made_a_turn(server: Server) -> None:
    """One of many clients with simultaneous handshakes is answered in each turn of the reactor.

    Break: `src/bootvol/fair_share.py`: `self._clock.callLater(0, self._turns.release, asker)` ->
    `self._turns.release(asker)`.
    """
    many = [server.connect("192.0.2.1") for _ in range(10)]
    for each in many:
        each.send()
    for number in range(1, 11):
        assert [each.heard for each in many] == [True] * number + [False] * (10 - number)
        turn(server.clock)


def test_addresses_take_turns_at_handshakes(server: Server) -> None:
    """Another address gets the next turn but one, no matter how many handshakes the first one
    begins.

    Break: `src/bootvol/api/tls.py`: `self._turn = pace.turn(peer)` -> `self._turn = pace.turn("")`.
    """
    for _ in range(10):
        server.connect("192.0.2.1").send()
    other = server.connect("198.51.100.1")
    other.send()
    for _ in range(2):
        turn(server.clock)
    assert other.heard


def test_who_leaves_the_line_of_handshakes_holds_nobody_up(server: Server) -> None:
    many = [server.connect("192.0.2.1") for _ in range(3)]
    for each in many:
        each.send()
    many[1].transport.loseConnection()
    turn(server.clock)
    assert many[2].heard


def test_what_comes_with_the_end_of_a_handshake_is_taken(server: Server) -> None:
    client = server.connect("192.0.2.1")
    client.send()
    turn(server.clock)
    client.step()
    client.own.send(b"hello")
    client.send()
    assert client.transport.producerState == "producing"
    client.own.bio_write(client.transport.value())
    assert client.own.recv(100) == b"hello"


def test_handshakes_of_many_addresses_delay_no_established_connection(server: Server) -> None:
    """The next turn of the reactor decrypts the input of an established connection.

    Break: `src/bootvol/api/tls.py`: `if self._handshakeDone else` -> `if
    False else`.
    """
    client = server.connect("192.0.2.1")
    client.shake_hands(server.clock)
    for number in range(50):
        server.connect(f"198.51.100.{number}").send()
    client.own.send(b"hello")
    client.send()
    turn(server.clock)
    assert client.heard


def test_a_defect_ends_the_connection(server: Server, monkeypatch: Any) -> None:
    """The log has the defect, and later connections have their turns."""

    def fail(_protocol: Talking, _data: bytes) -> None:
        raise RuntimeError("a defect")

    client, other = server.connect("192.0.2.1"), server.connect("192.0.2.1")
    for each in (client, other):
        each.shake_hands(server.clock)
    with monkeypatch.context() as patch, capturedLogs() as logged:
        patch.setattr(Talking, "dataReceived", fail)
        client.own.send(b"hello")
        client.send()
    assert client.transport.disconnected
    told = [each["log_format"] for each in logged if "log_failure" in each]
    assert told == ["encrypted input cannot be read"]
    other.own.send(b"hello")
    other.send()
    turn(server.clock)
    assert other.heard


def test_few_records_are_decrypted_in_a_turn(server: Server, monkeypatch: Any) -> None:
    """Records of one byte on many connections are decrypted in small pieces, one in each turn.

    Meanwhile another address gets the next turn but one.

    Break: `src/bootvol/api/tls.py`: `self._come[:PIECE], self._come[PIECE:]` -> `self._come, b""`.
    Break: `src/bootvol/api/tls.py`: `self._valve.hold()` -> `pass`.
    """
    many = [server.connect("192.0.2.1") for _ in range(3)]
    other = server.connect("198.51.100.1")
    for each in (*many, other):
        each.shake_hands(server.clock)
    heard: list[bytes] = []
    monkeypatch.setattr(Talking, "dataReceived", lambda _, data: heard.append(data))
    for each in many:
        for _ in range(1000):
            each.own.send(b"x")
        each.send()
        assert each.transport.producerState == "paused"
    assert len(heard) <= PIECE // 23 + 1
    other.own.send(b"other")
    other.send()
    for number in range(40):
        before = len(heard)
        turn(server.clock)
        assert len(heard) - before <= PIECE // 23 + 1
        assert number < 2 or b"other" in heard
    assert len(heard) == 3001
    assert {each.transport.producerState for each in many} == {"producing"}
