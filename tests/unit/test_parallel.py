"""One image over several connections: order, number of connections, and breaks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from bootvol.clocks import sleep
from bootvol.errors import ImportFailed, SourceFailed
from bootvol.interfaces import IImageStream
from bootvol.testing.backends import noise
from bootvol_plugins.http import connections
from bootvol_plugins.http.crowds import Crowd
from bootvol_plugins.http.growth import Growth
from bootvol_plugins.http.parallel import ParallelStream
from bootvol_plugins.http.plan import LEAST, Plan, Ring, Segment
from tests.fuzzing import fuzz

KIB: Final = 1024
MIB: Final = 1024 * KIB
CONTENT: Final = noise(16 * MIB + 17)
WINDOW: Final = 4 * MIB
#: Bytes per second of one connection.
RATE: Final = 512 * KIB
#: Seconds between two turns of the clock.
TURN: Final = 0.05


class Server:
    """A server that sends each answer at a limited rate.

    :param rate: the rate of all connections together in bytes per second; None for no limit.
    :param size: size of the image in bytes.
    :ivar failures: number of noted failures.
    :ivar gone: whether the server answers nothing any more.
    :ivar most: the most connections; the server refuses others.
    :ivar breaks: breaks answers off after so many bytes, one after the other.
    :ivar stalls: the numbers of requests that get no byte for a minute.
    :ivar open: the number of open connections, and the largest number so far.
    :ivar requests: offset and length of each request.
    :ivar sent: number of bytes that arrived.
    """

    def __init__(self, clock: Clock, rate: float | None = None, size: int = len(CONTENT)) -> None:
        self.clock = clock
        self.content = CONTENT[:size]
        self.gone = False
        self.failures = 0
        self.rate = rate
        self.most = 100
        self.breaks: list[int] = []
        self.stalls: set[int] = set()
        self.open = self.largest = self.sent = 0
        self.requests: list[tuple[int, int]] = []

    def note(self) -> None:
        """Note a failure."""
        self.failures += 1

    async def part(self, offset: int, length: int) -> IImageStream:
        """Open a part."""
        await sleep(self.clock, TURN)
        self.requests.append((offset, length))
        if self.gone or self.open >= self.most:
            raise SourceFailed("The server answers 503.", 60.0)
        return Body(self, offset, offset + length, len(self.requests) in self.stalls)


@implementer(IImageStream)
class Body:
    """An answer."""

    def __init__(self, server: Server, offset: int, end: int, stalls: bool = False) -> None:
        self.size: int | None = len(server.content)
        self.offset = self._at = offset
        self.validator: str | None = '"e"'
        self._server = server
        self._end = end
        self._stalls = stalls
        self._left = server.breaks.pop(0) if server.breaks else len(CONTENT)
        self._closed = False
        server.open += 1
        server.largest = max(server.largest, server.open)

    async def read_into(self, target: memoryview) -> int:
        """Send a piece."""
        server = self._server
        if self._stalls:
            await sleep(server.clock, 60)
            raise SourceFailed("The server sent nothing within 60 seconds.")
        if self._at == len(server.content):
            return 0
        count = min(len(target), self._end - self._at, self._left)
        rate = RATE if server.rate is None else min(RATE, server.rate / server.open)
        await sleep(server.clock, count / rate)
        assert not self._closed
        if server.gone:
            raise SourceFailed("The connection broke off.")
        target[:count] = server.content[self._at : self._at + count]
        self._at += count
        self._left -= count
        server.sent += count
        if count < len(target):
            broken = SourceFailed("The connection broke off.")
            broken.came = count
            raise broken
        return count

    async def close(self) -> None:
        """End the connection."""
        if not self._closed:
            self._closed = True
            self._server.open -= 1


def stream(
    *servers: Server, most: int = 4, window: int = WINDOW, crowd: Crowd | None = None
) -> ParallelStream:
    """Return a stream whose first body has begun at the first server."""
    size = len(servers[0].content)
    first = Body(servers[0], 0, size)
    sources = [connections.Server(each.part, each.note) for each in servers]
    opened = ParallelStream(first, size, sources, most, servers[0].clock, [crowd or Crowd()])
    opened.lend(memoryview(bytearray(window)))
    return opened


class Reader:
    """Reads a stream.

    :ivar found: the bytes so far.
    """

    def __init__(self, opened: ParallelStream, clock: Clock, piece: int = 128 * KIB) -> None:
        self.found = bytearray()
        self._stream = opened
        self._size = opened.size or 0
        self._clock = clock
        self._piece = piece
        self._error: BaseException | None = None
        self._reading = Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        try:
            await self._read()
        except BaseException as error:
            self._error = error

    async def _read(self) -> None:
        memory = memoryview(bytearray(self._piece))
        try:
            while len(self.found) < self._size:
                wanted = min(self._piece, self._size - len(self.found))
                count = 0
                try:
                    count = await self._stream.read_into(memory[:wanted])
                except ImportFailed as error:
                    count = error.came
                    raise
                finally:
                    self.found += memory[:count]
                assert count == wanted
            assert await self._stream.read_into(memory) == 0
        finally:
            await self._stream.close()

    def cancel(self) -> None:
        """Stop reading, and close the stream."""
        self._reading.cancel()
        self.until(lambda: self._error is not None)
        assert isinstance(self._error, CancelledError)

    def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until a condition holds."""
        for _ in range(20_000):
            if condition():
                return
            self._clock.advance(TURN)
        pytest.fail("The condition did not come true.")

    def finish(self) -> float:
        """Read to the end; return the seconds.  An error of the stream is raised."""
        began = self._clock.seconds()
        self.until(lambda: bool(self._reading.called))
        assert not self._clock.getDelayedCalls()
        assert bytes(self.found) == CONTENT[: len(self.found)]
        if self._error is not None:
            raise self._error
        assert len(self.found) == self._size
        return self._clock.seconds() - began


