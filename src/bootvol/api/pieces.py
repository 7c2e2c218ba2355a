"""Parses the input of HTTP connections in pieces: one piece in each turn of the reactor.

Some input takes much time to parse: a chunk of one byte takes about 7 microseconds.  So pieces
with chunks are smaller.  Clients' addresses take turns (:class:`bootvol.fair_share.Paced`), and a
connection reads no more while received bytes wait for their turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

#: Maximum number of bytes to parse in one turn of the reactor, and maximum number of bytes with
#: chunks.  As chunks of one byte, the latter take about half a millisecond, as a short call does.
PIECE: Final = 4096
CHUNKED: Final = 512


class PacedChannel(HTTPChannel):
    """An HTTP/1.1 connection whose input takes turns with the input of all other connections.

    The factory of the connection has a ``pace``: see :class:`bootvol.api.sites.ApiSite`.

    :ivar address: the client's address; addresses take turns.
    """

    _log = Logger()
    #: The factory.
    site: Any
    #: The transport: TCP, TLS or a unix socket.
    transport: Any
    #: The transport, or the valve before the transport.
    _networkProducer: Any  # noqa: N815 (Twisted's name)
    address = ""

    def __init__(self) -> None:
        super().__init__()
        #: True while received input waits for its turn.
        self.is_behind = False
        self._come = b""
        #: The last wait for a turn.
        self._turn: Deferred[None] | None = None

    def connectionMade(self) -> None:
        """Put a valve between HTTPChannel and the transport."""
        super().connectionMade()
        self._networkProducer = self._valve = Valve(self._networkProducer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the wait for a turn."""
        if self._turn is not None:
            self._turn.cancel()
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """Keep input until the turn of the connection."""
        self._come += data
        if not self.is_behind:
            self._wait_for_turn()

    def setLineMode(self, extra: bytes = b"") -> None:  # noqa: N802 (Twisted's name)
        """Take bytes that came behind a request again: they precede all bytes that wait."""
        waiting, self._come = self._come, b""
        super().setLineMode(extra)
        self._come += waiting

    def size_of_part(self) -> int:
        """Return how many bytes of input to parse at once."""
        return CHUNKED

    def turn(self, work: Callable[[], None]) -> Deferred[None]:
        """Return a Deferred that calls ``work`` in the turn of the connection.

        After a defect of ``work`` the connection ends.
        """
        turn: Deferred[None] = self.site.pace.turn(self.address)
        return turn.addCallback(lambda _: work()).addErrback(self._failed)

    def parse(self, data: bytes) -> None:
        """Parse input now."""
        super().dataReceived(data)

    def parse_kept(self) -> None:
        """Parse input that came while LineReceiver was paused: one piece now, the rest in turns."""
        self._come, self._buffer = self._buffer + self._come, b""
        if self._come and not self.is_behind:
            self._parse_a_piece()

    def _wait_for_turn(self) -> None:
        self.is_behind = True
        self._valve.hold()
        turn = self.turn(self._parse_a_piece)
        # If the turn has begun already, the next wait may have begun, too.
        if not turn.called:
            self._turn = turn

    def _parse_a_piece(self) -> None:
        self.is_behind = False
        left = PIECE
        while self._come and left > 0 and not self.is_behind:
            size = self.size_of_part()
            part, self._come = self._come[:size], self._come[size:]
            self.parse(part)
            # The body in progress has chunks if it has no length.
            left -= PIECE if self.length is None else size
        if not self._come:
            self._valve.let_go()
        elif not self.is_behind:
            self._wait_for_turn()

    def _failed(self, failure: Failure) -> None:
        """End the connection after a defect.  A cancelled wait for a turn is none."""
        if not failure.check(CancelledError):
            self._log.failure("a request cannot be parsed", failure)
            self.transport.abortConnection()


class Valve:
    """The input of a connection, which stops for the protocol above, and while it waits for a turn.

    :param transport: the transport of the connection.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._is_paused = False
        self._is_held = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pauseProducing(self) -> None:
        """Read no more until the protocol above resumes the input."""
        self._is_paused = True
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on, unless the connection waits for its turn."""
        self._is_paused = False
        if not self._is_held:
            self._transport.resumeProducing()

    def hold(self) -> None:
        """Read no more until the turn of the connection."""
        self._is_held = True
        if not self._transport.disconnecting:
            self._transport.pauseProducing()

    def let_go(self) -> None:
        """Read on, unless the protocol above has paused or ended the input."""
        self._is_held = False
        if not self._is_paused and not self._transport.disconnecting:
            self._transport.resumeProducing()
