"""Limits the bandwidth of sources, in bytes per second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from bootvol.buckets import Bucket
from bootvol.clocks import sleep
from bootvol.imaging.wrapping import Wrapping, after
from bootvol.interfaces import IImageStream

_MIB: Final = 1024 * 1024
#: After an idle time, the bytes of this many seconds pass at once.
_BURST: Final = 1.0
#: One read takes the bytes of this many seconds at most: a stream must not read much before a wait.
_PIECE: Final = 0.25


class Rate:
    """The bandwidth of one source, or of all: a caller takes bytes, and then waits for them.

    First come, first served.

    :param rate: bytes per second.
    """

    def __init__(self, rate: float, clock: IReactorTime) -> None:
        self.rate = rate
        self._bucket = Bucket(_BURST, clock)
        # A burst only follows an idle time.
        self._bucket.add(_BURST)

    def take(self, amount: int) -> float:
        """Take ``amount`` bytes; return the seconds to wait, 0 or less if no wait is needed."""
        return self._bucket.add(amount / self.rate)


class Bandwidth:
    """The bandwidth of a daemon: one for all sources, and one for each source with its own limit.

    :param total: MiB per second from all sources together; None for no limit.
    :param sources: MiB per second by name of the source.  A missing source has no limit of its own.
    :param clock: the reactor.
    """

    def __init__(
        self, total: float | None, sources: Mapping[str, float], clock: IReactorTime
    ) -> None:
        self._clock = clock
        self._total = [] if total is None else [Rate(total * _MIB, clock)]
        self._sources = {name: Rate(rate * _MIB, clock) for name, rate in sources.items()}

    def limited(self, source: str, stream: IImageStream) -> IImageStream:
        """Return a stream that reads from ``source`` within the limits.

        Closing the returned stream also closes ``stream``.
        """
        own = self._sources.get(source)
        rates = self._total if own is None else [*self._total, own]
        return Limited(stream, rates, self._clock) if rates else stream


@implementer(IImageStream)
class Limited(Wrapping):
    """A stream that waits after each read until its rates let the bytes through.

    :param rates: the limits, at least one.
    """

    def __init__(self, stream: IImageStream, rates: list[Rate], clock: IReactorTime) -> None:
        super().__init__(stream)
        self._rates = rates
        self._clock = clock
        self._piece = max(1, int(min(each.rate for each in rates) * _PIECE))

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        filled = 0
        while filled < len(target):
            piece = target[filled : filled + self._piece]
            with after(filled):
                length = await self.stream.read_into(piece)
            filled += length
            wait = max(each.take(length) for each in self._rates)
            if wait > 0:
                await sleep(self._clock, wait)
            if length < len(piece):
                break
        return filled