ALONE: Final = len(CONTENT) / RATE


def test_a_limit_of_each_connection() -> None:
    clock = Clock()
    server = Server(clock)
    assert Reader(stream(server), clock).finish() < ALONE / 2.5
    assert server.largest == 4
    assert server.open == 0
    # The first answer goes on beyond its share: these bytes are not read.
    assert server.sent == len(CONTENT)


def test_a_limit_of_all_connections_together() -> None:
    """More connections bring nothing, so they end soon, and are seldom tried."""
    clock = Clock()
    server = Server(clock, rate=RATE)
    reader = Reader(stream(server), clock)
    reader.until(lambda: server.largest == 2)
    reader.until(lambda: server.open == 1)
    assert reader.finish() < 1.2 * ALONE
    assert server.largest == 2


def test_one_connection_if_no_memory_is_lent() -> None:
    clock = Clock()
    server = Server(clock)
    opened = ParallelStream(
        Body(server, 0, len(CONTENT)),
        len(CONTENT),
        [connections.Server(server.part)],
        4,
        clock,
        [Crowd()],
    )
    Reader(opened, clock).finish()
    assert server.requests == []


def test_a_reader_that_sets_the_pace_gets_one_connection() -> None:
    """The reader of a limited source waits elsewhere."""
    clock = Clock()
    server = Server(clock)
    opened = stream(server)

    class Slow(Reader):
        async def _read(self) -> None:
            memory = memoryview(bytearray(64 * KIB))
            for _ in range(100):
                await sleep(clock, 0.5)
                assert await opened.read_into(memory) == len(memory)
                self.found += memory
            await opened.close()

    slow = Slow(opened, clock)
    slow.until(lambda: len(slow.found) == 100 * 64 * KIB)
    assert server.requests == []


def test_a_small_rest_is_not_worth_a_connection() -> None:
    clock = Clock()
    server = Server(clock)
    at = len(CONTENT) - 2 * MIB
    opened = ParallelStream(
        Body(server, at, len(CONTENT)),
        len(CONTENT),
        [connections.Server(server.part)],
        4,
        clock,
        [Crowd()],
    )
    opened.lend(memoryview(bytearray(WINDOW)))
    reader = Reader(opened, clock)
    reader.found += CONTENT[:at]
    reader.finish()
    assert server.requests == []


def test_a_server_that_refuses_further_connections() -> None:
    """The first connection goes on alone, and the server is left alone as long as it demands."""
    clock = Clock()
    server = Server(clock)
    server.most = 1
    assert Reader(stream(server), clock).finish() < 1.2 * ALONE
    assert 1 <= len(server.requests) <= 2
    assert server.sent == len(CONTENT)


def test_a_server_that_allows_two_connections() -> None:
    clock = Clock()
    server = Server(clock)
    server.most = 2
    assert Reader(stream(server), clock).finish() < ALONE / 1.5
    assert server.sent == len(CONTENT)


def test_a_stream_makes_room_for_others() -> None:
    """The stream returns to one connection at once, loses no byte, and later tries again."""
    clock, crowd = Clock(), Crowd()
    server = Server(clock)
    assert not crowd.make_room()
    reader = Reader(stream(server, crowd=crowd), clock)
    assert not crowd.make_room()
    reader.until(lambda: server.open == 4)
    assert crowd.make_room()
    assert server.open == 1
    assert not crowd.make_room()
    reader.until(lambda: server.open > 1)
    reader.finish()
    assert not crowd.make_room()


def test_the_widest_stream_makes_room() -> None:
    clock, crowd = Clock(), Crowd()
    wide, narrow = Server(clock), Server(clock)
    readers = [
        Reader(stream(wide, crowd=crowd), clock),
        Reader(stream(narrow, most=2, crowd=crowd), clock),
    ]
    readers[0].until(lambda: (wide.open, narrow.open) == (4, 2))
    assert crowd.make_room()
    assert (wide.open, narrow.open) == (1, 2)
    assert crowd.make_room()
    assert (wide.open, narrow.open) == (1, 1)
    readers[0].until(lambda: all(len(each.found) == len(CONTENT) for each in readers))
    for each in readers:
        each.finish()


