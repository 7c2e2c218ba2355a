"""Decodes several parts of a compressed image at once.

The reader's thread decodes the first part into the reader's memory.  Meanwhile, other threads
decode the beginnings of the next parts ahead.  So less than one part waits in memory.

The memory for this is the memory of the larger buffers (:class:`bootvol.imaging.buffers.Memory`),
so only one import at a time decodes in parallel.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from itertools import islice
from typing import Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from bootvol.errors import ImageCorrupt, ImportFailed
from bootvol.imaging.buffers import Memory
from bootvol.imaging.compression import Compression
from bootvol.imaging.decoding import INPUT, ROOM, Decoded
from bootvol.imaging.digest import Digester
from bootvol.imaging.parts import Lease, Part, Spare
from bootvol.imaging.sections import Sections
from bootvol.imaging.splitting import Splitter
from bootvol.interfaces import IImageStream
from bootvol.threads import Shared, Threads, outlast

#: The most compressed bytes that wait for decoders, and the most bytes decoded ahead.
_MOST_INPUT: Final = 4 * 1024 * 1024
_MOST_AHEAD: Final = 8 * 1024 * 1024
#: The most memory that the decoders ahead may take.
_MOST_NEEDS: Final = 8 * 1024 * 1024
#: The most parts decoded ahead at once.
_MOST_PARTS: Final = 3


def parallel(
    packed: IImageStream,
    head: bytes,
    compression: Compression,
    digester: Digester,
    most: int,
    threads: Threads,
    memory: Memory | None,
) -> Decoded | None:
    """Return a parallel decoder of an image; None if one thread serves as well.

    :param head: the first bytes of the image.
    :param memory: provider of the memory; None for no memory.

    The other parameters are those of :class:`bootvol.imaging.decoding.Decoded`.
    """
    ahead = min(_cores() - 1, _MOST_PARTS)
    splitter = compression.splitter(head)
    if splitter is None or not ahead or memory is None or not memory.claim():
        return None
    decoded = _InParallel(packed, compression, digester, most, threads)
    decoded.begin(splitter, ahead, memory)
    return decoded


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@implementer(IImageStream)
class _InParallel(Decoded):
    """The decoded stream of several decoders."""

    def begin(self, splitter: Splitter, ahead: int, memory: Memory) -> None:
        """Set the splitter, and the claimed memory.

        :param ahead: the most parts to decode ahead at once.
        """
        self._sections = Sections(splitter)
        self._ahead = ahead
        self._parts: deque[Part] = deque()
        # Whether the next bytes belong to the last part.
        self._open = False
        self._memory = Spare()
        self._hash_lease: Lease = []
        self._foreign = False
        # The source's failure, until all received bytes are decoded.
        self._broken: ImportFailed | None = None
        self._release = weakref.finalize(self, memory.release)
        self._release.atexit = False

    @property
    def foreign(self) -> bool:
        """True if foreign bytes follow the last member."""
        return self._foreign or any(each.foreign for each in self._parts)

    @property
    def ended_by_itself(self) -> bool:
        """True once the decoders have found the end."""
        whole = not self._sections.within and all(each.between for each in self._parts)
        return whole and self.taken > 0

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
        try:
            for each in self._parts:
                await each.stop()
        finally:
            await super().close()

    async def _decode(self, target: memoryview) -> int:
        done = 0
        while self._parts and done < len(target):
            part = self._parts[0]
            await part.stop()
            done += await self._beside(part, target[done:])
            if part.ended:
                part.check_whole()
                self._foreign |= part.foreign
                if part.foreign and (len(self._parts) > 1 or not self._open):
                    raise ImageCorrupt(
                        f"The {self.compression.called} cannot be unpacked: foreign bytes lie in"
                        " the middle."
                    )
                self._parts.popleft()
            elif not part.has_input:
                break
        return done

    async def _beside(self, part: Part, target: memoryview) -> int:
        """Decode the first part.  Beside that, receive bytes, and decode other parts ahead."""
        running = Shared(Deferred.fromCoroutine(self._threads.run(part.unpack, target)))
        try:
            while not running.ended:
                self._begin_ahead()
                held = sum(each.held for each in self._parts)
                if self._ended or self._broken is not None or held >= _MOST_INPUT:
                    break
                if self._coming is None:
                    self._coming = self._ask()
                await _first_of(running, self._coming)
                if self._coming.ended:
                    try:
                        await super()._fetch()
                    except ImportFailed as error:
                        self._broken = error
        finally:
            count = await outlast(running.wait())
        return count

    def _begin_ahead(self) -> None:
        """Let other threads decode the next parts."""
        needs = 0
        for each in islice(self._parts, 1, 1 + self._ahead):
            needs += each.needs
            if needs > _MOST_NEEDS:
                break
            each.begin_ahead(self._threads)

    def _check_whole(self) -> None:
        self._raise_broken()
        if self._sections.within:
            raise ImageCorrupt(f"The {self.compression.called} is incomplete.")
        self._release()

    async def _hashed(self) -> None:
        await super()._hashed()
        self._memory.give_back(self._hash_lease)
        self._hash_lease = []

    async def _fetch(self) -> None:
        self._raise_broken()
        await super()._fetch()

    def _raise_broken(self) -> None:
        if self._broken is not None:
            broken, self._broken = self._broken, None
            raise broken

    def _ask(self) -> Shared[int]:
        # The parts keep the memory of the former input.
        self._filling = self._memory.input(ROOM + INPUT)
        return super()._ask()

    async def _take(self, length: int) -> None:
        received = self._filling[ROOM : ROOM + length]
        sections = await self._threads.run(self._sections.split, received)
        views = [isinstance(each, memoryview) for section in sections for each in section.pieces]
        # The digest reads the input, too.
        lease = self._hash_lease = self._memory.shared(self._filling, sum(views) + 1)
        for section in sections:
            if not self._open:
                self._parts.append(self._new_part())
                self._open = True
            part = self._parts[-1]
            part.needs = max(part.needs, section.needs)
            for piece in section.pieces:
                part.give(memoryview(piece), lease if isinstance(piece, memoryview) else [])
            if section.ends:
                part.whole, self._open = True, False
        if self._ended and self._open:
            self._parts[-1].whole = True

    def _new_part(self) -> Part:
        return Part(self.compression, _MOST_AHEAD // self._ahead, self._memory)


async def _first_of(*calls: Shared[int]) -> None:
    """Wait until one of the calls has ended."""
    # A DeferredList would hide a cancellation: its own Deferreds would end first.
    first: Deferred[None] = Deferred()

    def ended(_: object) -> None:
        if not first.called:
            first.callback(None)

    waiting = [each.wait() for each in calls]
    for each in waiting:
        each.addBoth(ended)
    try:
        await first
    finally:
        for each in waiting:
            each.cancel()
