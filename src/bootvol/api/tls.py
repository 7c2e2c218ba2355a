"""The API's TLS: versions 1.2 and 1.3, with forward-secret ciphers.

A handshake takes one or two milliseconds of the reactor.  So each turn of the reactor makes one
step of one handshake, and clients' addresses take turns (:class:`bootvol.fair_share.Paced`).

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
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from bootvol import endpoints
from bootvol.api.addresses import network
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
    """The factory of encrypted connections; their handshakes take turns.

    :param served: makes the TLS connections.
    :param factory: makes the protocols above TLS.
    :param clock: the reactor.
    :ivar steps: paces the steps of handshakes, in turns of clients' addresses.
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


class _Encrypted(TLSMemoryBIOProtocol):
    """A connection that waits for a turn before each step of its handshake."""

    factory: Encrypting
    #: The TCP connection.
    transport: Any
    _turn: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        """Process input; during the handshake, wait for a turn first."""
        if self._handshakeDone:
            super().dataReceived(data)
            return
        self.transport.pauseProducing()
        peer = network(str(getattr(self.transport.getPeer(), "host", "")))
        self._turn = self.factory.steps.turn(peer)
        self._turn.addCallbacks(self._go_on, lambda left: left.trap(CancelledError), (data,))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the wait for a turn."""
        if self._turn is not None:
            self._turn.cancel()
        super().connectionLost(reason)

    def _go_on(self, _: None, data: bytes) -> None:
        # Resume before the input is processed, because processing may pause the connection again.
        self.transport.resumeProducing()
        super().dataReceived(data)


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
class Listener:
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


def plan(endpoint: str) -> list[Listener]:
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
        self.listeners: list[Listener] = []

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> None:
        self.listeners.append(Listener(port, interface, backlog=backlog))

    def listenSSL(
        self,
        port: int,
        factory: object,
        contextFactory: object,
        backlog: int = 50,
        interface: str = "",
    ) -> None:
        self.listeners.append(Listener(port, interface, None, contextFactory, backlog))

    def listenUNIX(self, address: str, factory: object, *_args: object, **_more: object) -> None:
        self.listeners.append(Listener(path=address))

    def adoptStreamPort(self, *_args: object) -> None:
        pass
