"""HTTP connections with streamed bodies: see :mod:`bootvol.api.uploads`."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import _ChunkedTransferDecoder
from twisted.web.server import Request

from bootvol.api.pieces import CHUNKED, PacedChannel
from bootvol.api.uploads import BodyStream
from bootvol.errors import BodyIncomplete

#: Maximum number of bytes of a streamed body to parse in one turn of the reactor.  A part without
#: the ends of chunks takes some 10 microseconds.
LARGE_PIECE: Final = 64 * 1024


class UploadingChannel(PacedChannel):
    """An HTTP/1.1 connection with at most one streamed body, in its last request."""

    def __init__(self) -> None:
        super().__init__()
        #: The streamed body of the request; None without one.
        self.upload: BodyStream | None = None
        self._expects_continue = False
        self._starting: IDelayedCall | None = None

    @property
    def is_uploading(self) -> bool:
        """True while a streamed body has not come to its end."""
        return self.upload is not None and not self.upload.ended

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the handler that no more bytes will come."""
        if self.upload is not None:
            self.upload.fail(BodyIncomplete())
        if self._starting is not None:
            self._starting.cancel()
        super().connectionLost(reason)

    def begin_upload(self) -> None:
        """Begin the request whose headers have come, and stream its body.

        The handler begins in a later turn of the reactor.
        """
        self.setTimeout(None)
        self.upload = BodyStream(
            self.length,
            self.site.reactor,
            self._tell_to_continue,
            lambda: self._networkProducer.pauseProducing(),
            lambda: self._networkProducer.resumeProducing(),
        )
        request = self.requests[-1]
        request.stream = self.upload
        self._starting = self.callLater(0, lambda: self._start(request))

    def end_after_upload(self) -> None:
        """Let the request be the last one of the connection."""
        self.persistent = False
        self.requests[-1].responseHeaders.setRawHeaders(b"Connection", [b"close"])

    def allContentReceived(self) -> None:
        """Note the end of a streamed body; process another request."""
        if self.upload is None:
            super().allContentReceived()
            return
        self.upload.end()
        # Further input waits, unparsed.
        self._handlingRequest = True
        self.setRawMode()

    def drop_upload(self, request: Request) -> None:
        """Forget a request that was answered before the end of its body."""
        if self.upload is not None:
            self.upload.close()
        self.requests.remove(request)
        # Only a client that sends on, and then waits, is sure to read the answer.
        self._networkProducer.resumeProducing()

    def size_of_part(self) -> int:
        """Return how many bytes of input to parse at once."""
        if not self.is_uploading or self._transferDecoder is None:
            return CHUNKED
        if not isinstance(self._transferDecoder, _ChunkedTransferDecoder):
            return LARGE_PIECE
        if self._transferDecoder.state != "BODY":
            return CHUNKED
        return max(CHUNKED, min(LARGE_PIECE, self._transferDecoder.length))

    def _start(self, request: Request) -> None:
        self._starting = None
        request.requestReceived(self._command, self._path, self._version)

    def _send100Continue(self) -> None:  # noqa: N802 (Twisted's name)
        if self.upload is None:
            super()._send100Continue()
        else:
            self._expects_continue = True

    def _tell_to_continue(self) -> None:
        if self._expects_continue and self.is_uploading:
            super()._send100Continue()
