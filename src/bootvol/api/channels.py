"""HTTP connections, with limits on the size, the time and the number of requests.

Twisted's own limits stay: 16 KiB for the request line and headers together, 16 KiB for pipelined
bytes behind a request in progress, and one minute for an idle connection.  Additional limits:

* A request has to arrive completely within :data:`WHOLE` seconds after its first byte.
* A request that is too large, or whose end is unclear (:mod:`bootvol.api.framing`), is refused at
  once, in the fault form of its dialect.
* Each turn of the reactor parses one piece of one connection's input, and clients' addresses take
  turns (:mod:`bootvol.api.pieces`).
* A new connection beyond the limit replaces an idle connection: the longest idle one of the address
  with the most idle connections.  If all connections have requests in progress, a few additional
  connections are answered with a refusal.
* All answers that clients have not read yet have a common limit in bytes.
* Pipelined requests (RFC 9112, section 9.3.2) wait as bytes.  The next request is parsed in a later
  turn of the reactor, and only if the client reads its answers.
* A client may send its requests, and close its sending half (RFC 9293, section 3.6).  The
  connection ends after the last answer.  Over TLS, and behind ``haproxy:``,
  the closure ends the connection at once.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from io import BytesIO
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.server import Request, Site
from zope.interface import implementer

from bootvol.api import framing, targets
from bootvol.api.access import AccessLog
from bootvol.api.addresses import network
from bootvol.api.http import ApiRequest
from bootvol.api.pieces import PacedChannel
from bootvol.api.root import ApiRoot
from bootvol.errors import (
    BodyTooLarge,
    BootvolError,
    HeadersTooLarge,
    MalformedRequest,
    TooManyCalls,
)
from bootvol.fair_share import Paced
from bootvol.reactors import refuse_descriptors

#: Largest request body in bytes, the same as Nova's limit (specification, section 2.1).
LARGEST_BODY: Final = 114688
#: Seconds without a byte until a connection is closed.
IDLE: Final = 60
#: Seconds for a request to arrive completely.
WHOLE: Final = 60
#: Seconds for a refused client to read the answer; further input is dropped. (Closing a connection
#: during input resets the connection, and the client loses the answer.)
LINGER: Final = 5
#: Maximum number of bytes of unread answers on all connections together. A single answer may be
#: larger.
MOST_UNREAD: Final = 64 * 1024 * 1024


@implementer(IHalfCloseableProtocol)
class ApiChannel(PacedChannel):
    """An HTTP/1.1 connection."""

    maxHeaders = 100
    site: ApiSite
    #: The transport: TCP, TLS or a unix socket.
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self._refused = False
        self._asked_for = b"/"
        #: The client's address: see :func:`bootvol.api.addresses.network`.
        self.address = ""
        #: The timer for the end of a request, or for the reading of a refusal.
        self._ending: IDelayedCall | None = None
        #: The wait for the turn to parse a pipelined request.
        self._next: Deferred[None] | None = None

    def connectionMade(self) -> None:
        """Register the new connection as idle."""
        super().connectionMade()
        refuse_descriptors(self.transport)
        self._note_address()
        self.site.waiting(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the timers, and forget the connection."""
        self._cancel()
        if self._next is not None:
            self._next.cancel()
        self.site.gone(self)
        super().connectionLost(reason)

    def readConnectionLost(self) -> None:
        """End the connection after the client's last byte, but first answer the whole requests.

        The transport calls this method again whenever the connection reads on after an answer.
        """
        if self._handlingRequest or self.is_behind or self.is_ahead:
            return
        self.setTimeout(None)
        self.loseConnection()
        if self._ending is None:
            # Twisted would wait forever for the client to read the last answer.
            self._ending = self.callLater(IDLE, self.end)

    def writeConnectionLost(self) -> None:
        """Do nothing: the daemon never closes its sending half alone."""

    def dataReceived(self, data: bytes) -> None:
        """Take input, and start the timer of a request at its first byte."""
        if self._ending is None and not self._handlingRequest:
            self._ending = self.callLater(WHOLE, self._ended)
            # A proxy states the address before the first request.
            self._note_address()
            if framing.is_handshake(data):
                self.refuse(MalformedRequest("The client speaks TLS, and this endpoint HTTP"))
        if not self._refused:
            super().dataReceived(data)

    def _note_address(self) -> None:
        self.address = network(str(getattr(self.transport.getPeer(), "host", "")))

    def lineReceived(self, line: bytes) -> None:
        """Process a line of the request's head."""
        if self._refused:
            return
        if not self._receivedHeaderSize:
            self._asked_for, _ = targets.split((line.split(b" ")[1:2] or [b"/"])[0])
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self.refuse(HeadersTooLarge())
        elif framing.is_folded(line):
            self.refuse(MalformedRequest())
        elif (fault := targets.fault_of(self._asked_for)) is not None:
            self.refuse(fault)
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that is too long."""
        self.refuse(HeadersTooLarge())

    def headerReceived(self, line: bytes) -> bool:
        """Process a header; refuse too many headers, and unclear lengths of bodies."""
        if self._receivedHeaderCount >= self.maxHeaders:
            self.refuse(HeadersTooLarge())
        if (fault := framing.fault_of(line, self._version)) is not None:
            self.refuse(fault)
        if self._refused or not super().headerReceived(line):
            return False
        if framing.states_chunks(line):
            self._transferDecoder = framing.StrictChunks(
                self.requests[-1].handleContentChunk, self._finishRequestBody
            )
        return True

    def allHeadersReceived(self) -> None:
        """Refuse a body that is too large before any of the body is read."""
        if not self._refused and self.length is not None and self.length > LARGEST_BODY:
            self.refuse(BodyTooLarge())
        if not self._refused:
            super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        """Process a part of the body, or bytes behind the body."""
        if not self._refused:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        """Process a complete request, now without a time limit, or refuse one beyond the limit."""
        if not self._refused and self.site.is_full:
            self.refuse(TooManyCalls())
        if not self._refused:
            self._cancel()
            self.site.working(self)
            super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        """Continue with the next request; if pipelined, in a later turn of the reactor.

        Twisted would answer all pipelined requests in one turn, even if the client reads nothing.
        """
        self.site.waiting(self)
        if self._waitingForTransport:
            self.site.unread(self, request.sentLength)
        ahead = any(self._dataBuffer) or bool(self._buffer)
        # While `paused`, LineReceiver buffers input and parses nothing.
        self.paused = bool(self.persistent) and (ahead or self._waitingForTransport)
        if not self.persistent and self._ending is None:
            # Twisted would wait forever for the client to read the last answer.
            self._ending = self.callLater(IDLE, self.end)
        super().requestDone(request)
        if self.paused:
            self._wait()

    def resumeProducing(self) -> None:
        """Continue after the client has read most of the written bytes."""
        super().resumeProducing()
        self.site.read(self)
        if self.paused:
            self._wait()

    @property
    def is_ahead(self) -> bool:
        """True while a pipelined request waits for its turn."""
        return self._next is not None

    def _wait(self) -> None:
        """Stop reading until the turn of the connection, and until the client reads."""
        self._networkProducer.pauseProducing()
        if self._next is None and not self._waitingForTransport:
            turn = self.turn(self._go_on)
            # If the turn has begun already, the next wait may have begun, too.
            if not turn.called:
                self._next = turn

    def _go_on(self) -> None:
        self._next = None
        if self._waitingForTransport:
            return
        self.paused = False
        self._networkProducer.resumeProducing()
        self.parse_kept()

    def timeoutConnection(self) -> None:
        """End the connection, once: sending the rest may take some seconds."""
        self._cancel()
        self.setTimeout(None)
        super().timeoutConnection()

    def refuse(self, error: BootvolError) -> None:
        """Answer with an error without reading the request, and end the connection."""
        if self._refused:
            return
        self._refused = True
        self._cancel()
        self._ending = self.callLater(LINGER, self._ended)
        self.setTimeout(None)
        self.site.access.refused(self.transport.getPeer(), error)
        self.transport.write(self.site.resource.refusal(self._asked_for, error))

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Refuse bytes that are not HTTP/1.1, with a body; Twisted's own answer has none."""
        self.refuse(MalformedRequest())

    def end(self) -> None:
        """End the connection at once."""
        self.transport.abortConnection()

    def _ended(self) -> None:
        self._ending = None
        if self._refused:
            self.end()
        else:
            self.timeoutConnection()

    def _cancel(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None


class BoundedRequest(ApiRequest):
    """A request that buffers at most :data:`LARGEST_BODY` bytes of its body."""

    channel: ApiChannel
    content: Any

    def handleContentChunk(self, data: bytes) -> None:
        """Buffer a part of the body, or refuse a body that is too large."""
        if self.content.tell() + len(data) > LARGEST_BODY:
            self.channel.refuse(BodyTooLarge())
        else:
            super().handleContentChunk(data)


class ApiSite(Site):
    """The factory of the API's connections.

    :param connections: maximum number of connections at once.
    :param spare: maximum number of additional connections while all connections have requests in
        progress; never more than ``connections``.  Requests on additional connections are refused.
    :ivar pace: paces the parsing of input, in turns of clients' addresses.
    """

    # Twisted's own would choose between HTTP/1.1 and 2.
    protocol = ApiChannel  # type: ignore[assignment]

    def __init__(self, root: ApiRoot, reactor: IReactorTime, connections: int, spare: int) -> None:
        # No call takes a form, so forms are not parsed.
        super().__init__(
            root,
            requestFactory=BoundedRequest,
            timeout=IDLE,
            parsePOSTFormSubmission=False,
            reactor=reactor,
        )
        self.access = AccessLog(reactor)
        self.pace = Paced(reactor)
        self._most = connections
        self._spare = min(spare, connections)
        self._working: set[ApiChannel] = set()
        #: Idle connections (without a request in progress), longest idle first.
        self._waiting: OrderedDict[ApiChannel, None] = OrderedDict()
        #: Bytes of the last answer of each connection whose client has not read it, oldest first.
        self._unread: dict[ApiChannel, int] = {}

    def getContentFile(self, _length: int | None) -> BytesIO:  # noqa: N802 (Twisted's name)
        """Return a buffer for a body: Twisted's own is a file, one more for each connection."""
        return BytesIO()

    def log(self, request: Any) -> None:
        """Write a line of the access log."""
        self.access.answered(request)

    def stopFactory(self) -> None:
        """End the access log's period, and stop."""
        self.access.stop()
        super().stopFactory()

    def acceptableProtocols(self) -> list[bytes]:
        """Return HTTP/1.1 as the only protocol for TLS: these limits do not apply to HTTP/2."""
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a new connection; end idle connections beyond the limit."""
        while len(self._waiting) >= max(self._most - self.at_work, self._spare):
            self._make_room()
        return super().buildProtocol(addr)

    def _make_room(self) -> None:
        """End the longest idle connection of the address with the most idle connections."""
        longest = _greediest(dict.fromkeys(self._waiting, 1))
        del self._waiting[longest]
        longest.end()

    @property
    def at_work(self) -> int:
        """The number of connections with a request in progress."""
        return len(self._working)

    @property
    def is_full(self) -> bool:
        """True if the number of requests in progress has reached the limit."""
        return self.at_work >= self._most

    def waiting(self, channel: ApiChannel) -> None:
        """Count a connection as idle."""
        self._working.discard(channel)
        self._waiting[channel] = None

    def working(self, channel: ApiChannel) -> None:
        """Count a connection as one with a request in progress."""
        self._waiting.pop(channel, None)
        self._working.add(channel)

    def gone(self, channel: ApiChannel) -> None:
        """Forget a closed connection."""
        self._waiting.pop(channel, None)
        self._working.discard(channel)
        self.read(channel)

    def unread(self, channel: ApiChannel, length: int) -> None:
        """Note an unread answer; close connections while unread answers exceed the limit.

        :param length: length of the answer in bytes.
        """
        self._unread[channel] = length
        while len(self._unread) > 1 and sum(self._unread.values()) > MOST_UNREAD:
            dropped = _greediest(self._unread)
            self.read(dropped)
            dropped.end()

    def read(self, channel: ApiChannel) -> None:
        """Note that a client has read most of the last answer."""
        self._unread.pop(channel, None)


def _greediest(taken: dict[ApiChannel, int]) -> ApiChannel:
    """Return the first connection of the address with the largest sum.

    :param taken: the amount of each connection; not empty.
    """
    addresses: Counter[str] = Counter()
    for channel, much in taken.items():
        addresses[channel.address] += much
    most = max(addresses.values())
    return next(each for each in taken if addresses[each.address] == most)
