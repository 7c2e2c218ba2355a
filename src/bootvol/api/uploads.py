"""Bodies of any size, which the handler of an operation reads as the bytes arrive.

Such an operation is declared with ``streamed=True``.  Its handler runs as soon as the headers of a
request have come, and so the caller is authenticated and admitted before the body:

* The connection reads no body before the handler does, and later only as fast as the handler.
* A client that expects ``100 Continue`` is told to continue at the handler's first read.
* If the handler answers before the end of the body, the client gets the answer, and the connection
  drops the rest.  The connection ends after the answer in any case.
* While the handler waits for the client, the client has to send :data:`LEAST` bytes within
  :data:`WINDOW` seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.iweb import IRequest

from bootvol.errors import BodyIncomplete, BodyTooSlow, BootvolError
from bootvol.threads import Shared

#: Number of bytes that may wait for the handler before the connection reads no more.
MOST_HELD: Final = 1024 * 1024
#: Seconds in which a client has to send :data:`LEAST` bytes.
WINDOW: Final = 60
LEAST: Final = 64 * 1024


class BodyStream:
    """The body of one request, on its way from a connection to a handler.

    :param length: number of bytes; None if the client does not state the number.
    :param clock: the reactor.
    :param begin: tells the client to send the body.  Called before the first read.
    :param pause: stops the connection's input.
    :param resume: continues the connection's input.
    """

    def __init__(
        self,
        length: int | None,
        clock: IReactorTime,
        begin: Callable[[], None],
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        self.length = length
        #: True once the last byte has come.
        self.ended = False
        self._clock = clock
        self._begin: Callable[[], None] | None = begin
        self._pause = pause
        self._resume = resume
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._paused = True
        self._error: BootvolError | None = None
        self._waiting: Shared[None] | None = None
        self._timer: IDelayedCall | None = None
        self._came_in_window = 0
        pause()

    # --- for the handler -------------------------------------------------------------------------

    async def read_into(self, target: memoryview) -> int:
        """Fill memory with the next bytes.  Only one call runs at a time.

        :returns: the number of bytes: fewer than ``len(target)`` at the end of the body, and then
            0.
        :raises BodyIncomplete: if the client leaves before the end.
        :raises BodyTooSlow: if the client sends too slowly.
        :raises BootvolError: if the body is malformed.
        """
        if self._begin is not None:
            self._begin()
            self._begin = None
        done = 0
        while done < len(target):
            if self._pieces:
                done += self._take_piece(target[done:])
            elif self._error is not None:
                raise self._error
            elif self.ended:
                break
            else:
                await self._more()
        return done

    def _take_piece(self, target: memoryview) -> int:
        """Move bytes of the first piece to ``target``; return their number."""
        piece = self._pieces.popleft()
        count = min(len(piece), len(target))
        target[:count] = piece[:count]
        if count < len(piece):
            self._pieces.appendleft(piece[count:])
        self._held -= count
        return count

    async def _more(self) -> None:
        """Wait for the next bytes, or for the end."""
        self._waiting = Shared()
        if self._timer is None:
            self._came_in_window = 0
            self._timer = self._clock.callLater(WINDOW, self._check_pace)
        if self._paused:
            self._paused = False
            self._resume()
        try:
            await self._waiting.wait()
        finally:
            self._waiting = None

    # --- for the connection ----------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Take bytes from the connection."""
        if self._error is not None or not data:
            return
        self._came_in_window += len(data)
        self._pieces.append(data)
        self._held += len(data)
        if self._held >= MOST_HELD and not self._paused:
            self._paused = True
            self._stop_timer()
            self._pause()
        self._wake()

    def end(self) -> None:
        """Note the end of the body."""
        self.ended = True
        self._stop_timer()
        self._wake()

    def fail(self, error: BootvolError) -> None:
        """Have the handler fail instead of waiting for further bytes."""
        if not self.ended and self._error is None:
            self._error = error
            self._stop_timer()
            self._wake()

    def close(self) -> None:
        """Drop all bytes: the handler has answered, or the client has left."""
        self.fail(BodyIncomplete())
        self._pieces.clear()
        self._stop_timer()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.ended:
            self._waiting.finish(None)

    def _check_pace(self) -> None:
        """Refuse a client that has sent little, although the handler waits."""
        self._timer = None
        if self._came_in_window < LEAST and self._waiting is not None:
            self.fail(BodyTooSlow())
        elif not self._paused:
            self._came_in_window = 0
            self._timer = self._clock.callLater(WINDOW, self._check_pace)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def body_of(request: IRequest) -> BodyStream:
    """Return the body of a request for an operation with ``streamed=True``."""
    stream: BodyStream = request.stream  # type: ignore[attr-defined]
    return stream
