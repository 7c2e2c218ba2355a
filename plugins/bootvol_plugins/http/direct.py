"""Direct receiving of bodies from sockets into their final memory.

A transport makes an object of every received piece, and the receiver has to copy the piece.  For
large images this takes most of the reactor thread's time.  If a body is simply the following bytes
of the connection (no TLS, no chunks), the bytes can go directly from the socket into the target
memory.
"""

from __future__ import annotations

import socket
from typing import Any, Final, cast

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

from bootvol.reactors import IReactor
from bootvol_plugins.http.chunks import Chunks
from bootvol_plugins.http.heads import (
    LONGEST,
    HeadTooLong,
    WrongLength,
    as_parsed,
    check_length,
    end_of,
    has_chunks,
    is_interim,
)

#: Maximum number of bytes of one receive call. Other work of the reactor waits meanwhile.
_AT_A_TIME: Final = 1024 * 1024
#: The same limit for transports. With four times Twisted's size, each byte costs a third less.
#: Chunks and heads need a search byte by byte, so their pieces are smaller: tiny chunks, whatever
#: their form, take two or three milliseconds.
_BODY_AT_A_TIME: Final = 256 * 1024
_CHUNKS_AT_A_TIME: Final = 8 * 1024
_HEAD_AT_A_TIME: Final = 4 * 1024


class IDirectReceiver(Interface):
    """A receiver of a body, in pieces like any protocol or directly into its own memory."""

    def go_direct(connection: socket.socket, length: int) -> None:
        """Receive the body from a socket from now on, if possible.

        :param length: length of the whole body in bytes.
        """

    def room() -> memoryview:
        """Return the memory for the next bytes; never empty."""

    def arrived(count: int) -> None:
        """Note the number of bytes received into the memory."""

    def connectionLost(reason: Failure) -> None:
        """Note the end of the bytes, and pause the reader."""


@implementer(IReadDescriptor, IPushProducer)
class SocketReader:
    """A reader of a connection's socket, while the connection's transport stays paused.

    :param connection: a non-blocking socket; the reader duplicates its descriptor.
    :raises OSError: if no descriptor is left.
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
    """A connection pool that does not log every new connection."""

    _factory = _QuietFactory

    @property
    def is_empty(self) -> bool:
        """True if no connection waits for another request."""
        return not any(self._connections.values())


@implementer(IAgent)
class DirectAgent:
    """An agent with a new connection for each request, bounded heads, and direct receiving.

    :param endpoints: the factory of endpoints.
    :param by_proxy: whether the endpoints lead to a proxy, with whole URLs in requests.
    """

    def __init__(
        self, reactor: IReactor, endpoints: IAgentEndpointFactory, *, by_proxy: bool = False
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
        return asked.addCallback(lambda answer: _Answer(answer, noting.noted))


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _Noting:
    """An endpoint and its factory that remember the only connection."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self._noted: BoundedConnection | None = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See :meth:`twisted.web.iweb.IAgentEndpointFactory.endpointForURI`."""
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See :meth:`twisted.internet.interfaces.IStreamClientEndpoint.connect`."""
        connecting = self._endpoint.connect(BoundedConnections(protocolFactory))
        return connecting.addCallback(self._note)

    def _note(self, connection: IProtocol) -> IProtocol:
        self._noted = cast("BoundedConnection", connection)
        return self._noted.wrappedProtocol

    @property
    def noted(self) -> BoundedConnection:
        """The connection, once connected."""
        assert self._noted is not None  # noqa: S101 - an answer has come by the connection
        return self._noted


class BoundedConnection(ProtocolWrapper):
    """A connection that reads the head of an answer in small pieces and of bounded size.

    Twisted limits neither the number of a head's lines nor the length of folded lines.  For many
    lines at once, Twisted's time grows with the square of their length.  So the parser gets the
    lines one by one, after all of them have arrived, in a form that Twisted accepts.

    :ivar socket: the socket for direct receiving; None if the connection is encrypted.
    """

    socket: socket.socket | None = None
    _head: bytearray | None = None
    _before_body = 0
    _fault: Exception | None = None
    _chunks: Chunks | None = None

    def connectionMade(self) -> None:
        """Read the head of the first answer."""
        encrypted = ISSLTransport.providedBy(self.transport)
        outer: Any = self.transport
        self._tcp: Any = outer.transport if encrypted else outer
        # Keep the socket: a closed transport has none any more.
        self.socket = None if encrypted else outer.getHandle()
        self.expect_head()
        super().connectionMade()

    def expect_head(self) -> None:
        """Read the head of an answer next, unless its begin has already come."""
        if self._head is None:
            self._tcp.bufferSize = _HEAD_AT_A_TIME
            self._head, self._before_body = bytearray(), 0

    def dataReceived(self, data: bytes) -> None:
        """Process input, or abort the connection if the head is too long."""
        if self._head is None:
            self._pass_body_on(data)
            return
        self._head += data
        self._before_body += len(data)
        try:
            if self._before_body > LONGEST:
                raise HeadTooLong
            self._pass_heads_on(self._head)
        except (HeadTooLong, WrongLength) as error:
            self._fault = error
            self._head.clear()
            self.abortConnection()

    def _pass_heads_on(self, come: bytearray) -> None:
        """Pass complete heads to the parser, and then the start of the body."""
        while come and (end := end_of(come)) is not None:
            head = bytes(come[:end])
            del come[:end]
            lines = as_parsed(head) if head else []
            if not is_interim(head):
                check_length(lines)
                self._head = None
                self._chunks = Chunks() if has_chunks(lines) else None
                self.body_follows(chunked=self._chunks is not None)
            for line in lines:
                super().dataReceived(line)
            if self._head is None:
                if come:
                    self._pass_body_on(bytes(come))
                return

    def _pass_body_on(self, data: bytes) -> None:
        """Pass a part of the body to the parser."""
        plain = data if self._chunks is None else self._chunks.plain(data)
        if plain:
            super().dataReceived(plain)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report the end of the connection to the parser."""
        if self._fault is not None:
            reason = Failure(self._fault)
        elif self._head:
            # Let the parser report the incomplete answer.
            super().dataReceived(bytes(self._head))
        super().connectionLost(reason)

    def body_follows(self, *, chunked: bool) -> None:
        """Note the end of a head.  A subclass may read larger pieces at once."""

    def body_begins(self, *, chunked: bool) -> None:
        """Read larger pieces from now on."""
        # Chunks may be tiny. A large piece of tiny chunks would block the reactor for long.
        self._tcp.bufferSize = _CHUNKS_AT_A_TIME if chunked else _BODY_AT_A_TIME


class BoundedConnections(WrappingFactory):
    """The factory of wrapped connections."""

    noisy = False
    protocol: type[BoundedConnection] = BoundedConnection


class _Answer(proxyForInterface(IResponse, "answer")):  # type: ignore[misc]
    """A response that offers its connection's socket to the receiver of the body."""

    def __init__(self, answer: IResponse, connection: BoundedConnection) -> None:
        super().__init__(answer)
        self._connection = connection

    def deliverBody(self, protocol: IProtocol) -> None:
        """See :meth:`twisted.web.iweb.IResponse.deliverBody`."""
        # A body of unknown length has chunks, or ends with the connection.
        length = None if self.answer.length is UNKNOWN_LENGTH else int(self.answer.length)
        self._connection.body_begins(chunked=length is None)
        self.answer.deliverBody(protocol)
        connection = self._connection.socket
        if connection is not None and length is not None and IDirectReceiver.providedBy(protocol):
            IDirectReceiver(protocol).go_direct(connection, length)
