"""A stream that reads one image over several connections, in order for the reader.

A slow line, or a server that limits each connection, gives more bytes to more connections.  The
stream begins with one connection.  While the reader mostly waits for the server, the stream tries
more connections (:mod:`.connections`), and keeps them if they make the stream clearly faster
(:mod:`.growth`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from bootvol.errors import ImportFailed
from bootvol.interfaces import (
    IImageStream,
    IOpenEndedStream,
    IPrefetchingStream,
    IPrefixedStream,
)
from bootvol_plugins.http.connections import Connections, Server
from bootvol_plugins.http.crowds import Crowd
from bootvol_plugins.http.plan import LEAST, Plan, Ring

#: Seconds of one measurement of the first connection.
_SPAN: Final = 1.0
#: Part of that time that the reader must have waited for the server.
_WAITED: Final = 0.75
#: The fewest seconds, and the fewest bytes, that the rest of an image must take.
_LONG: Final = 3.0
_LARGE: Final = 4 * 1024 * 1024


@implementer(IOpenEndedStream, IPrefixedStream, IPrefetchingStream)
class ParallelStream:
    """A stream that reads a body, and later several parts at once if that is faster.

    :param first: the begun stream, whose answer has no end before the image's end.  Its size and
        its validator are known.
    :param servers: the servers with the same image; first the server of ``first``.
    :param most: the most connections.
    :param clock: the reactor.
    :param crowds: for each host of the servers, the streams there.
    """

    def __init__(
        self,
        first: IImageStream,
        size: int,
        servers: Sequence[Server],
        most: int,
        clock: IReactorTime,
        crowds: Sequence[Crowd],
    ) -> None:
        self.size: int | None = size
        self.offset, self.validator = first.offset, first.validator
        self.prefix = IPrefixedStream(first).prefix if IPrefixedStream.providedBy(first) else 0
        self._size = size
        self._first = first
        self._servers = servers
        self._most = most
        self._clock = clock
        self._crowds = crowds
        self._memory: memoryview | None = None
        self._at = first.offset
        # The measurement of the first connection: its begin, its bytes, the waited seconds.
        self._began: float | None = None
        self._bytes, self._waited = 0, 0.0
        self._is_first = True
        self._more: Connections | None = None

    @property
    def proven(self) -> bool:
        """See :class:`bootvol.interfaces.IOpenEndedStream`."""
        first = self._first
        alone = self._more is None and IOpenEndedStream.providedBy(first)
        return not alone or IOpenEndedStream(first).proven

    @property
    def mixed(self) -> bool:
        """See :attr:`bootvol.interfaces.IPrefetchingStream.mixed`."""
        return self._more is not None and self._more.mixed

    def lend(self, memory: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IPrefetchingStream.lend`."""
        # With less memory, segments would be too short.
        self._memory = memory if len(memory) >= 2 * LEAST else None

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        if self._more is None:
            self._more = self._widened()
        if self._more is not None:
            return await self._more.read_into(target)
        began = self._clock.seconds()
        if self._began is None:
            self._began = began
        try:
            count = await self._first.read_into(target)
        except ImportFailed:
            self._servers[0].failed()
            raise
        self._at += count
        self._bytes += count
        self._waited += self._clock.seconds() - began
        return count

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        if self._more is not None:
            for crowd in self._crowds:
                crowd.leave(self._more)
            await self._more.close()
        await self._first.close()

    def _widened(self) -> Connections | None:
        """Return more connections, if the image and the server are worth them; else None."""
        now, left = self._clock.seconds(), self._size - self._at
        if self._began is None or self._memory is None or now - self._began < _SPAN:
            return None
        seconds = now - self._began
        rate, waited = self._bytes / seconds, self._waited / seconds
        self._began, self._bytes, self._waited = now, 0, 0.0
        if self._is_first:
            # Many servers limit a connection only after its first bytes.
            self._is_first = False
            return None
        if self._most == 1 or waited < _WAITED or left < max(_LARGE, rate * _LONG):
            return None
        plan = Plan(self._at, self._size, len(self._memory))
        more = Connections(plan, Ring(self._memory), self._servers, self._most, self._clock)
        more.begin(self._first, rate)
        for crowd in self._crowds:
            crowd.enter(more)
        return more
