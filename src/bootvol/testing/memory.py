"""A backend in memory.

The backend passes the contract suite, and so can replace a real one in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from bootvol.clocks import sleep
from bootvol.errors import BackendFailed, VolumeCutOff, VolumeMissing
from bootvol.interfaces import (
    Capabilities,
    IBlockBackend,
    ICloningBackend,
    ISparse,
    IVolumeReader,
    IVolumeWriter,
)
from bootvol.model import ConnectionInfo, Extent

_PAGE: Final = 65536
_ZEROS: Final = bytes(_PAGE)


class Memory:
    """The bytes of one volume.  Only written pages are kept.

    :param size: size in bytes.
    :param fill: value of all unwritten bytes.
    """

    def __init__(self, size: int, fill: int) -> None:
        self.size = size
        self.pages: dict[int, bytes | bytearray] = {}
        self._fill = fill

    def write(self, offset: int, data: memoryview) -> None:
        """Write bytes."""
        for page, start, done, count in self._pieces(offset, len(data)):
            kept = self.pages.get(page)
            if not isinstance(kept, bytearray):
                kept = self.pages[page] = bytearray(kept or bytes([self._fill]) * _PAGE)
            kept[start : start + count] = data[done : done + count]

    def zero(self, offset: int, length: int) -> None:
        """Write zeros.  All whole pages of zeros share one object."""
        for page, start, _, count in self._pieces(offset, length):
            if count == _PAGE:
                self.pages[page] = _ZEROS
            else:
                self.write(page * _PAGE + start, memoryview(_ZEROS)[:count])

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes."""
        blank = bytes([self._fill]) * _PAGE
        return b"".join(
            bytes(self.pages.get(page, blank)[start : start + count])
            for page, start, _, count in self._pieces(offset, length)
        )

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield the known extents of a range, without reading its bytes."""
        blank = _ZEROS if self._fill == 0 else None
        for page, _, _, count in self._pieces(offset, length):
            yield Extent(count, zero=self.pages.get(page, blank) is _ZEROS)

    def _pieces(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        if not 0 <= offset <= offset + length <= self.size:
            raise BackendFailed("outside the volume")
        done = 0
        while done < length:
            page, start = divmod(offset + done, _PAGE)
            count = min(_PAGE - start, length - done)
            yield page, start, done, count
            done += count


@implementer(IBlockBackend, ICloningBackend)
class MemoryBackend:
    """A backend with volumes in memory.

    :param fill: byte value of new volumes.  With a value other than 0 they do not read zero when
        new.
    :param clones: whether the backend declares clones.
    :ivar volumes: the volumes by name.
    """

    def __init__(
        self,
        name: str,
        reactor: IReactorTime,
        fill: int = 0,
        block_size: int = 512,
        parallel_writes: int = 1,
        clones: bool = False,
    ) -> None:
        self.name = name
        self.capabilities = Capabilities(fill == 0, block_size, parallel_writes, clones)
        self.volumes: dict[str, Memory] = {}
        self._reactor = reactor
        self._fill = fill

    async def allocate(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.allocate`."""
        await self._turn()
        if self.volumes.setdefault(volume, Memory(size, self._fill)).size != size:
            raise BackendFailed("a volume of another size has this name")

    async def open_writer(self, volume: str) -> IVolumeWriter:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_writer`."""
        return await self._open(volume)

    async def open_reader(self, volume: str) -> IVolumeReader:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_reader`."""
        return await self._open(volume)

    async def _open(self, volume: str) -> _OpenMemory:
        await self._turn()
        return _OpenMemory(self._found(volume), self.capabilities.block_size, self._turn)

    async def clone(self, source: str, target: str, size: int, held: int = 0) -> None:
        """See :meth:`bootvol.interfaces.ICloningBackend.clone`."""
        await self._turn()
        found = self._found(source)
        if target in self.volumes:
            raise BackendFailed("a volume has this name")
        if found.size < held:
            raise VolumeCutOff(source, held)
        clone = self.volumes[target] = Memory(size, 0)
        kept = min(size, found.size)
        clone.write(0, memoryview(found.read(0, kept)))

    async def delete(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.delete`."""
        await self._turn()
        self.volumes.pop(volume, None)

    async def connection(self, volume: str) -> ConnectionInfo:
        """See :meth:`bootvol.interfaces.IBlockBackend.connection`.

        No program can use the connection.
        """
        self._found(volume)
        return ConnectionInfo("memory", volume)

    def _found(self, volume: str) -> Memory:
        try:
            return self.volumes[volume]
        except KeyError:
            raise VolumeMissing("there is no such volume") from None

    def _turn(self) -> Deferred[None]:
        """Let other coroutines run, as a real device does."""
        return sleep(self._reactor, 0)


@implementer(IVolumeWriter, IVolumeReader, ISparse)
class _OpenMemory:
    """An open volume."""

    def __init__(self, memory: Memory, block_size: int, turn: Callable[[], Deferred[None]]) -> None:
        self._memory: Memory | None = memory
        self._block_size = block_size
        self._turn = turn

    async def write(self, offset: int, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.write`."""
        await self._turn()
        self._checked(offset, len(data)).write(offset, data)

    async def zero(self, offset: int, length: int) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.zero`."""
        await self._turn()
        self._checked(offset, length).zero(offset, length)

    async def flush(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.flush`."""
        await self._turn()

    async def read_into(self, offset: int, target: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeReader.read_into`."""
        await self._turn()
        target[:] = self._checked(offset, len(target)).read(offset, len(target))

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """See :meth:`bootvol.interfaces.ISparse.extents`."""
        await self._turn()
        # Return only a few extents per call, as other backends do.
        return list(islice(self._checked(0, 0).extents(offset, length), 100))

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.close`."""
        self._memory = None

    def _checked(self, offset: int, length: int) -> Memory:
        if self._memory is None:
            raise BackendFailed("the volume has been closed")
        if offset % self._block_size or length % self._block_size:
            raise BackendFailed("not a whole number of blocks")
        return self._memory
