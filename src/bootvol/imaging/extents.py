"""Decides what a copy reads and which zeros it passes over, by what a stream or a reader tells."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from zope.interface import alsoProvides

from bootvol.imaging.blocks import PIECE, up_to_block
from bootvol.interfaces import ISparse, ISparseStream
from bootvol.model import Extent

#: Fewer zeros than this are read with the data around them: passing over costs as much; bytes.
LEAST: Final = 1024 * 1024
#: The most zeros to pass over at once where they cost something (to be hashed, or written); bytes.
#: A thread that is busy with them is waited for when the copy is cancelled.
STEP: Final = 256 * 1024 * 1024


def tell_of(inner: Any, wrapper: Any) -> None:
    """Let a stream that wraps another one tell of the zeros that the other one knows, if any."""
    if ISparseStream.providedBy(inner):
        wrapper.extents, wrapper.skip = inner.extents, inner.skip
        alsoProvides(wrapper, ISparseStream)


class Ahead:
    """Tells what comes next in a stream, or on a volume, from its start to its end.

    Extents are asked for in the order of the bytes, and only the newest answer is kept.

    :param origin: a stream or a reader; one that does not know its zeros is read whole.
    :param end: the size of the image or of what counts of the volume, in bytes; None if unknown.
    :param longest: the most zeros that are passed over at once, whole pieces in bytes; None is any
        number.
    """

    def __init__(self, origin: object, end: int | None, longest: int | None = None) -> None:
        self._origin: ISparse | None = ISparse(origin, None) if end is not None else None
        self._end = end or 0
        self._longest = longest
        # Where each known extent ends, and whether it is zeros.
        self._known: deque[tuple[int, bool]] = deque()

    async def at(self, offset: int, most: int) -> Extent:
        """Tell what begins at ``offset``: zeros to pass over, or bytes to read.

        Both are whole pieces (:data:`bootvol.imaging.blocks.PIECE`) but at the end.  The first
        bytes are always read: they tell the format.

        :param offset: a whole number of pieces, not smaller than in the call before.
        :param most: the most bytes to be read at once, whole pieces.
        """
        if self._origin is None or not offset:
            return Extent(most, zero=False)
        at = offset
        while at < min(offset + most, self._end):
            stop, zero = await self._extent(at)
            first = up_to_block(at, PIECE)
            last = stop if stop == self._end else stop // PIECE * PIECE
            if zero and last - first >= LEAST:
                if first > offset:
                    return Extent(first - offset, zero=False)
                return Extent(min(last - first, self._longest or last), zero=True)
            at = stop
        return Extent(most, zero=False)

    async def _extent(self, at: int) -> tuple[int, bool]:
        """Return where the extent ends that byte ``at`` is in, and whether it is zeros."""
        assert self._origin is not None  # noqa: S101 - for mypy
        while self._known and self._known[0][0] <= at:
            self._known.popleft()
        if not self._known:
            stop = at
            for extent in await self._origin.extents(at, self._end - at):
                stop = min(stop + extent.length, self._end)
                self._known.append((stop, extent.zero))
            if stop == at:
                # A provider that breaks the contract: the rest is read.
                self._known.append((self._end, False))
        return self._known[0]
