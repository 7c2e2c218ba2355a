"""A response's body, pulled: bytes are taken from the connection as the pipeline asks for them."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse
from zope.interface import implementer

from bootvol.errors import ImageTruncated, ImportFailed, SourceFailed
from bootvol.interfaces import IOpenEndedStream
from bootvol_plugins.http.direct import IDirectReceiver, SocketReader

#: What is wanted at a time (a few MiB) has to come within so many times the longest silence: who
#: sends a byte now and then would hold a place among the imports for ever.
_SILENCES: Final = 10


@implementer(IOpenEndedStream)
class BodyStream:
    """The body of a response.

    :param response: unbuffered; its body is not yet delivered to anyone.
    :param reactor: its clock, and what watches sockets.
    :param stall: seconds without a byte, while one is wanted, after which the body is broken off;
        it is, too, if what is wanted takes ten times as long to come.
    :param size: of the whole image in bytes, or None.
    :param offset: where in the image the stream begins.
    :param validator: of the image, or None.
    :param skip: bytes at the body's beginning that lie before ``offset``: they are passed over.
    :param expected: the size in bytes that the image had when it was found, if it is still that.
    """

    def __init__(
        self,
        response: IResponse,
        reactor: Any,
        stall: float,
        size: int | None,
        offset: int,
        validator: str | None,
        skip: int = 0,
        expected: int | None = None,
    ) -> None:
        self.size = size
        self.offset = offset
        self.validator = validator
        self._skip = skip
        self._expected = expected if size is None else size
        self._at = offset
        self._body = Body(reactor, stall)
        response.deliverBody(self._body)

    @property
    def proven(self) -> bool:
        """See :class:`bootvol.interfaces.IOpenEndedStream`."""
        return not self._body.open_ended or self._at == self._expected

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
                raise ImageTruncated("The image ended before what had come of it earlier.")
        count = await self._body.fill(target)
        self._at += count
        if count < len(target) and self._is_short():
            short = ImageTruncated(f"The server sent {self._at} of {self._expected} bytes.")
            short.came = count
            raise short
        return count

    def _is_short(self) -> bool:
        """Tell whether a body that has ended was only a part of the image, or broke off."""
        counts = self.size is not None or self._body.open_ended
        return counts and self._at < (self._expected or 0)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        self._body.stop()


class Unwanted(Protocol):
    """Receives a body that nobody wants: it ends the connection."""

    def connectionMade(self) -> None:
        """The body is about to be delivered."""
        transport: Any = self.transport
        transport.stopProducing()


@implementer(IDirectReceiver)
class Body(Protocol):
    """Puts what arrives into the memory that was lent, and pauses when there is none.

    A transport may deliver a little after it was paused (and ``deliverBody`` itself resumes it
    once): that little is kept, and the pause is asked for again.

    :ivar open_ended: the body has ended with its connection, as one without a length does (RFC
        9112, section 6.3): that may as well be a break.
    """

    def __init__(self, reactor: Any, stall: float) -> None:
        self._reactor = reactor
        self._stall = stall
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
        """Fill ``target``; the result is how many bytes that took before the body's end."""
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
        """End the connection; whatever still arrives is dropped."""
        self._stopped = True
        self._kept = b""
        self._target = None
        self._unwatch()
        if self._reader is not None:
            self._reader.stopProducing()
        elif self._ended is not None:
            # The connection may be for others to use by now.
            return
        # Not loseConnection: with TLS that waits for the other side, and reads on till then.
        transport: Any = self.transport
        transport.stopProducing()

    def connectionMade(self) -> None:
        """The body is about to be delivered."""
        self._flow("pauseProducing")

    def dataReceived(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._stopped:
            return
        # Even from here on: with the head that has just been parsed there may have come some.
        self._received += len(data)
        self._progressed()
        self._take(data)

    def go_direct(self, connection: socket.socket, length: int) -> None:
        """See :meth:`bootvol_plugins.http.direct.IDirectReceiver.go_direct`."""
        # What there is may have come with the head.
        if self._ended is not None or not IReactorFDSet.providedBy(self._reactor):
            return
        with suppress(OSError):  # no descriptor is left: it comes by the transport
            reader = SocketReader(self._reactor, connection, self)
            self._flow("pauseProducing")
            self._reader, self._length = reader, length

    def room(self) -> memoryview:
        """See :meth:`bootvol_plugins.http.direct.IDirectReceiver.room`."""
        # While nothing is lent the socket is not read.
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
        """The body has ended, well or not."""
        self._flow("pauseProducing")
        if reason.check(PotentialDataLoss):
            self.open_ended = True
            reason = Failure(ResponseDone())
        self._ended = reason
        self._answer()

    def _take(self, data: bytes) -> None:
        """Copy what there is memory for, and keep the rest."""
        if self._target is not None:
            count = min(len(data), len(self._target) - self._filled)
            self._target[self._filled : self._filled + count] = data[:count]
            self._filled += count
            data = data[count:]
        self._kept += data
        self._answer_if_full()

    def _answer_if_full(self) -> None:
        """Comes last: the reader may ask for more before it returns."""
        if self._target is None or self._filled == len(self._target):
            self._flow("pauseProducing")
            self._answer()

    def _answer(self) -> None:
        """Tell the reader what became of the memory that it lent."""
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
            # Perhaps it is this process: once more round the reactor, for what lies there already.
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
        """Have what the bytes come by pause, or resume."""
        if self._ended is None:
            getattr(self._reader or self.transport, verb)()


def _failure(reason: Failure, came: int) -> ImportFailed:
    """Say in the contract's words why a body broke off.

    :param came: bytes that had been read by then of what was wanted.
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
