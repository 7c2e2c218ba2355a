"""Several connections for one image, and the order of their bytes.

Each connection fetches segments of the image (:mod:`.plan`) into memory before the reader.  If a
connection breaks, or is much slower than the others, another one fetches the rest of its segment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from bootvol.errors import BootvolError, ImportFailed
from bootvol.interfaces import IImageStream
from bootvol_plugins.http.growth import Growth
from bootvol_plugins.http.plan import LEAST, Plan, Ring, Segment

#: Seconds that a segment should take.
_SEGMENT: Final = 2.0
#: The most bytes of one read.
_PIECE: Final = 256 * 1024
#: The fewest bytes from a connection that counts as useful, although it breaks.
_USEFUL: Final = 64 * 1024
#: Seconds between two looks at all connections.
_TICK: Final = 0.5
#: If the segment that all wait for takes so many times longer than others, with so many seconds
#: added, another connection fetches its rest.
_TOO_SLOW: Final = 2.0
_GRACE: Final = 1.0


def _nothing() -> None:
    """Note nothing."""


@attrs.frozen
class Server:
    """A server of the image.

    :ivar open: opens a part of the image: offset and length in bytes.  Raises BootvolError if the
        server does not give the part.
    :ivar failed: notes a failure of the server.
    :ivar gave: notes, at the end of a stream, that the server gave a part of the image.
    """

    open: Callable[[int, int], Awaitable[IImageStream]]
    failed: Callable[[], None] = _nothing
    gave: Callable[[], None] = _nothing


class Bell:
    """Wakes coroutines, in the next turn of the reactor: a running coroutine cannot be cancelled.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: list[Deferred[None]] = []
        self._ringing: IDelayedCall | None = None

    async def wait(self) -> None:
        """Wait until the bell rings."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        await waiting

    def ring(self) -> None:
        """Wake all waiting coroutines."""
        if self._ringing is None and self._waiting:
            self._ringing = self._clock.callLater(0, self._wake)

    def stop(self) -> None:
        """Ring no more."""
        if self._ringing is not None:
            self._ringing.cancel()
            self._ringing = None

    def _wake(self) -> None:
        self._ringing = None
        waiting, self._waiting[:] = self._waiting[:], []
        for each in waiting:
            if not each.called:  # it may have been cancelled
                each.callback(None)


@attrs.define(eq=False)
class _Connection:
    """A connection at work.

    :ivar server: number of the server.
    :ivar body: the answer that is being read; None if another request is needed.
    :ivar at: offset of the next byte of ``body`` in the image.
    :ivar end: offset behind the last byte of ``body``.
    :ivar segment: the bytes to fetch; None while the window has no room.
    :ivar since: the time when the segment was taken.
    :ivar come: number of bytes of the segment received since then.
    :ivar lasted: seconds that the segment before has taken.
    :ivar brought: number of bytes received.
    """

    server: int
    body: IImageStream | None = None
    at: int = 0
    end: int = 0
    segment: Segment | None = None
    since: float = 0.0
    come: int = 0
    lasted: float = 0.0
    brought: int = 0
    running: Deferred[None] = attrs.field(factory=Deferred)


class Connections:
    """The connections of one image.

    :param plan: shares the bytes out.
    :param ring: memory of the plan's window.
    """

    def __init__(
        self, plan: Plan, ring: Ring, servers: Sequence[Server], most: int, clock: IReactorTime
    ) -> None:
        self._plan = plan
        self._ring = ring
        self._servers = servers
        self._clock = clock
        self._growth = Growth(most, clock.seconds())
        self._alive: list[_Connection] = []
        self._faults = [0] * len(servers)
        self._received = 0
        # The numbers of the servers that gave bytes.
        self._givers: set[int] = set()
        self._rate = 0.0
        # Failed connections in a row that were of no use.
        self._fruitless = 0
        self._error: Exception | None = None
        self._reader_waits = False
        self._arrival, self._room = Bell(clock), Bell(clock)
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock

    def begin(self, first: IImageStream, rate: float) -> None:
        """Go on with the body of the first connection, and with more connections.

        :param rate: bytes per second of the first connection.
        """
        self._rate = rate
        self._start(_Connection(0, first, self._plan.position, self._plan.size))
        self._growth.begin(rate, self._clock.seconds(), self._received)
        self._ticking.start(_TICK, now=False).addErrback(self._defect)
        self._fill_up()

    @property
    def width(self) -> int:
        """See :attr:`bootvol_plugins.http.crowds.Wide.width`."""
        return len(self._alive)

    @property
    def mixed(self) -> bool:
        """See :attr:`bootvol.interfaces.IPrefetchingStream.mixed`."""
        return len(self._givers) > 1

    def narrow(self) -> None:
        """See :meth:`bootvol_plugins.http.crowds.Wide.narrow`.

        The connection that the reader waits for goes on.
        """
        front = self._plan.front
        kept = next((each for each in self._alive if each.segment is front), self._alive[0])
        others = [each for each in self._alive if each is not kept]
        self._growth.fail(1, self._clock.seconds(), self._received, 0.0)
        for each in others:
            each.running.cancel()

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        filled = 0
        while filled < len(target):
            if ready := min(self._plan.ready, len(target) - filled):
                piece = self._ring.view(self._plan.position, ready)
                target[filled : filled + len(piece)] = piece
                filled += len(piece)
                self._plan.consume(len(piece))
                self._room.ring()
            elif self._plan.has_arrived:
                break
            elif self._error is not None:
                if isinstance(self._error, ImportFailed):
                    self._error.came = filled
                raise self._error
            else:
                self._reader_waits = True
                try:
                    await self._arrival.wait()
                finally:
                    self._reader_waits = False
        return filled

    async def close(self) -> None:
        """End all connections."""
        if self._ticking.running:
            self._ticking.stop()
        running = [each.running for each in self._alive]
        for each in running:
            each.cancel()
        await DeferredList(running)
        self._arrival.stop()
        self._room.stop()
        for number in self._givers:
            self._servers[number].gave()

    def _start(self, connection: _Connection) -> None:
        self._alive.append(connection)
        connection.running = Deferred.fromCoroutine(self._work(connection))
        connection.running.addErrback(self._defect)

    def _fill_up(self) -> None:
        """Start connections until there are as many as are worth their while."""
        while len(self._alive) < self._growth.level and not self._plan.has_arrived:
            if self._error is not None:
                break
            self._start(_Connection(self._best_server()))

    def _best_server(self) -> int:
        """Return the server with the fewest faults, or else with the fewest connections."""
        used = [each.server for each in self._alive]
        return min(
            range(len(self._servers)), key=lambda each: (self._faults[each], used.count(each), each)
        )

    def _length(self) -> int:
        """Return the most bytes of a new segment."""
        level = self._growth.level
        most = self._plan.window // (2 * level)
        return max(LEAST, min(most, int(self._rate * _SEGMENT)))

    async def _work(self, connection: _Connection) -> None:
        """Fetch segments, one after the other, as long as the connection is worth its while."""
        error: BootvolError | None = None
        try:
            while len(self._alive) <= self._growth.level and not self._plan.has_arrived:
                connection.segment = self._plan.take(self._length())
                if connection.segment is None:
                    await self._room.wait()
                else:
                    await self._fetch(connection, connection.segment)
                    connection.segment = None
        except CancelledError:
            pass
        except BootvolError as failure:
            error = failure
        finally:
            if connection.segment is not None:
                self._plan.give_back(connection.segment)
            self._alive.remove(connection)
            if connection.body is not None:
                await connection.body.close()
            self._room.ring()
        if error is not None:
            self._failed(connection, error)

    async def _fetch(self, connection: _Connection, segment: Segment) -> None:
        """Receive the rest of a segment."""
        connection.since, connection.come = self._clock.seconds(), 0
        if connection.at != segment.at or connection.at == connection.end:
            await self._request(connection, segment)
        body = connection.body
        while segment.left and body is not None:
            target = self._ring.view(segment.at, min(segment.left, _PIECE))
            try:
                count = await body.read_into(target)
            except ImportFailed as error:
                self._arrived(connection, segment, error.came)
                raise
            self._arrived(connection, segment, count)
        connection.lasted = self._clock.seconds() - connection.since
        if connection.lasted:
            self._rate = (self._rate + connection.come / connection.lasted) / 2

    async def _request(self, connection: _Connection, segment: Segment) -> None:
        """Request the rest of a segment; a connection alone may go on behind the segment."""
        body, connection.body = connection.body, None
        connection.at = connection.end = 0
        if body is not None:
            await body.close()
        end = segment.end if self._growth.level > 1 else self._plan.size
        opened = self._servers[connection.server].open(segment.at, end - segment.at)
        connection.body = await opened
        connection.at, connection.end = segment.at, end

    def _arrived(self, connection: _Connection, segment: Segment, count: int) -> None:
        segment.at += count
        connection.at += count
        connection.come += count
        connection.brought += count
        self._received += count
        if count:
            self._fruitless = 0
            self._givers.add(connection.server)
        self._arrival.ring()

    def _failed(self, connection: _Connection, error: BootvolError) -> None:
        """Go on with the other connections, or with a new one; else let the reader fail."""
        self._faults[connection.server] += 1
        self._servers[connection.server].failed()
        if self._faults[self._best_server()] or len(self._servers) == 1:
            # No other server can take over at once.
            pause = getattr(error, "retry_after", 0.0)
            now = self._clock.seconds()
            self._growth.fail(len(self._alive), now, self._received, pause)
        if connection.brought < _USEFUL:
            self._fruitless += 1
        if not self._alive and self._fruitless >= len(self._servers):
            self._error = error
            self._arrival.ring()
        self._fill_up()

    def _defect(self, failure: Failure) -> None:
        self._error = cast("Exception", failure.value)
        self._arrival.ring()

    def _tick(self) -> None:
        """Measure, and set the number of connections."""
        now = self._clock.seconds()
        self._growth.measure(now, self._received, reader_waits=self._reader_waits)
        for each in self._alive[self._growth.level :]:
            # The others end after their segment.
            if not each.brought:
                each.running.cancel()
        if self._reader_waits:
            self._rescue(now)
        self._fill_up()

    def _rescue(self, now: float) -> None:
        """If the reader waits for a slow connection, let an idle one fetch the rest."""
        front = self._plan.front
        slow = next((each for each in self._alive if each.segment is front), None)
        idle = [each for each in self._alive if each.segment is None]
        if front is None or slow is None or not idle:
            return
        spent = now - slow.since
        typical = _TOO_SLOW * max(each.lasted for each in idle) + _GRACE
        if spent > typical and front.left * spent > typical * slow.come:
            self._faults[slow.server] += 1
            slow.running.cancel()
