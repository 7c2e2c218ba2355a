"""Connections: how much of a request is taken, how long it may take, and how many there may be.

What Twisted bounds stays bounded: lines and headers to 16 KiB together, what follows on a request
that is being answered to as much, a connection on which nothing happens to a minute.  Beyond that:

* a request has to have come whole within :data:`WHOLE` seconds of its first byte;
* what is too large is answered at once, in the fault form of what was asked, and not awaited;
* a connection too many takes the place of the one that is without a request the longest, of those
  of the address with the most; where all others are being answered, a few more are told that;
* answers that clients have not read are bounded together;
* requests that a client sends ahead (pipelining, RFC 9112, section 9.3.2) wait as bytes: the next
  one is parsed in a later turn of the reactor, and only for a client that reads its answers.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from io import BytesIO
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from bootvol.api.access import AccessLog
from bootvol.api.addresses import network
from bootvol.api.http import ApiRequest, ApiRoot
from bootvol.errors import (
    BodyTooLarge,
    BootvolError,
    HeadersTooLarge,
    MalformedRequest,
    TooManyCalls,
)

#: The largest body that is read, in bytes; Nova's own limit (reference, section 2.1).
LARGEST_BODY: Final = 114688
#: Seconds without a byte after which a connection is closed.
IDLE: Final = 60
#: Seconds that a request may take to come.
WHOLE: Final = 60
#: Seconds that a client who is refused may take to read why: what it sends meanwhile is dropped.
#: (A connection that is closed while something comes in is reset, and the answer lost.)
LINGER: Final = 5
#: The most bytes of answers that clients have not read yet, of all connections together; one answer
#: alone may be larger.
MOST_UNREAD: Final = 64 * 1024 * 1024
#: The most digits of a body's length that are read.
_DIGITS: Final = 20


class ApiChannel(HTTPChannel):
    """One connection of HTTP/1.1."""

    maxHeaders = 100
    site: ApiSite
    #: The connection, by TCP, TLS or a unix socket.
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self._refused = False
        self._asked_for = b"/"
        #: The client's address: see :func:`bootvol.api.addresses.network`.
        self.address = ""
        #: Calls when a request must have come, or a refusal must have been read.
        self._ending: Any = None
        #: Calls when the next request may be parsed.
        self._next: Any = None

    def connectionMade(self) -> None:
        """Take the connection, or the place of another."""
        super().connectionMade()
        self.address = network(str(getattr(self.transport.getPeer(), "host", "")))
        self.site.waiting(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the connection."""
        self._cancel()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self.site.gone(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """Take what has come; a request begins with its first byte."""
        if self._refused:
            return
        if self._ending is None and not self._handlingRequest:
            self._ending = self.callLater(WHOLE, self._ended)
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """Take a line of the request's head."""
        if self._refused:
            return
        if not self._receivedHeaderSize:
            self._asked_for = (line.split(b" ")[1:2] or [b"/"])[0]
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self.refuse(HeadersTooLarge())
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that has no end."""
        self.refuse(HeadersTooLarge())

    def headerReceived(self, line: bytes) -> bool:
        """Take a header."""
        if self._receivedHeaderCount >= self.maxHeaders:
            self.refuse(HeadersTooLarge())
        name, _, value = line.partition(b":")
        # Python refuses to read a number of more than 4,300 digits.
        if name.lower() == b"content-length" and len(value.strip()) > _DIGITS:
            self.refuse(BodyTooLarge())
        return not self._refused and bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        """The head has come: refuse a body that is too large before any of it is read."""
        if not self._refused and self.length is not None and self.length > LARGEST_BODY:
            self.refuse(BodyTooLarge())
        if not self._refused:
            super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        """Take a piece of the body, or of what follows."""
        if not self._refused:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        """The request has come: it may take its time by now."""
        if not self._refused and self.site.is_full:
            self.refuse(TooManyCalls())
        if not self._refused:
            self._cancel()
            self.site.working(self)
            super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        """Go on to the next request: in a later turn of the reactor, if the client sent one ahead.

        Twisted would answer all of them in one turn, whether the client reads or not.
        """
        self.site.waiting(self)
        if self._waitingForTransport:
            self.site.unread(self, request.sentLength)
        ahead = any(self._dataBuffer) or bool(self._buffer)
        # While `paused`, LineReceiver keeps what comes and parses nothing.
        self.paused = bool(self.persistent) and (ahead or self._waitingForTransport)
        if not self.persistent and self._ending is None:
            # Twisted would wait for ever until the client has read the last answer.
            self._ending = self.callLater(IDLE, self.end)
        super().requestDone(request)
        if self.paused:
            self._wait()

    def resumeProducing(self) -> None:
        """Go on: the client has read most of what was written."""
        super().resumeProducing()
        self.site.read(self)
        if self.paused:
            self._wait()

    @property
    def is_ahead(self) -> bool:
        """Whether a request that the client sent ahead waits for its turn."""
        return self._next is not None

    def _wait(self) -> None:
        """Read nothing until a later turn of the reactor, nor while the client does not read."""
        self._networkProducer.pauseProducing()
        if self._next is None and not self._waitingForTransport:
            self._next = self.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._next = None
        if self._waitingForTransport:
            return
        self.paused = False
        self._networkProducer.resumeProducing()
        if self._buffer:
            self.dataReceived(b"")

    def timeoutConnection(self) -> None:
        """End the connection, once: what it has to say may take some seconds."""
        self._cancel()
        self.setTimeout(None)
        super().timeoutConnection()

    def refuse(self, error: BootvolError) -> None:
        """Answer that the request is not even read, and end the connection."""
        if self._refused:
            return
        self._refused = True
        self._cancel()
        self._ending = self.callLater(LINGER, self._ended)
        self.setTimeout(None)
        self.site.access.refused(self.transport.getPeer(), error)
        self.transport.write(self.site.resource.refusal(self._asked_for, error))

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Refuse what is not HTTP/1.1; Twisted's own answer has no body."""
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
    """A request whose body is never held beyond :data:`LARGEST_BODY`."""

    channel: ApiChannel
    content: Any

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body has come: keep it, unless there is too much."""
        if self.content.tell() + len(data) > LARGEST_BODY:
            self.channel.refuse(BodyTooLarge())
        else:
            super().handleContentChunk(data)


class ApiSite(Site):
    """Makes the API's connections.

    :param connections: how many there may be at once.
    :param spare: how many more there may be while all of these are being answered; they are told
        that.  They are at most as many again.
    """

    # Twisted's own would choose between HTTP/1.1 and 2.
    protocol = ApiChannel  # type: ignore[assignment]

    def __init__(self, root: ApiRoot, reactor: IReactorTime, connections: int, spare: int) -> None:
        # No call takes a form, so none is parsed.
        super().__init__(
            root,
            requestFactory=BoundedRequest,
            timeout=IDLE,
            parsePOSTFormSubmission=False,
            reactor=reactor,
        )
        self.access = AccessLog(reactor)
        self._most = connections
        self._spare = min(spare, connections)
        self._working: set[ApiChannel] = set()
        #: Without a request that is being answered; the longest so first.
        self._waiting: OrderedDict[ApiChannel, None] = OrderedDict()
        #: The bytes of the last answer, where a client has not read that; the oldest first.
        self._unread: dict[ApiChannel, int] = {}

    def getContentFile(self, _length: int | None) -> BytesIO:  # noqa: N802 (Twisted's name)
        """Return what keeps a body: Twisted's own is a file, one more for each connection."""
        return BytesIO()

    def log(self, request: Any) -> None:
        """Write a line of the access log."""
        self.access.answered(request)

    def stopFactory(self) -> None:
        """Listen no more."""
        self.access.stop()
        super().stopFactory()

    def acceptableProtocols(self) -> list[bytes]:
        """Return what TLS offers: HTTP/2 is not bounded by any of this."""
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a new connection, in the place of one that waits if there are too many."""
        while len(self._waiting) >= max(self._most - self.at_work, self._spare):
            self._make_room()
        return super().buildProtocol(addr)

    def _make_room(self) -> None:
        """End the connection that waits the longest, of those of the address with the most."""
        longest = _greediest(dict.fromkeys(self._waiting, 1))
        del self._waiting[longest]
        longest.end()

    @property
    def at_work(self) -> int:
        """How many connections have a request that is being answered."""
        return len(self._working)

    @property
    def is_full(self) -> bool:
        """Whether as many requests are being answered as may be."""
        return self.at_work >= self._most

    def waiting(self, channel: ApiChannel) -> None:
        """A connection waits for a request."""
        self._working.discard(channel)
        self._waiting[channel] = None

    def working(self, channel: ApiChannel) -> None:
        """A connection's request is being answered."""
        self._waiting.pop(channel, None)
        self._working.add(channel)

    def gone(self, channel: ApiChannel) -> None:
        """A connection has ended."""
        self._waiting.pop(channel, None)
        self._working.discard(channel)
        self.read(channel)

    def unread(self, channel: ApiChannel, length: int) -> None:
        """A client has not read an answer yet; where there are too many of those, one is dropped.

        :param length: of the answer, in bytes.
        """
        self._unread[channel] = length
        while len(self._unread) > 1 and sum(self._unread.values()) > MOST_UNREAD:
            dropped = _greediest(self._unread)
            self.read(dropped)
            dropped.end()

    def read(self, channel: ApiChannel) -> None:
        """A client has read most of the last answer."""
        self._unread.pop(channel, None)


def _greediest(taken: dict[ApiChannel, int]) -> ApiChannel:
    """Return the first connection of the address that has taken the most.

    :param taken: how much each connection has taken; not empty.
    """
    addresses: Counter[str] = Counter()
    for channel, much in taken.items():
        addresses[channel.address] += much
    most = max(addresses.values())
    return next(each for each in taken if addresses[each.address] == most)
