"""Limits the bandwidth of sources, in bytes per second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from bootvol.clocks import sleep
from bootvol.imaging.wrapping import Wrapping, after
from bootvol.interfaces import IImageStream

_MIB: Final = 1024 * 1024
#: An idle bucket lets through the bytes of this many seconds at once.
_BURST: Final = 1.0
#: One read takes the bytes of this many seconds at most: a stream must not read much before a wait.
_PIECE: Final = 0.25


class Bucket:
    """A token bucket: a caller takes bytes, and then waits for them.  First come, first served.

    :param rate: bytes per second.
    """

    def __init__(self, rate: float, clock: IReactorTime) -> None:
        self.rate = rate
        self._clock = clock
        # Seconds until all taken bytes are paid for; below 0 the bucket holds bytes.
        self._owed = 0.0
        self._seen = clock.seconds()

    def take(self, amount: int) -> float:
        """Take ``amount`` bytes; return the seconds to wait, below 0 if no wait is needed."""
        now = self._clock.seconds()
        # After a clock was set back, callers must not wait until the old time comes again.
        passed = max(0.0, now - self._seen)
        self._seen = now
        self._owed = max(self._owed - passed, -_BURST) + amount / self.rate
        return self._owed


class Bandwidth:
    """The buckets of a daemon: one for all sources, and one for each source with its own limit.

    :param total: MiB per second from all sources together; None for no limit.
    :param sources: MiB per second by name of the source.  A missing source has no limit of its own.
    :param clock: the reactor.
    """

    def __init__(
        self, total: float | None, sources: Mapping[str, float], clock: IReactorTime
    ) -> None:
        self._clock = clock
        self._total = [] if total is None else [Bucket(total * _MIB, clock)]
        self._sources = {name: Bucket(rate * _MIB, clock) for name, rate in sources.items()}

    def limited(self, source: str, stream: IImageStream) -> IImageStream:
        """Return a stream that reads from ``source`` within the limits.

        Closing the returned stream also closes ``stream``.
        """
        own = self._sources.get(source)
        buckets = self._total if own is None else [*self._total, own]
        return Limited(stream, buckets, self._clock) if buckets else stream


@implementer(IImageStream)
class Limited(Wrapping):
    """A stream that waits after each read until its buckets have let the bytes through.

    :param buckets: the limits, at least one.
    """

    def __init__(self, stream: IImageStream, buckets: list[Bucket], clock: IReactorTime) -> None:
        super().__init__(stream)
        self._buckets = buckets
        self._clock = clock
        self._piece = max(1, int(min(bucket.rate for bucket in buckets) * _PIECE))

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        filled = 0
        while filled < len(target):
            piece = target[filled : filled + self._piece]
            with after(filled):
                length = await self.stream.read_into(piece)
            filled += length
            wait = max(bucket.take(length) for bucket in self._buckets)
            if wait > 0:
                await sleep(self._clock, wait)
            if length < len(piece):
                break
        return filled
