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
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    ProxyAgent,
    _HTTP11ClientFactory,  # it has no public name
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    UNKNOWN_LENGTH,
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IResponse,
)
from zope.interface import Interface, implementer

from bootvol.errors import SourceFailed
from bootvol_plugins.http.chunks import Chunks
from bootvol_plugins.http.heads import (
    LONGEST,
    HeadTooLong,
    as_parsed,
    end_of,
    has_chunks,
    is_interim,
)

#: The most bytes that are received at a time: others of the reactor wait meanwhile.
_AT_A_TIME: Final = 1024 * 1024
#: The same by a transport: of four times what Twisted takes each costs a third less.  What has to
#: be looked through byte by byte is taken in smaller pieces.
_BODY_AT_A_TIME: Final = 256 * 1024
_CHUNKS_AT_A_TIME: Final = 16 * 1024
_HEAD_AT_A_TIME: Final = 4 * 1024


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
    :raises OSError: there is no descriptor left.
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


class _QuietFactory(_HTTP11ClientFactory):
    noisy = False


class QuietPool(HTTPConnectionPool):
    """Connections for an agent; the log does not tell of each one that is made."""

    _factory = _QuietFactory


@implementer(IAgent)
class DirectAgent:
    """An agent that keeps no connections, reads no endless heads, and whose answers know what they
    come by.

    :param endpoints: make the connections.
    :param by_proxy: they lead to a proxy, which is told whole URLs.
    """

    def __init__(
        self, reactor: Any, endpoints: IAgentEndpointFactory, *, by_proxy: bool = False
    ) -> None:
        self._reactor = reactor
        self._endpoints = endpoints
        self._by_proxy = by_proxy

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See :meth:`twisted.web.iweb.IAgent.request`."""
        noting = _Noting(self._endpoints.endpointForURI(URI.fromBytes(uri)))
        pool = QuietPool(self._reactor, persistent=False)
        agent: IAgent = (
            ProxyAgent(noting, self._reactor, pool)
            if self._by_proxy
            else Agent.usingEndpointFactory(self._reactor, noting, pool)
        )
        asked: Deferred[IResponse] = agent.request(method, uri, headers, bodyProducer)
        return asked.addCallback(lambda answer: _Answer(answer, noting.connection))


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _Noting:
    """Notes the one connection that is made."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint: Any = endpoint
        self.connection: Any = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See :meth:`twisted.web.iweb.IAgentEndpointFactory.endpointForURI`."""
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`."""
        connecting: Deferred[Any] = self._endpoint.connect(_Connections(protocolFactory))
        return connecting.addCallback(self._note)

    def _note(self, connection: _Connection) -> IProtocol:
        self.connection = connection
        return connection.wrappedProtocol


class _Connection(ProtocolWrapper):
    """What an answer comes by: the head of it in small pieces, and only so much.

    Twisted bounds neither how many lines a head has, nor how long one is that is continued in
    others; and what it does with many lines that come at once takes the square of their length.
    So it is given the lines one by one, when all of them have come, in a form that it takes.

    :ivar socket: what can be received from directly: nothing if that is encrypted.
    """

    socket: socket.socket | None = None
    _head: bytearray | None = None
    _before_body = 0
    _too_long = False
    _chunks: Chunks | None = None

    def connectionMade(self) -> None:
        """The connection is there."""
        encrypted = ISSLTransport.providedBy(self.transport)
        outer: Any = self.transport
        self._tcp: Any = outer.transport if encrypted else outer
        self._tcp.bufferSize = _HEAD_AT_A_TIME
        # The transport itself has none any more when it has been closed.
        self.socket = None if encrypted else outer.getHandle()
        self._head = bytearray()
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Something has come."""
        if self._head is None:
            self._pass_body_on(data)
            return
        self._head += data
        self._before_body += len(data)
        try:
            if self._before_body > LONGEST:
                raise HeadTooLong
            self._pass_heads_on(self._head)
        except HeadTooLong:
            self._too_long = True
            self._head.clear()
            self.abortConnection()

    def _pass_heads_on(self, come: bytearray) -> None:
        """Give the parser each head that has come, and what follows the last one."""
        while come and (end := end_of(come)) is not None:
            head = bytes(come[:end])
            del come[:end]
            lines = as_parsed(head) if head else []
            if not is_interim(head):
                self._head = None
                self._chunks = Chunks() if has_chunks(lines) else None
            for line in lines:
                super().dataReceived(line)
            if self._head is None:
                if come:
                    self._pass_body_on(bytes(come))
                return

    def _pass_body_on(self, data: bytes) -> None:
        """Give the parser what follows a head."""
        plain = data if self._chunks is None else self._chunks.plain(data)
        if plain:
            super().dataReceived(plain)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection has ended."""
        if self._too_long:
            reason = Failure(SourceFailed("the head of its answer is too long"))
        elif self._head:
            # It is to say that this is no whole answer.
            super().dataReceived(bytes(self._head))
        super().connectionLost(reason)

    def body_begins(self, length: int | None) -> None:
        """From now on larger pieces are taken."""
        # Chunks may be tiny, and then a large piece would keep the reactor for long.
        self._tcp.bufferSize = _CHUNKS_AT_A_TIME if length is None else _BODY_AT_A_TIME


class _Connections(WrappingFactory):
    """Makes connections."""

    noisy = False
    protocol = _Connection


class _Answer(proxyForInterface(IResponse, "answer")):  # type: ignore[misc]
    """A response that tells the receiver of its body what that comes by, once it is delivered."""

    def __init__(self, answer: IResponse, connection: _Connection) -> None:
        super().__init__(answer)
        self._connection = connection

    def deliverBody(self, protocol: IProtocol) -> None:
        """See :meth:`twisted.web.iweb.IResponse.deliverBody`."""
        # A body of unknown length is in chunks, or ends with the connection.
        length = None if self.answer.length is UNKNOWN_LENGTH else int(self.answer.length)
        self._connection.body_begins(length)
        self.answer.deliverBody(protocol)
        connection = self._connection.socket
        if connection is not None and length is not None and IDirectReceiver.providedBy(protocol):
            IDirectReceiver(protocol).go_direct(connection, length)
