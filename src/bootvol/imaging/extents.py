"""Decides which bytes a copy reads and which zeros the copy skips, by the extents of the origin."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from zope.interface import alsoProvides

from bootvol.imaging.blocks import PIECE, up_to_block
from bootvol.interfaces import ISparse, ISparseStream
from bootvol.model import Extent

#: The fewest zeros to skip, in bytes.  Fewer zeros are read with the data around them, since a skip
#: costs as much.
LEAST: Final = 1024 * 1024
#: The most zeros to skip at once if they have to be hashed or written, in bytes.  A cancelled copy
#: waits for a thread that is busy with such zeros.
STEP: Final = 256 * 1024 * 1024


def tell_of(inner: object, wrapper: Any) -> None:
    """Let a wrapper stream offer the extents of the inner stream, if the inner stream has any."""
    if ISparseStream.providedBy(inner):
        sparse = ISparseStream(inner)
        wrapper.extents, wrapper.skip = sparse.extents, sparse.skip
        alsoProvides(wrapper, ISparseStream)


class Ahead:
    """The next extents of a stream or a volume, from its start to its end.

    Callers ask for extents in the order of the bytes, and read all bytes of an extent of data.
    Only the newest answer of the origin is kept.

    :param origin: a stream or a reader.  An origin that does not know its zeros is read whole.
    :param end: size of the image, or of the relevant part of the volume, in bytes; None if unknown.
    :param longest: the most zeros to skip at once, as whole units in bytes; None for no limit.
    :param unit: except at the end, extents are whole units of this many bytes.
    """

    def __init__(
        self, origin: object, end: int | None, longest: int | None = None, unit: int = PIECE
    ) -> None:
        self._origin: ISparse | None = ISparse(origin, None) if end is not None else None
        self._end = end or 0
        self._longest = longest
        self._unit = unit
        # The end of each known extent, and whether the extent is zeros.
        self._known: deque[tuple[int, bool]] = deque()

    async def at(self, offset: int, most: int) -> Extent:
        """Return the extent at ``offset``: zeros to skip, or bytes to read.

        The first bytes are always read, because they show the format.

        :param offset: a whole number of units, not smaller than in the last call.
        :param most: the most bytes to read at once, as whole units.
        """
        if self._origin is None or not offset:
            return Extent(most, zero=False)
        at = offset
        while at < min(offset + most, self._end):
            stop, zero = await self._extent(at)
            first = up_to_block(at, self._unit)
            last = stop if stop == self._end else stop // self._unit * self._unit
            if zero and last - first >= LEAST:
                if first > offset:
                    return Extent(first - offset, zero=False)
                return Extent(min(last - first, self._longest or last), zero=True)
            at = stop
        return Extent(most, zero=False)

    async def _extent(self, at: int) -> tuple[int, bool]:
        """Return the end of the extent with byte ``at``, and whether the extent is zeros."""
        assert self._origin is not None  # noqa: S101 - for mypy
        while self._known and self._known[0][0] <= at:
            self._known.popleft()
        if not self._known:
            stop = at
            for extent in await self._origin.extents(at, self._end - at):
                stop = min(stop + extent.length, self._end)
                self._known.append((stop, extent.zero))
            if stop == at:
                # The provider breaks the contract, so read the rest.
                self._known.append((self._end, False))
        return self._known[0]
