"""The order of an image's bytes that arrive over several connections."""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

#: The fewest bytes of a segment, except for the image's last one.  A request costs as much time as
#: some bytes.
LEAST: Final = 256 * 1024


@attrs.define(eq=False)
class Segment:
    """Consecutive bytes of an image for one connection.

    :ivar start: offset of the first byte in the image.
    :ivar end: offset behind the last byte.
    :ivar at: offset of the next byte to arrive.
    :ivar taken: whether a connection fetches the bytes.
    """

    start: int
    end: int
    at: int
    taken: bool = True

    @property
    def left(self) -> int:
        """Number of bytes still to arrive."""
        return self.end - self.at


class Plan:
    """Shares the bytes of an image out to connections, within a window before the reader.

    :ivar position: offset of the reader's next byte.
    :ivar size: size of the image in bytes.
    :ivar window: the most bytes from the reader's next byte on that may be fetched.
    """

    def __init__(self, position: int, size: int, window: int) -> None:
        self.position = position
        self.size = size
        self.window = window
        # The segments are consecutive.  The first one holds the reader's next byte.
        self._segments: deque[Segment] = deque()
        self._shared_out = position

    @property
    def ready(self) -> int:
        """Number of bytes that the reader may have now."""
        at = self.position
        for segment in self._segments:
            at = segment.at
            if segment.left:
                break
        return at - self.position

    @property
    def front(self) -> Segment | None:
        """The segment that the reader waits for; None if no segment is on its way."""
        return next((each for each in self._segments if each.left), None)

    @property
    def has_arrived(self) -> bool:
        """True if all bytes up to the end of the image are there."""
        return self._shared_out == self.size and self.front is None

    def take(self, length: int) -> Segment | None:
        """Return the next segment to fetch; None if the window has no room.

        Bytes that another connection gave back come first.

        :param length: the most bytes of a new segment, at least :data:`LEAST`.
        """
        for segment in self._segments:
            if segment.left and not segment.taken:
                segment.taken = True
                return segment
        start = self._shared_out
        end = min(start + length, self.size, self.position + self.window)
        if end <= start or (end < self.size and end - start < LEAST):
            return None
        self._shared_out = end
        segment = Segment(start, end, start)
        self._segments.append(segment)
        return segment

    def give_back(self, segment: Segment) -> None:
        """Let another connection fetch the rest of a segment."""
        segment.taken = False

    def consume(self, count: int) -> None:
        """Note that the reader has ``count`` more bytes, at most :attr:`ready`."""
        self.position += count
        while self._segments and self._segments[0].end <= self.position:
            self._segments.popleft()


class Ring:
    """Memory for the bytes of a plan: each byte has its place by its offset in the image.

    :param memory: writable memory, as large as the plan's window.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    def view(self, offset: int, length: int) -> memoryview:
        """Return the memory of the bytes from ``offset`` on: ``length`` bytes, or fewer."""
        begin = offset % len(self._memory)
        return self._memory[begin : begin + length]
