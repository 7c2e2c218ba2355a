"""Replies of any size, made of an image stream while the client reads."""

from __future__ import annotations

from typing import Final, cast

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest
from zope.interface import implementer

from bootvol.api.channels import ApiChannel
from bootvol.api.http import ApiRequest
from bootvol.errors import ImportFailed
from bootvol.interfaces import IImageStream
from bootvol.threads import Shared

#: Bytes in memory for one reply.
_BUFFER: Final = 256 * 1024
#: Seconds for a client to read most of these bytes.
PATIENCE: Final = 60

_log = Logger()


async def send(request: IRequest, stream: IImageStream, media: str) -> None:
    """Send all bytes of a stream as the body of a reply with status 200.  Closes the stream.

    A stream that fails ends the connection within the body, so the client knows of the failure.
    The same happens to a client that does not read.  The last bytes leave after the stream is
    closed, so a client with the whole body knows that nothing of its request is under way.
    """
    client = _Client(cast("ApiRequest", request))
    last = b""
    try:
        request.setHeader(b"Content-Type", media.encode("ascii"))
        if stream.size is not None:
            request.setHeader(b"Content-Length", b"%d" % stream.size)
        buffer = memoryview(bytearray(_BUFFER))
        try:
            while not client.gone and (count := await stream.read_into(buffer)):
                if last:
                    request.write(last)
                    await client.ready()
                last = bytes(buffer[:count])
        finally:
            await stream.close()
        if not client.gone:
            request.write(last)
    except ImportFailed as error:
        if not client.gone:
            _log.error("a download breaks off: {error}", error=error.message)
            client.abort()
    finally:
        client.done()


@implementer(IPushProducer)
class _Client:
    """The client's side of a reply."""

    def __init__(self, request: ApiRequest) -> None:
        self.gone = False
        self._request = request
        self._channel = cast("ApiChannel", request.channel)
        self._clock: IReactorTime = self._channel.site.reactor
        self._paused = False
        self._waiting: Shared[None] | None = None
        self._timer: IDelayedCall | None = None
        request.notifyFinish().addErrback(lambda _: self._leave())
        request.registerProducer(self, True)

    async def ready(self) -> None:
        """Wait until the client has read most of the written bytes, or has left."""
        if self._paused and not self.gone:
            self._waiting = Shared()
            self._timer = self._clock.callLater(PATIENCE, self.abort)
            try:
                await self._waiting.wait()
            finally:
                self._waiting = None
                if self._timer is not None and self._timer.active():
                    self._timer.cancel()

    def abort(self) -> None:
        """End the connection at once."""
        if not self.gone:
            self._channel.end()
            self._leave()

    def done(self) -> None:
        """Write no more."""
        if not self.gone:
            self._request.unregisterProducer()

    def pauseProducing(self) -> None:
        """Note that the client has much to read."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Note that the client has read."""
        self._paused = False
        self._wake()

    def stopProducing(self) -> None:
        """Note that the client has left."""
        self._leave()

    def _leave(self) -> None:
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.ended:
            self._waiting.finish(None)
