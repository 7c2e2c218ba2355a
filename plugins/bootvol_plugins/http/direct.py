"""Bodies straight from their sockets into the memory that is to have them.

A transport makes an object of every piece that arrives, which the body's receiver has to copy
from: with large images that is most of what the reactor's thread has to do.  Where a body is just
the bytes that follow on the connection (no TLS, no chunks), they can be received to where they
belong.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorFDSet,
    IReadDescriptor,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import Interface, implementer

#: The most bytes that are received at a time: others of the reactor wait meanwhile.
_AT_A_TIME: Final = 1024 * 1024


class IDirectReceiver(Interface):
    """Receives a body by objects, as any protocol does, or into its own memory."""

    def go_direct(connection: socket.socket, length: int) -> None:
        """From now on the body may be received from there.

        :param length: of the whole of it, in bytes.
        """

    def room() -> memoryview:
        """Return the memory that the next bytes belong to; there is some."""

    def arrived(count: int) -> None:
        """So many bytes have been put there."""

    def connectionLost(reason: Failure) -> None:
        """No more bytes will come; the reader is to be paused."""


@implementer(IReadDescriptor, IPushProducer)
class SocketReader:
    """Receives what comes by a connection whose transport is paused, and remains so.

    :param connection: not blocking; a descriptor of the reader's own is made of it.
    """

    def __init__(
        self, reactor: IReactorFDSet, connection: socket.socket, to: IDirectReceiver
    ) -> None:
        self._reactor = reactor
        self._socket = connection.dup()
        self._to = to

    def resumeProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IPushProducer.resumeProducing`."""
        self._reactor.addReader(self)

    def pauseProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IPushProducer.pauseProducing`."""
        self._reactor.removeReader(self)

    def stopProducing(self) -> None:
        """See :meth:`twisted.internet.interfaces.IProducer.stopProducing`."""
        self._reactor.removeReader(self)
        self._socket.close()

    def fileno(self) -> int:
        """See :meth:`twisted.internet.interfaces.IFileDescriptor.fileno`."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See :meth:`twisted.internet.interfaces.ILoggingContext.logPrefix`."""
        return "body"

    def doRead(self) -> None:
        """See :meth:`twisted.internet.interfaces.IReadDescriptor.doRead`."""
        try:
            count = self._socket.recv_into(self._to.room()[:_AT_A_TIME])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._to.connectionLost(Failure(error))
            return
        if count:
            self._to.arrived(count)
        else:
            self._to.connectionLost(Failure(ConnectionDone()))

    def connectionLost(self, reason: Failure) -> None:
        """See :meth:`twisted.internet.interfaces.IFileDescriptor.connectionLost`."""
        self._to.connectionLost(reason)


@implementer(IAgent)
class DirectAgent:
    """An agent that keeps no connections, and whose answers know theirs.

    :param endpoints: make the connections.
    """

    def __init__(self, reactor: Any, endpoints: IAgentEndpointFactory) -> None:
        self._reactor = reactor
        self._endpoints = endpoints

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See :meth:`twisted.web.iweb.IAgent.request`."""
        noting = _Noting(self._endpoints)
        agent = Agent.usingEndpointFactory(self._reactor, noting)
        asked: Deferred[IResponse] = agent.request(method, uri, headers, bodyProducer)
        return asked.addCallback(lambda answer: _Answer(answer, noting.socket))


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _Noting:
    """Notes the socket of the one connection that is made."""

    def __init__(self, endpoints: IAgentEndpointFactory) -> None:
        self._endpoints = endpoints
        self._endpoint: Any = None
        self.socket: socket.socket | None = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See :meth:`twisted.web.iweb.IAgentEndpointFactory.endpointForURI`."""
        self._endpoint = self._endpoints.endpointForURI(uri)
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`."""
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(self._note)

    def _note(self, protocol: Any) -> IProtocol:
        if not ISSLTransport.providedBy(protocol.transport):
            self.socket = protocol.transport.getHandle()
        return protocol  # type: ignore[no-any-return]


class _Answer(proxyForInterface(IResponse, "answer")):  # type: ignore[misc]
    """A response that tells the receiver of its body what that comes by, once it is delivered."""

    def __init__(self, answer: IResponse, connection: socket.socket | None) -> None:
        super().__init__(answer)
        self._socket = connection

    def deliverBody(self, protocol: IProtocol) -> None:
        """See :meth:`twisted.web.iweb.IResponse.deliverBody`."""
        self.answer.deliverBody(protocol)
        length = self.answer.length
        # A body of unknown length is in chunks, or ends with the connection.
        if self._socket is None or not isinstance(length, int):
            return
        if IDirectReceiver.providedBy(protocol):
            IDirectReceiver(protocol).go_direct(self._socket, length)
