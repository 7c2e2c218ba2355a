"""The body of a response as a pulled stream: the reader's demand controls the connection."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorFDSet, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse
from zope.interface import implementer

from bootvol.errors import ImageTruncated, ImportFailed, SourceFailed
from bootvol.interfaces import IOpenEndedStream, IPrefixedStream
from bootvol.reactors import IReactor
from bootvol_plugins.http.direct import IDirectReceiver, SocketReader
from bootvol_plugins.http.ranges import length_of

#: Time limit for each requested piece (a few MiB), in multiples of the longest silence. Without the
#: limit, a server that sends a byte now and then would hold an import's place forever.
_SILENCES: Final = 10


@implementer(IOpenEndedStream, IPrefixedStream)
class BodyStream:
    """The body of a response.

    :param response: an unbuffered response with its body not yet delivered.
    :param reactor: the clock, and the watcher of sockets.
    :param stall: seconds without a requested byte until the stream fails.  The stream also fails if
        a requested piece takes ten times as long.
    :param size: size of the whole image in bytes, or None.
    :param offset: offset of the stream in the image.
    :param validator: validator of the image, or None.
    :param skip: bytes to skip at the start of the body, because they lie before ``offset``.
    """

    def __init__(
        self,
        response: IResponse,
        reactor: IReactor,
        stall: float,
        size: int | None,
        offset: int,
        validator: str | None,
        skip: int = 0,
    ) -> None:
        self.size = size
        self.offset = offset
        self.validator = validator
        self.prefix = self._skip = skip
        self._at = offset
        self._body = Body(reactor, stall, length_of(response))
        response.deliverBody(self._body)

    @property
    def proven(self) -> bool:
        """See :class:`bootvol.interfaces.IOpenEndedStream`."""
        return not self._body.open_ended or self._at == self.size

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        while self._skip:
            most = min(self._skip, len(target))
            try:
                count = await self._body.fill(target[:most])
            except ImportFailed as error:
                error.came = 0
                raise
            self._skip -= count
            if count < most:
                raise ImageTruncated(
                    "The image is now shorter than the part that had already arrived."
                )
        count = await self._body.fill(target)
        self._at += count
        if count < len(target) and self.size is not None and self._at < self.size:
            short = ImageTruncated(f"The server sent {self._at} of {self.size} bytes.")
            short.came = count
            raise short
        return count

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        self._body.stop()


class Unwanted(Protocol):
    """A receiver of an unneeded body, which ends the connection."""

    def connectionMade(self) -> None:
        """End the connection."""
        transport = cast("IPushProducer", self.transport)
        transport.stopProducing()


@implementer(IDirectReceiver)
class Body(Protocol):
    """A receiver that fills the reader's memory, and pauses the connection between reads.

    A transport may deliver some bytes after a pause, and ``deliverBody`` resumes the transport
    once.  The receiver keeps these bytes and pauses the transport again.

    :param whole: length of the body in bytes; None if unknown.
    :ivar open_ended: whether the body ended with its connection, as a body without a length does
        (RFC 9112, section 6.3).  A broken connection looks the same.
    """

    def __init__(self, reactor: IReactorTime, stall: float, whole: int | None = None) -> None:
        self._reactor = reactor
        self._stall = stall
        self._whole = whole
        self._watch: IDelayedCall | None = None
        self._late = False
        self._deadline = 0.0
        self._target: memoryview | None = None
        self._filled = 0
        self._waiting: Deferred[int] | None = None
        self._kept = b""
        self._reader: SocketReader | None = None
        self._length = 0
        self._received = 0
        self._ended: Failure | None = None
        self._stopped = False
        self.open_ended = False

    def fill(self, target: memoryview) -> Deferred[int]:
        """Fill ``target``; return the number of bytes, smaller only at the end of the body."""
        self._waiting = Deferred(self._cancelled)
        waiting = self._waiting
        self._target, self._filled = target, 0
        kept, self._kept = self._kept, b""
        self._take(kept)
        if self._ended is not None:
            self._answer()
        elif self._waiting is not None:
            self._late = False
            self._deadline = self._reactor.seconds() + _SILENCES * self._stall
            self._watch = self._reactor.callLater(self._stall, self._stalled)
            self._flow("resumeProducing")
        return waiting

    def stop(self) -> None:
        """End the connection, and drop further bytes."""
        self._stopped = True
        self._kept = b""
        self._target = None
        self._unwatch()
        if self._reader is not None:
            self._reader.stopProducing()
        elif self._ended is not None:
            # The connection may have another user by now.
            return
        # Do not use loseConnection: with TLS, loseConnection reads on until the other side answers.
        transport = cast("IPushProducer", self.transport)
        transport.stopProducing()

    def connectionMade(self) -> None:
        """Pause until the first read."""
        self._flow("pauseProducing")

    def dataReceived(self, data: bytes) -> None:
        """Take bytes from the transport."""
        if self._stopped:
            return
        # Count these bytes, too: some bytes of the body may have arrived with the head.
        self._received += len(data)
        self._progressed()
        self._take(data)

    def go_direct(self, connection: socket.socket, length: int) -> None:
        """See :meth:`bootvol_plugins.http.direct.IDirectReceiver.go_direct`."""
        # The whole body may have arrived with the head.
        if self._ended is not None or not IReactorFDSet.providedBy(self._reactor):
            return
        with suppress(OSError):  # without a free descriptor, use the transport
            reader = SocketReader(self._reactor, connection, self)
            self._flow("pauseProducing")
            self._reader, self._length = reader, length

    def room(self) -> memoryview:
        """See :meth:`bootvol_plugins.http.direct.IDirectReceiver.room`."""
        # The socket is read only while a reader has lent memory.
        target = cast("memoryview", self._target)
        return target[self._filled : self._filled + self._length - self._received]

    def arrived(self, count: int) -> None:
        """See :meth:`bootvol_plugins.http.direct.IDirectReceiver.arrived`."""
        self._progressed()
        self._filled += count
        self._received += count
        if self._received == self._length:
            self.connectionLost(Failure(ResponseDone()))
        else:
            self._answer_if_full()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the end of the body, complete or broken off."""
        self._flow("pauseProducing")
        if reason.check(PotentialDataLoss):
            self.open_ended = True
            reason = Failure(ResponseDone())
        self._ended = reason
        self._answer()

    def _take(self, data: bytes) -> None:
        """Copy bytes into the reader's memory, and keep the rest."""
        if self._target is not None:
            count = min(len(data), len(self._target) - self._filled)
            self._target[self._filled : self._filled + count] = data[:count]
            self._filled += count
            data = data[count:]
        self._kept += data
        self._answer_if_full()

    def _answer_if_full(self) -> None:
        """Pause and answer if the memory is full; call last, since the reader may read again."""
        if self._received == self._whole and self._ended is None and self._reader is None:
            # The end of the body comes at once. Then the connection is free for another request.
            return
        if self._target is None or self._filled == len(self._target):
            self._flow("pauseProducing")
            self._answer()

    def _answer(self) -> None:
        """Give the reader the result: the number of bytes, or the failure."""
        waiting, self._waiting = self._waiting, None
        target, self._target = self._target, None
        self._unwatch()
        if waiting is None or target is None:
            return
        full = self._filled == len(target)
        if full or self._ended is None or self._ended.check(ResponseDone):
            waiting.callback(self._filled)
        else:
            waiting.errback(_failure(self._ended, self._filled))

    def _cancelled(self, _waiting: Deferred[int]) -> None:
        self._flow("pauseProducing")
        self._waiting = self._target = None
        self._unwatch()

    def _stalled(self) -> None:
        if not self._late:
            # This process may be late itself: give the reactor one more turn for waiting bytes.
            self._late = True
            self._watch = self._reactor.callLater(0, self._stalled)
            return
        self._watch = None
        what, seconds = "nothing", self._stall
        if self._reactor.seconds() >= self._deadline:
            what, seconds = f"{self._filled} bytes", _SILENCES * self._stall
        waiting, self._waiting, self._target = self._waiting, None, None
        self.stop()
        if waiting is not None:
            error = SourceFailed(f"The server sent {what} within {seconds:g} seconds.")
            error.came = self._filled
            waiting.errback(error)

    def _progressed(self) -> None:
        self._late = False
        if self._watch is not None:
            left = self._deadline - self._reactor.seconds()
            self._watch.reset(max(0.0, min(self._stall, left)))

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _flow(self, verb: str) -> None:
        """Pause or resume the reader of the socket, or else the transport."""
        if self._ended is None:
            getattr(self._reader or self.transport, verb)()


def _failure(reason: Failure, came: int) -> ImportFailed:
    """Return the plugin contract's error for a body that broke off.

    :param came: number of bytes received of the requested piece.
    """
    reasons = getattr(reason.value, "reasons", [])
    error: ImportFailed
    if reason.check(ConnectionDone) or any(each.check(ConnectionDone) for each in reasons):
        error = ImageTruncated("The server closed the connection before the image's end.")
    else:
        cause = reasons[0].value if reasons else reason.value
        error = SourceFailed(f"The connection broke off: {cause}.")
    error.came = came
    return error
