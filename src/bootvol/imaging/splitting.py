"""Cuts the bytes of a compressed image at places that the format shows.

:mod:`bootvol.imaging.cuts` and :mod:`bootvol.imaging.xz_blocks` know the formats.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from enum import Enum, auto
from typing import Final


class Do(Enum):
    """An action on the next bytes of the image."""

    #: Return bytes, and pass them on.
    SEE = auto()
    #: Return bytes, and drop them.
    TAKE = auto()
    #: Pass bytes on.
    PASS = auto()
    #: Pass all further bytes on, without a cut.
    REST = auto()


class Mark(Enum):
    """A place in the image."""

    #: A cut between two members: the image may end here.
    MEMBER = auto()
    #: A cut within a member.
    WITHIN = auto()


class Needs(int):
    """Number of bytes that decoding the next bytes takes beside their own."""


class Content(int):
    """Number of decoded bytes in the next bytes, as stated."""


#: An action with its number of bytes, other bytes to pass on instead, a place, or a need of memory.
Step = tuple[Do, int] | bytes | Mark | Needs | Content
Steps = Generator[Step, bytes, None]
#: What is passed on: bytes of the image, and statements about them.
Piece = memoryview | Mark | Needs | Content

REST: Final = (Do.REST, 1)


class Splitter:
    """Passes on the bytes of an image, with the places to cut.

    Call :meth:`split` from any thread, one call at a time.

    :param steps: the steps of the format.
    :ivar within: whether the last place was within a member.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._seen = b""
        # The action in progress, and its remaining number of bytes.
        self._do, self._left = Do.PASS, 0
        next(steps)
        self.within = False

    def split(self, data: memoryview) -> Iterator[Piece]:
        """Pass on the next bytes.  Blocks for a while if the image has tiny parts.

        :raises ImageCorrupt: if the image is broken.
        """
        at = begin = 0
        while self._do is not Do.REST:
            piece = data[at : at + self._left]
            if self._do is Do.TAKE:
                if begin < at:
                    yield data[begin:at]
                begin = at + len(piece)
            if self._do is not Do.PASS:
                self._seen += piece
            at += len(piece)
            self._left -= len(piece)
            if self._left:
                break
            step = self._steps.send(self._seen)
            self._seen = b""
            while not isinstance(step, tuple):
                if begin < at:
                    yield data[begin:at]
                begin = at
                if isinstance(step, Mark):
                    self.within = step is Mark.WITHIN
                yield memoryview(step) if isinstance(step, bytes) else step
                step = next(self._steps)
            self._do, self._left = step
        end = len(data) if self._do is Do.REST else at
        if begin < end:
            yield data[begin:end]
