"""TLS as the API serves it: versions 1.2 and 1.3, with ciphers that keep past traffic secret.

A handshake takes a millisecond or two of the reactor.  So one step of one handshake is made in a
turn of the reactor, and clients' addresses take turns (:class:`bootvol.turns.Paced`).

Twisted's own choice for ``ssl:`` endpoints allows older ciphers, and leaves the version to the
author of the endpoint.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
from cryptography.x509 import Certificate
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from bootvol import endpoints
from bootvol.api.addresses import network
from bootvol.turns import Paced

#: For TLS 1.2; all ciphers of 1.3 are fine.
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"


class ModernTls:
    """A reactor whose ``ssl:`` endpoint serves modern TLS only.

    :param reactor: does everything else.
    :param endpoint: the Twisted endpoint description that listens through this reactor.
    """

    def __init__(self, reactor: Any, endpoint: str) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._served: _Served | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, **more: Any) -> Any:
        """See :meth:`twisted.internet.interfaces.IReactorSSL.listenSSL`."""
        self._served = _Served(_modern(contextFactory))
        encrypting = Encrypting(self._served, factory, self._reactor)
        return self._reactor.listenTCP(port, encrypting, **more)

    def reload(self) -> bool:
        """Serve new connections with the key and certificates as the files have them now.

        Blocks on the disk, for a moment.

        :returns: False if the endpoint serves no TLS.
        :raises Exception: if the files cannot be read or do not fit; the old ones stay.
        """
        if self._served is None:
            return False
        (wanted,) = plan(self._endpoint)
        self._served.context = _modern(wanted.tls)
        return True


class Encrypting(TLSMemoryBIOFactory):
    """Makes encrypted connections, whose handshakes take turns.

    :param served: makes the TLS connections.
    :param factory: makes what they carry.
    :param clock: the reactor.
    :ivar steps: of handshakes, in turns of clients' addresses.
    """

    def __init__(self, served: Any, factory: Any, clock: IReactorTime) -> None:
        super().__init__(served, False, factory)
        self.protocol = _Encrypted
        self.steps = Paced(clock)


class _Encrypted(TLSMemoryBIOProtocol):
    """A connection that waits for a turn before each step of its handshake."""

    factory: Encrypting
    #: The connection by TCP.
    transport: Any
    _turn: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        """Take what has come: of a handshake, in its turn."""
        if self._handshakeDone:
            super().dataReceived(data)
            return
        self.transport.pauseProducing()
        peer = network(str(getattr(self.transport.getPeer(), "host", "")))
        self._turn = self.factory.steps.turn(peer)
        self._turn.addCallbacks(self._go_on, lambda left: left.trap(CancelledError), (data,))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the line."""
        if self._turn is not None:
            self._turn.cancel()
        super().connectionLost(reason)

    def _go_on(self, _: None, data: bytes) -> None:
        # Before what has come is looked at: that may pause the connection again.
        self.transport.resumeProducing()
        super().dataReceived(data)


@implementer(IOpenSSLServerConnectionCreator)
class _Served:
    """Makes TLS connections from a context that may be replaced."""

    def __init__(self, context: SSL.Context) -> None:
        self.context = context

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
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
    """One socket that an endpoint description asks for.

    :ivar path: the path of a unix socket; None for TCP.
    :ivar interface: an address of this machine; empty for all.
    :ivar tls: the context factory of a TLS endpoint; None without TLS.
    :ivar backlog: connections that may wait to be accepted.
    """

    port: int = 0
    interface: str = ""
    path: str | None = None
    tls: Any = None
    backlog: int = 50

    def certificate(self) -> Certificate | None:
        """Return the certificate that clients are shown; None without TLS."""
        if self.tls is None:
            return None
        shown = SSL.Connection(_modern(self.tls), None).get_certificate()
        return None if shown is None else shown.to_cryptography()


def plan(endpoint: str) -> list[Listener]:
    """Return the sockets that an endpoint description asks for, without listening.

    Blocks on the disk where the description names a key and certificates.  Sockets that another
    program opened (``systemd:``) are left out.

    :param endpoint: a Twisted endpoint description.
    :raises Exception: if the description is wrong, or a file that it names.
    """
    planned = _Plan()
    listening = endpoints.parse(planned, endpoint).listen(Factory())
    failures: list[Any] = []
    listening.addErrback(failures.append)
    if failures:
        failures[0].raiseException()
    for each in planned.listeners:
        if each.tls is not None:
            _modern(each.tls)
    return planned.listeners


class _Plan:
    """Stands in for the reactor under an endpoint; only notes what the endpoint asks for."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> None:
        self.listeners.append(Listener(port, interface, backlog=backlog))

    def listenSSL(
        self,
        port: int,
        factory: Any,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
    ) -> None:
        self.listeners.append(Listener(port, interface, None, contextFactory, backlog))

    def listenUNIX(self, address: str, factory: Any, *_args: Any, **_more: Any) -> None:
        self.listeners.append(Listener(path=address))

    def adoptStreamPort(self, *_args: Any) -> None:
        pass
