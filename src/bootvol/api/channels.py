"""HTTP connections, with limits on the size, the time and the number of requests.

Twisted's own limits stay: 16 KiB for the request line and headers together, 16 KiB for pipelined
bytes behind a request in progress, and one minute for an idle connection.  Additional limits:

* A request has to arrive completely within :data:`WHOLE` seconds after its first byte.
* Bodies of streamed operations have limits of their own (:mod:`bootvol.api.uploads`).
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

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from bootvol.api import framing, targets
from bootvol.api.addresses import network
from bootvol.api.uploading import UploadingChannel
from bootvol.errors import (
    BodyIncomplete,
    BodyTooLarge,
    BootvolError,
    HeadersTooLarge,
    MalformedRequest,
    TooManyCalls,
)
from bootvol.reactors import refuse_descriptors

if TYPE_CHECKING:
    from bootvol.api.sites import ApiSite

#: Largest request body in bytes, the same as Nova's limit (specification, section 2.1).
LARGEST_BODY: Final = 114688
#: Seconds without a byte until a connection is closed.
IDLE: Final = 60
#: Seconds for a request to arrive completely.
WHOLE: Final = 60
#: Seconds for a refused client to read the answer; further input is dropped. (Closing a connection
#: during input resets the connection, and the client loses the answer.)
LINGER: Final = 5


@implementer(IHalfCloseableProtocol)
class ApiChannel(UploadingChannel):
    """An HTTP/1.1 connection."""

    maxHeaders = 100
    site: ApiSite

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
        if self.is_uploading:
            self.refuse(BodyIncomplete())
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
        if self._ending is None and not self._handlingRequest and self.upload is None:
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
        """Stream a body, or refuse one that is too large before any of the body is read."""
        if not self._refused and self.site.resource.streams(self._command, self._asked_for):
            self._accept(self.begin_upload)
            if not self._refused:
                super().allHeadersReceived()
                self.end_after_upload()
            return
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
        if self.upload is None:
            self._accept(super().allContentReceived)
        elif not self._refused:
            super().allContentReceived()

    def _accept(self, process: Callable[[], None]) -> None:
        """Process a request unless too many requests are in progress."""
        if not self._refused and self.site.is_full:
            self.refuse(TooManyCalls())
        if not self._refused:
            self._cancel()
            self.site.working(self)
            process()

    def requestDone(self, request: Request) -> None:
        """Continue with the next request; if pipelined, in a later turn of the reactor.

        Twisted would answer all pipelined requests in one turn, even if the client reads nothing.
        """
        self.site.waiting(self)
        if self.is_uploading:
            self._linger()
            self.drop_upload(request)
            return
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
        if self.upload is not None:
            # The handler answers.
            self.upload.fail(error)
            return
        self._linger()
        self.site.access.refused(self.transport.getPeer(), error)
        self.transport.write(self.site.resource.refusal(self._asked_for, error))

    def _linger(self) -> None:
        """Drop further input, and end the connection when the client has read the answer."""
        self._refused = True
        self._cancel()
        self._ending = self.callLater(LINGER, self._ended)
        self.setTimeout(None)

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