def test_a_break_loses_no_byte() -> None:
    """Another connection fetches only the rest of the broken segment."""
    clock = Clock()
    server = Server(clock)
    server.breaks = [4 * MIB, 300 * KIB, 700 * KIB, 100 * KIB]
    Reader(stream(server), clock).finish()
    assert server.sent == len(CONTENT)


def test_a_server_that_is_gone() -> None:
    """The reader gets all bytes that came in order, and then the error."""
    clock = Clock()
    server = Server(clock)
    reader = Reader(stream(server), clock)
    reader.until(lambda: server.open == 4)
    server.gone = True
    with pytest.raises(SourceFailed):
        reader.finish()
    assert server.open == 0


def test_a_silent_connection_is_replaced() -> None:
    """The reader waits for a silent connection only as long as others need twice."""
    clock = Clock()
    server = Server(clock)
    server.stalls = {2}
    assert Reader(stream(server), clock).finish() < ALONE / 2


def test_another_server_goes_on() -> None:
    clock = Clock()
    first, second = Server(clock), Server(clock)
    reader = Reader(stream(first, second), clock)
    reader.until(lambda: first.open > 0 and second.open > 0)
    first.gone = True
    reader.finish()
    assert first.failures
    assert not second.failures
    assert first.sent + second.sent == len(CONTENT)


def test_a_closed_stream_leaves_nothing_behind() -> None:
    clock = Clock()
    server = Server(clock)
    reader = Reader(stream(server), clock)
    reader.until(lambda: server.open == 4)
    reader.cancel()
    reader.until(lambda: server.open == 0)
    assert not clock.getDelayedCalls()


@fuzz(30)
@given(
    breaks=st.lists(st.integers(0, 3 * MIB), max_size=20),
    stalls=st.sets(st.integers(1, 20), max_size=3),
    most=st.integers(1, 5),
    wanted=st.integers(2, 8),
    window=st.integers(LEAST * 2 // 4096, 2 * WINDOW // 4096).map(lambda pages: pages * 4096),
    piece=st.integers(60 * KIB, MIB),
)
def test_any_breaks_leave_the_order(
    breaks: list[int],
    stalls: set[int],
    most: int,
    wanted: int,
    window: int,
    piece: int,
) -> None:
    clock = Clock()
    server = Server(clock, size=6 * MIB)
    server.breaks, server.stalls, server.most = breaks, stalls, most
    reader = Reader(stream(server, most=wanted, window=window), clock, piece)
    try:
        reader.finish()
    except SourceFailed:
        # The bytes so far are right, and the import would ask for the rest.
        assert len(reader.found) < len(server.content)
    assert server.open == 0


@fuzz(30)
@given(
    size=st.integers(1, 4 * MIB),
    window=st.integers(2 * LEAST, 8 * LEAST),
    chance=st.randoms(use_true_random=False),
)
def test_the_plan_shares_each_byte_out_once(size: int, window: int, chance: Random) -> None:
    plan, ring = Plan(0, size, window), Ring(memoryview(bytearray(window)))
    content, found = CONTENT[:size], bytearray()
    taken: list[Segment] = []
    while not plan.has_arrived or plan.ready:
        match chance.choice(["take", "arrive", "give back", "consume"]):
            case "take":
                segment = plan.take(chance.randint(LEAST, window))
                if segment is not None:
                    assert segment.end <= plan.position + window
                    taken.append(segment)
            case "arrive" if taken:
                segment = chance.choice(taken)
                view = ring.view(segment.at, chance.randint(segment.left // 2, segment.left) or 1)
                view[:] = content[segment.at : segment.at + len(view)]
                segment.at += len(view)
                if not segment.left:
                    taken.remove(segment)
            case "give back" if taken:
                plan.give_back(taken.pop())
            case "consume":
                count = chance.randint(0, plan.ready)
                while count:
                    piece = ring.view(plan.position, count)
                    found += piece
                    count -= len(piece)
                    plan.consume(len(piece))
    assert found == content


def test_a_trial_while_the_server_becomes_slower() -> None:
    """The rate before the trial was that of a burst, so the trial is made again at once."""
    growth = Growth(4, 0.0)
    growth.begin(5000.0, 0.0, 0)
    growth.measure(2.0, 4000, reader_waits=True)
    assert growth.level == 1
    growth.measure(4.0, 6000, reader_waits=True)
    assert growth.level == 2
    growth.measure(6.0, 10_000, reader_waits=True)
    assert growth.level == 4


def test_growth_waits_ever_longer_after_trials_in_vain() -> None:
    growth, now, received = Growth(4, 0.0), 0.0, 0
    growth.begin(1000.0, now, received)
    trials = []
    while now < 200:
        now += 1.0
        received += 1000
        before = growth.level
        growth.measure(now, received, reader_waits=True)
        if growth.level > before:
            trials.append(now)
    gaps = [after - one for one, after in pairwise(trials)]
    assert gaps == sorted(gaps)
    assert 1 < len(trials) < 6
