"""The API's TLS: versions 1.2 and 1.3, with forward-secret ciphers.

A handshake takes one or two milliseconds of the reactor, and 64 KiB of records of one byte take
about ten.  So each turn of the reactor makes at most one step of one handshake, and decrypts at
most one piece of one connection's input.  Clients' addresses take turns
(:class:`bootvol.fair_share.Paced`).  Many addresses with handshakes delay no established
connection, which has turns of its own.

Twisted's defaults for ``ssl:`` endpoints allow older ciphers, and leave the version to the author
of the endpoint.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
from cryptography.x509 import Certificate
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from bootvol import endpoints
from bootvol.api.addresses import network
from bootvol.api.pieces import PIECE, Valve
from bootvol.fair_share import Paced
from bootvol.reactors import IReactor

#: The ciphers of TLS 1.2. All ciphers of TLS 1.3 are acceptable.
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"


class ModernTls:
    """A reactor with modern TLS only for its ``ssl:`` endpoint.

    :param reactor: the real reactor, for all other methods.
    :param endpoint: the Twisted endpoint description of the listener.
    """

    def __init__(self, reactor: IReactor, endpoint: str) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._served: _Served | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenSSL(
        self, port: int, factory: IProtocolFactory, contextFactory: object, **more: int | str
    ) -> IListeningPort:
        """See :meth:`twisted.internet.interfaces.IReactorSSL.listenSSL`."""
        self._served = _Served(_modern(contextFactory))
        encrypting = Encrypting(self._served, factory, self._reactor)
        return self._reactor.listenTCP(port, encrypting, **more)  # type: ignore[arg-type]

    def reload(self) -> bool:
        """Read the key and certificates again, for new connections.

        Blocks on the disk, for a moment.

        :returns: False if the endpoint serves no TLS.
        :raises Exception: if the files cannot be read or do not fit; the old key and certificates
            stay in use.
        """
        if self._served is None:
            return False
        (planned,) = plan(self._endpoint)
        self._served.context = _modern(planned.tls)
        return True


class Encrypting(TLSMemoryBIOFactory):
    """The factory of encrypted connections; their handshakes and input take turns.

    :param served: makes the TLS connections.
    :param factory: makes the protocols above TLS.
    :param clock: the reactor.
    :ivar steps: paces handshakes, in turns of clients' addresses.
    :ivar pieces: paces the decryption of established connections in the same way.
    """

    def __init__(
        self,
        served: IOpenSSLServerConnectionCreator,
        factory: IProtocolFactory,
        clock: IReactorTime,
    ) -> None:
        super().__init__(served, False, factory)
        self.protocol = _Encrypted
        self.steps = Paced(clock)
        self.pieces = Paced(clock)


class _Encrypted(TLSMemoryBIOProtocol):
    """A connection that waits for a turn before each piece of its input, from the handshake on."""

    _log = Logger()
    factory: Encrypting
    #: The TCP connection.
    transport: Any
    #: Received input that waits for its turn.
    _come = b""
    _turn: Deferred[None] | None = None
    _valve: Valve

    def makeConnection(self, transport: Any) -> None:  # noqa: N802 (Twisted's name)
        """Put a valve before the transport, and read small pieces."""
        self._valve = Valve(transport)
        transport.bufferSize = PIECE
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Keep input until the turn of the connection."""
        self._come += data
        if self._turn is None:
            self._wait_for_turn()

    def pauseProducing(self) -> None:
        """Read no more until the protocol above resumes the input."""
        self._valve.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on, unless the connection waits for its turn."""
        self._valve.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the wait for a turn."""
        if self._turn is not None:
            self._turn.cancel()
        super().connectionLost(reason)

    def _wait_for_turn(self) -> None:
        self._valve.hold()
        peer = network(str(getattr(self.transport.getPeer(), "host", "")))
        pace = self.factory.pieces if self._handshakeDone else self.factory.steps
        turn = self._turn = pace.turn(peer)
        turn.addCallback(self._go_on).addErrback(self._failed)

    def _go_on(self, _: None) -> None:
        self._turn = None
        piece, self._come = self._come[:PIECE], self._come[PIECE:]
        if self._come:
            self._wait_for_turn()
        else:
            # Read on before the input is processed: processing may pause the connection again.
            self._valve.let_go()
        super().dataReceived(piece)

    def _failed(self, failure: Failure) -> None:
        """End the connection after a defect.  A cancelled wait for a turn is none."""
        if not failure.check(CancelledError):
            self._log.failure("encrypted input cannot be read", failure)
            self.transport.abortConnection()


@implementer(IOpenSSLServerConnectionCreator)
class _Served:
    """A creator of TLS connections with a replaceable context."""

    def __init__(self, context: SSL.Context) -> None:
        self.context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See :class:`twisted.internet.interfaces.IOpenSSLServerConnectionCreator`."""
        return SSL.Connection(self.context, None)


def _modern(factory: Any) -> SSL.Context:
    context: SSL.Context = factory.getContext()
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_max_proto_version(0)
    context.set_cipher_list(_CIPHERS)
    return context


@attrs.frozen
class ListeningSocket:
    """A listening socket of an endpoint description.

    :ivar path: the path of a unix socket; None for TCP.
    :ivar interface: an address of this machine; empty for all addresses.
    :ivar tls: the context factory of a TLS endpoint; None without TLS.
    :ivar backlog: maximum number of connections that wait to be accepted.
    """

    port: int = 0
    interface: str = ""
    path: str | None = None
    tls: Any = None
    backlog: int = 50

    def certificate(self) -> Certificate | None:
        """Return the certificate for clients; None without TLS."""
        if self.tls is None:
            return None
        shown = SSL.Connection(_modern(self.tls), None).get_certificate()
        return None if shown is None else shown.to_cryptography()


def plan(endpoint: str) -> list[ListeningSocket]:
    """Return the sockets of an endpoint description, without listening.

    Blocks on the disk if the description names a key and certificates.  Sockets that another
    program opened (``systemd:``) are left out.

    :param endpoint: a Twisted endpoint description.
    :raises Exception: if the description is invalid, or if a named file cannot be used.
    """
    planned = _Plan()
    listening = endpoints.parse(planned, endpoint).listen(Factory())
    failures: list[Failure] = []
    listening.addErrback(failures.append)
    if failures:
        failures[0].raiseException()
    for each in planned.listeners:
        if each.tls is not None:
            _modern(each.tls)
    return planned.listeners


class _Plan:
    """A reactor that only records an endpoint's requests to listen."""

    def __init__(self) -> None:
        self.listeners: list[ListeningSocket] = []

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> None:
        self.listeners.append(ListeningSocket(port, interface, backlog=backlog))

    def listenSSL(
        self,
        port: int,
        factory: object,
        contextFactory: object,
        backlog: int = 50,
        interface: str = "",
    ) -> None:
        self.listeners.append(ListeningSocket(port, interface, None, contextFactory, backlog))

    def listenUNIX(self, address: str, factory: object, *_args: object, **_more: object) -> None:
        self.listeners.append(ListeningSocket(path=address))

    def adoptStreamPort(self, *_args: object) -> None:
        pass
