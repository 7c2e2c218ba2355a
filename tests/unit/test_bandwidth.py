"""The rate limits of reads from sources, by the test's clock."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from bootvol.errors import SourceFailed
from bootvol.imaging.bandwidth import Bandwidth, Limited, Rate
from bootvol.interfaces import IImageStream

MIB = 1024 * 1024


@implementer(IImageStream)
class Stream:
    """A source without delay, up to its end or failure.

    :ivar taken: number of bytes read from the source.
    """

    def __init__(self, length: int, error: Exception | None = None) -> None:
        self.size: int | None = length
        self.offset = 7
        self.validator: str | None = "one"
        self.taken = 0
        self.closed = False
        self._length = length
        self._error = error

    async def read_into(self, target: memoryview) -> int:
        """See IImageStream."""
        count = min(len(target), self._length - self.taken)
        if count < len(target) and self._error is not None:
            raise self._error
        target[:count] = bytes(each % 251 for each in range(self.taken, self.taken + count))
        self.taken += count
        return count

    async def close(self) -> None:
        """See IImageStream."""
        self.closed = True


def reading(stream: IImageStream, length: int) -> Deferred[int]:
    """Begin to read a number of bytes."""
    return Deferred.fromCoroutine(stream.read_into(memoryview(bytearray(length))))


def limited(stream: Stream, clock: Clock, *rates: float) -> Limited:
    """Return the stream, limited by buckets of these numbers of bytes per second."""
    return Limited(stream, [Rate(rate, clock) for rate in rates], clock)


def test_it_is_a_stream_like_the_one_below() -> None:
    below = Stream(10)
    stream = limited(below, Clock(), 1000)
    verifyObject(IImageStream, stream)
    assert (stream.size, stream.offset, stream.validator) == (10, 7, "one")
    assert reading(stream, 0).result == 0
    Deferred.fromCoroutine(stream.close())
    assert below.closed


def test_bytes_come_at_their_rate() -> None:
    clock, below = Clock(), Stream(10_000)
    stream = limited(below, clock, 100)
    read = reading(stream, 1000)
    for second in range(10):
        assert not read.called
        assert below.taken <= 100 * (second + 1)
        clock.pump([0.25] * 4)
    assert read.result == 1000
    assert clock.getDelayedCalls() == []


def test_the_bytes_are_those_of_the_source() -> None:
    clock = Clock()
    target, wanted = bytearray(100), memoryview(bytearray(100))
    Deferred.fromCoroutine(Stream(90).read_into(wanted))
    read = Deferred.fromCoroutine(limited(Stream(90), clock, 40).read_into(memoryview(target)))
    clock.pump([0.25] * 10)
    assert read.result == 90
    assert target == wanted


def test_the_end_of_the_source_is_the_end() -> None:
    clock = Clock()
    stream = limited(Stream(30), clock, 100)
    read = reading(stream, 1000)
    clock.pump([0.25] * 2)
    assert read.result == 30
    assert reading(stream, 1000).result == 0


def test_a_failure_of_the_source_goes_on_up() -> None:
    read = reading(limited(Stream(10, SourceFailed("gone")), Clock(), 100), 50)
    failed: list[Failure] = []
    read.addErrback(failed.append)
    assert failed[0].check(SourceFailed)


def test_who_was_idle_may_take_a_second_at_once_and_no_more() -> None:
    clock = Clock()
    bucket = Rate(100, clock)
    clock.advance(3600)
    assert bucket.take(100) <= 0
    assert bucket.take(100) == pytest.approx(1)


def test_the_slower_of_two_limits_sets_the_pace() -> None:
    clock, below = Clock(), Stream(10_000)
    read = reading(limited(below, clock, 1000, 100), 200)
    clock.pump([0.25] * 7)
    assert not read.called
    clock.advance(0.25)
    assert read.result == 200


def test_streams_share_a_bucket_in_turns() -> None:
    clock = Clock()
    bucket = Rate(400, clock)
    below = [Stream(10_000) for _ in range(4)]
    reads = [reading(Limited(each, [bucket], clock), 1000) for each in below]
    clock.pump([0.05] * 150)
    taken = [each.taken for each in below]
    assert max(taken) - min(taken) <= 100, "no more than one piece apart"
    assert sum(taken) <= 400 * 7.5 + 4 * 100
    assert sum(taken) >= 400 * 7.5 - 100
    clock.pump([0.05] * 100)
    assert [read.result for read in reads] == [1000] * 4


def test_who_leaves_does_not_hold_up_others() -> None:
    clock = Clock()
    bucket = Rate(100, clock)
    one, two = (Limited(Stream(10_000), [bucket], clock) for _ in range(2))
    first, second = reading(one, 100), reading(two, 25)
    failed: list[Failure] = []
    first.addErrback(failed.append)
    first.cancel()
    assert failed[0].check(CancelledError)
    # The cancelled read stays paid for: wait for that read and for its own.
    clock.advance(0.5)
    assert second.result == 25
    assert clock.getDelayedCalls() == []


def test_a_clock_that_is_set_back_holds_up_nobody() -> None:
    clock = Clock()
    clock.advance(3600)
    bucket = Rate(100, clock)
    bucket.take(50)
    clock.rightNow = 0.0
    assert bucket.take(50) == pytest.approx(1)


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 500)), max_size=30),
    st.integers(1, 1000),
)
def test_never_more_than_the_rate_and_a_second(
    takes: Sequence[tuple[float, int]], rate: int
) -> None:
    clock = Clock()
    bucket = Rate(rate, clock)
    total = 0
    for pause, amount in takes:
        clock.advance(pause)
        total += amount
        paid = clock.seconds() + max(0.0, bucket.take(amount))
        assert total <= rate * (paid + 1) + 1e-6


def test_buckets_of_a_daemon() -> None:
    clock = Clock()
    below = Stream(0)
    assert Bandwidth(None, {"s": 1}, clock).limited("other", below) is below
    both = Bandwidth(2, {"s": 1}, clock)
    slow, quick = both.limited("s", Stream(3 * MIB)), both.limited("other", Stream(MIB))
    first, second = reading(slow, 3 * MIB // 2), reading(quick, MIB)
    clock.pump([0.125] * 8)
    assert second.result == MIB
    assert not first.called
    clock.pump([0.125] * 4)
    assert first.result == 3 * MIB // 2
