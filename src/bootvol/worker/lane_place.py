"""A job's turn: its place in a lane, which the job gives back while it cannot use the place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from bootvol.imaging.blocks import PIECE
from bootvol.imaging.wrapping import Wrapping, after
from bootvol.interfaces import IImageStream

#: Target for the longest read, in seconds: a job gives way only between two reads.
_SPAN: Final = 1.0
#: Seconds after which a wait counts as long.
GRACE: Final = 1.0


class LanePlace:
    """A job's place in its lane. Outside a lane a job always has a place.

    Call all methods from the reactor thread only.

    :ivar held: whether the job has a place.
    :ivar wanted: whether the job waits for a place.
    :ivar asked: whether the job has been asked to give its place to another tenant's job.
    """

    def __init__(self) -> None:
        self.held = True
        self.wanted = False
        self.asked = False
        self._tell: Callable[[], None] | None = None
        self._waiting: Deferred[None] | None = None

    def enter(self, tell: Callable[[], None]) -> None:
        """Join a lane, which grants places by :meth:`give`.

        :param tell: called when the job frees its place, and when the job wants one.
        """
        self._tell = tell

    def give(self) -> None:
        """Grant a place to the waiting job."""
        waiting, self._waiting = self._waiting, None
        self.held, self.wanted = True, False
        if waiting is not None:
            waiting.callback(None)

    def leave(self) -> None:
        """Give the place back."""
        self.held = self.asked = False
        if self._tell is not None:
            self._tell()

    async def rest(self, pause: Awaitable[object]) -> None:
        """Give the place back, await ``pause``, and then wait for a place again."""
        self.leave()
        await pause
        await self._enter_again()

    async def rest_if_long(self, pause: Awaitable[object], clock: IReactorTime) -> None:
        """Await ``pause``; give the place back once the wait is long.

        A job that gave the place back at once might lose the place for a pause of no time.
        """
        leaving = clock.callLater(GRACE, self.leave)
        try:
            await pause
        finally:
            if leaving.active():
                leaving.cancel()
        if not self.held:
            await self._enter_again()

    async def give_way(self) -> None:
        """If another tenant needs the place, give it back and wait for a place again."""
        if self.asked:
            self.leave()
            await self._enter_again()

    async def _enter_again(self) -> None:
        if self._tell is None:
            self.held = True
            return
        waiting: Deferred[None] = Deferred()
        self._waiting, self.wanted = waiting, True
        self._tell()
        try:
            await waiting
        finally:
            self._waiting, self.wanted = None, False


@implementer(IImageStream)
class YieldingStream(Wrapping):
    """A stream that is read only while its job has a place.

    A slow source is read in small pieces, so that the job soon gives way.

    :param stream: the stream to read; closed with this object.
    """

    def __init__(self, stream: IImageStream, lane_place: LanePlace, clock: IReactorTime) -> None:
        super().__init__(stream)
        self._lane_place = lane_place
        self._clock = clock
        self._most = PIECE

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        filled = 0
        while filled < len(target):
            await self._lane_place.give_way()
            piece = target[filled : filled + self._most]
            began = self._clock.seconds()
            with after(filled):
                length = await self.stream.read_into(piece)
            filled += length
            if length < len(piece):
                break
            self._adapt(len(piece), self._clock.seconds() - began)
        return filled

    def _adapt(self, length: int, seconds: float) -> None:
        if seconds > _SPAN:
            self._most = max(PIECE, self._most // 2)
        elif seconds < _SPAN / 2 and length == self._most:
            self._most *= 2
