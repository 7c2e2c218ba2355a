"""TLS as the API serves it: versions 1.2 and 1.3, with ciphers that keep past traffic secret.

Twisted's own choice for ``ssl:`` endpoints allows older ciphers, and leaves the version to the
author of the endpoint.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
from cryptography.x509 import Certificate
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from zope.interface import implementer

from bootvol import endpoints

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
        return self._reactor.listenSSL(port, factory, self._served, **more)

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
