"""Fills a volume that begins as a clone of a similar disk: only what differs is written.

A copy writes or zeroes every byte of such a volume, as on a backend with old blocks.  The writer
here drops a call only where the volume provably has these bytes already.  So no byte of the other
disk can remain, unless the new disk has the same chunk at the same place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Final

import attrs
from twisted.logger import Logger
from zope.interface import implementer

from bootvol.errors import BackendFailed, BackendInterrupted, NoSpace, WrongStore
from bootvol.imaging.chunk_index import (
    CHUNK,
    HOLE,
    PAGE,
    UNKNOWN,
    ChunkIndex,
    IndexFull,
    entries_of,
)
from bootvol.imaging.target import VolumeTarget
from bootvol.interfaces import IBlockBackend, IVolumeWriter
from bootvol.shortage import short_of
from bootvol.threads import Threads

#: Entry of a chunk that this copy has zeroed.  No chunk has this hash.
_ZEROED: Final = bytes(31) + b"\x01"


@attrs.frozen
class Base:
    """A volume that others are cloned from.

    :ivar name: name of the volume on its backend.
    :ivar index: the index of the volume's disk. A :class:`DeltaTarget` may change the index.
    :ivar size: size of the disk in bytes.
    :ivar depth: see :class:`bootvol.model.DiskIndex`.
    """

    name: str
    index: ChunkIndex
    size: int
    depth: int = 0


class Contents:
    """Facts about the bytes of a volume during a copy.

    :param base: the index of the volume at the start of the copy.
    :ivar written: bytes that were written.
    :ivar kept: bytes that the volume had already, so that they were not written.
    """

    def __init__(self, base: ChunkIndex) -> None:
        self._base = base
        # A chunk without an entry was not touched yet.
        self._changed = ChunkIndex()
        self._is_lost = False
        self.written = self.kept = 0

    def holds(self, number: int, entry: bytes) -> bool:
        """Return whether a chunk is untouched, and provably has the content of an entry.

        Touched chunks never count: their bytes may be lost until the next flush.
        """
        if self._is_lost or entry == UNKNOWN or self._changed[number] != HOLE:
            return False
        return self._base[number] == entry

    def unlike(self, first: int, entries: Sequence[bytes]) -> Iterator[tuple[int, int]]:
        """Yield the runs of chunks that may differ from some entries, as first number and end.

        :param first: number of the chunk of the first entry.
        """
        numbers = (
            number for number, entry in enumerate(entries, first) if not self.holds(number, entry)
        )
        return _runs(numbers)

    def nonzero(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the runs of chunks that may not read as zeros, as first number and end.

        Unless the index is lost, no run exceeds a page: :meth:`change` of a run takes little time.
        """
        if self._is_lost:
            yield first, end
            return
        for page in range(first // PAGE, -(-end // PAGE)):
            if self._base.has_page(page) or self._changed.has_page(page):
                numbers = range(max(first, page * PAGE), min(end, (page + 1) * PAGE))
                yield from _runs(number for number in numbers if not self.holds(number, HOLE))

    def change(self, first: int, entries: Iterable[bytes]) -> None:
        """Note the entries of changed chunks; before a change, their entries are unknown.

        :param first: number of the chunk of the first entry.
        """
        if self._is_lost:
            return
        try:
            for number, entry in enumerate(entries, first):
                self._changed[number] = _ZEROED if entry == HOLE else entry
        except IndexFull:
            # From now on, each call writes.
            self._is_lost = True

    def index(self) -> ChunkIndex | None:
        """Return the index of the volume after the copy; None if the index would be too large."""
        if self._is_lost:
            return None
        index = self._base.copy()
        try:
            for number, entry in self._changed.entries():
                index[number] = HOLE if entry == _ZEROED else entry
        except IndexFull:
            return None
        return index


def _runs(numbers: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Yield the runs of increasing numbers, as first number and end."""
    first = end = -1
    for number in numbers:
        if number != end:
            if end > first:
                yield first, end
            first = number
        end = number + 1
    if end > first:
        yield first, end


@implementer(IVolumeWriter)
class DeltaWriter:
    """A writer that writes only what differs.

    :param writer: the backend's writer.
    :param contents: the facts about the volume, which the writer uses and updates.
    :param threads: threads for hashing.
    """

    def __init__(self, writer: IVolumeWriter, contents: Contents, threads: Threads) -> None:
        self._writer = writer
        self._contents = contents
        self._threads = threads
        self.flush, self.close = writer.flush, writer.close

    async def write(self, offset: int, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.write`."""
        contents, end = self._contents, offset + len(data)
        entries = await self._threads.run(entries_of, offset, data)
        first = offset // CHUNK
        contents.kept += len(data)
        for start, stop in contents.unlike(first, entries):
            low, high = max(start * CHUNK, offset), min(stop * CHUNK, end)
            contents.change(start, repeat(UNKNOWN, stop - start))
            await self._writer.write(low, data[low - offset : high - offset])
            contents.change(start, entries[start - first : stop - first])
            contents.written += high - low
            contents.kept -= high - low

    async def zero(self, offset: int, length: int) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.zero`."""
        contents, end = self._contents, offset + length
        stale = contents.nonzero(offset // CHUNK, -(-end // CHUNK))
        for start, stop in await self._threads.run(list, stale):
            low, high = max(start * CHUNK, offset), min(stop * CHUNK, end)
            contents.change(start, repeat(UNKNOWN, stop - start))
            await self._writer.zero(low, high - low)
            whole = range(-(-low // CHUNK), high // CHUNK)
            contents.change(whole.start, repeat(HOLE, len(whole)))


class DeltaTarget(VolumeTarget):
    """A volume as a destination, made from a base if possible.

    The backend must clone, and its new volumes must read as zeros.

    :param name: name of the volume on its backend.
    :param size: size of the volume in bytes, as whole chunks.
    :param threads: threads for hashing.
    :param find_base: finds the base; without a base the volume begins with zeros.
    :ivar base: the base of the volume; None until the volume was renewed, and without a base.
    :ivar contents: the facts about the volume; None until the volume was renewed.
    """

    _log = Logger()

    def __init__(
        self,
        backend: IBlockBackend,
        name: str,
        size: int,
        threads: Threads,
        find_base: Callable[[], Awaitable[Base | None]],
    ) -> None:
        super().__init__(backend, name, size)
        self._threads = threads
        self._find_base = find_base
        self.base: Base | None = None
        self.contents: Contents | None = None

    async def renew(self) -> None:
        """See :meth:`VolumeTarget.renew`; begin with a clone of the base."""
        base = await self._find_base()
        if base is not None and not await self._clone(base):
            base = None
        if base is None:
            await super().renew()
        # The whole volume has to be written, for the writer to drop what is right already.
        self.capabilities = attrs.evolve(
            self.backend.capabilities, reads_zero_when_new=base is None
        )
        self.base = base
        index = ChunkIndex() if base is None else base.index
        # The clone of a larger volume has no data beyond its own size.
        index.cut(self.size // CHUNK)
        self.contents = Contents(index)

    async def replace(self) -> None:
        """See :meth:`VolumeTarget.replace`."""
        self.contents = None
        await super().replace()

    async def open_writer(self) -> IVolumeWriter:
        """See :meth:`VolumeTarget.open_writer`."""
        writer = await super().open_writer()
        if self.contents is None:
            return writer
        return DeltaWriter(writer, self.contents, self._threads)

    async def _clone(self, base: Base) -> bool:
        """Make the volume from the base; return whether that succeeded."""
        try:
            await self.clone(base.name, base.size)
        except (NoSpace, WrongStore, BackendInterrupted):
            # The work waits, or begins again.
            raise
        except BackendFailed as error:
            if short_of(error):
                raise
            # Most likely the cached image was just removed from the cache.
            self._log.info("{name} is no base: {error}", name=base.name, error=error)
            return False
        return True
