"""Wrappers that make backends and sources fail on request.  By default they change nothing.

::

    faults = Faults(full_at=8 * 1024 * 1024)
    backend = FaultyBackend(MemoryBackend("mine", reactor), faults, reactor)

Offsets are in bytes, from the start of the volume or image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from twisted.internet.interfaces import IReactorTime
from zope.interface import alsoProvides, implementer

from bootvol.clocks import sleep
from bootvol.errors import NoSpace, SourceFailed
from bootvol.interfaces import (
    Capabilities,
    IBlockBackend,
    ICloningBackend,
    ICountingBackend,
    IGrowingBackend,
    IGuardedBackend,
    IIdentifiedBackend,
    IImageCloningBackend,
    IImageSource,
    IImageStream,
    IMeasuredBackend,
    IPartSource,
    IRoutingBackend,
    ISharingBackend,
    ISparse,
    ISparseStream,
    IVolumeReader,
    IVolumeWriter,
    Room,
)
from bootvol.model import Caller, ConnectionInfo, Extent, Image, Route

#: The optional interfaces of a backend.
_OPTIONAL: Final = (
    ICloningBackend,
    ISharingBackend,
    IImageCloningBackend,
    IIdentifiedBackend,
    IGuardedBackend,
    ICountingBackend,
    IGrowingBackend,
    IRoutingBackend,
    IMeasuredBackend,
)


@attrs.define
class Faults:
    """The faults of a wrapper.  A test may change them at any time.

    :ivar delay: delay of reads, writes and flushes in seconds, by the clock of the wrapper.
    :ivar errors: errors by method name of the backend, a writer, a reader, the source or a stream.
        The method raises the error until the entry is removed.
    :ivar full_at: offset where the backend is full.  A write beyond raises NoSpace, after writing
        the bytes before this offset.
    :ivar breaks_at: offset where the stream breaks.  A read beyond raises SourceFailed, and so does
        a question about extents from there on.
    :ivar short_writes: whether writes silently omit their last block.  A test must find this
        defect.
    :ivar longest_read: largest number of bytes per read of a stream; also a defect.
    """

    delay: float = 0
    errors: dict[str, Exception] = attrs.Factory(dict)
    full_at: int | None = None
    breaks_at: int | None = None
    short_writes: bool = False
    longest_read: int | None = None

    async def meet(self, clock: IReactorTime, method: str, waits: bool = False) -> None:
        """Delay and raise as configured for a method.

        :param clock: provides IReactorTime.
        """
        if waits and self.delay:
            await sleep(clock, self.delay)
        if method in self.errors:
            raise self.errors[method]


@implementer(IVolumeWriter)
@attrs.define
class _Writer:
    _inner: IVolumeWriter
    _faults: Faults
    _clock: IReactorTime
    _block: int

    async def write(self, offset: int, data: memoryview) -> None:
        await self._faults.meet(self._clock, "write", waits=True)
        full_at = self._faults.full_at
        if full_at is not None and offset + len(data) > full_at:
            room = max(0, full_at - offset) // self._block * self._block
            if room:
                await self._inner.write(offset, data[:room])
            raise NoSpace("The backend is full.")
        kept = data[: -self._block] if self._faults.short_writes else data
        if kept:
            await self._inner.write(offset, kept)

    async def zero(self, offset: int, length: int) -> None:
        await self._faults.meet(self._clock, "zero", waits=True)
        await self._inner.zero(offset, length)

    async def flush(self) -> None:
        await self._faults.meet(self._clock, "flush", waits=True)
        await self._inner.flush()

    async def close(self) -> None:
        await self._inner.close()


@implementer(IVolumeReader)
@attrs.define(slots=False)
class _Reader:
    _inner: IVolumeReader
    _faults: Faults
    _clock: IReactorTime

    def __attrs_post_init__(self) -> None:
        if ISparse.providedBy(self._inner):
            alsoProvides(self, ISparse)

    async def read_into(self, offset: int, target: memoryview) -> None:
        await self._faults.meet(self._clock, "read_into", waits=True)
        await self._inner.read_into(offset, target)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        await self._faults.meet(self._clock, "extents", waits=True)
        found: Sequence[Extent] = await ISparse(self._inner).extents(offset, length)
        return found

    async def close(self) -> None:
        await self._inner.close()


@implementer(IBlockBackend)
class FaultyBackend:
    """A wrapper of a backend, with the same optional interfaces.

    :param faults: the faults to show.
    :param clock: provides IReactorTime.
    """

    def __init__(self, inner: IBlockBackend, faults: Faults, clock: IReactorTime) -> None:
        self._inner = inner
        self._faults = faults
        self._clock = clock
        self.name = inner.name
        for optional in _OPTIONAL:
            if optional.providedBy(inner):
                alsoProvides(self, optional)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the wrapped backend."""
        return self._inner.capabilities

    async def allocate(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.allocate`."""
        await self._faults.meet(self._clock, "allocate")
        await self._inner.allocate(volume, size)

    async def open_writer(self, volume: str) -> IVolumeWriter:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_writer`."""
        await self._faults.meet(self._clock, "open_writer")
        inner = await self._inner.open_writer(volume)
        return _Writer(inner, self._faults, self._clock, self.capabilities.block_size)

    async def open_reader(self, volume: str) -> IVolumeReader:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_reader`."""
        await self._faults.meet(self._clock, "open_reader")
        return _Reader(await self._inner.open_reader(volume), self._faults, self._clock)

    async def delete(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.delete`."""
        await self._faults.meet(self._clock, "delete")
        await self._inner.delete(volume)

    async def connection(self, volume: str) -> ConnectionInfo:
        """See :meth:`bootvol.interfaces.IBlockBackend.connection`."""
        await self._faults.meet(self._clock, "connection")
        return await self._inner.connection(volume)

    async def check_unused(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IGuardedBackend.check_unused`."""
        await self._faults.meet(self._clock, "check_unused")
        await IGuardedBackend(self._inner).check_unused(volume)

    async def check_closed(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.ICountingBackend.check_closed`."""
        await self._faults.meet(self._clock, "check_closed")
        await ICountingBackend(self._inner).check_closed(volume)

    async def route(self, volume: str) -> Route:
        """See :meth:`bootvol.interfaces.IRoutingBackend.route`."""
        await self._faults.meet(self._clock, "route")
        return await IRoutingBackend(self._inner).route(volume)

    async def grow(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IGrowingBackend.grow`."""
        await self._faults.meet(self._clock, "grow")
        await IGrowingBackend(self._inner).grow(volume, size)

    async def room(self) -> Room | None:
        """See :meth:`bootvol.interfaces.IMeasuredBackend.room`."""
        await self._faults.meet(self._clock, "room")
        room: Room | None = await IMeasuredBackend(self._inner).room()
        return room

    async def identity(self) -> str:
        """See :meth:`bootvol.interfaces.IIdentifiedBackend.identity`."""
        await self._faults.meet(self._clock, "identity")
        identity: str = await IIdentifiedBackend(self._inner).identity()
        return identity

    def expect(self, identity: str) -> None:
        """See :meth:`bootvol.interfaces.IIdentifiedBackend.expect`."""
        IIdentifiedBackend(self._inner).expect(identity)

    async def clone(self, source: str, target: str, size: int, held: int = 0) -> None:
        """See :meth:`bootvol.interfaces.ICloningBackend.clone`."""
        await self._faults.meet(self._clock, "clone")
        await ICloningBackend(self._inner).clone(source, target, size, held)

    async def share(self, file: int, volume: str, size: int) -> int | None:
        """See :meth:`bootvol.interfaces.ISharingBackend.share`."""
        await self._faults.meet(self._clock, "share")
        shared: int | None = await ISharingBackend(self._inner).share(file, volume, size)
        return shared

    async def clone_image(self, location: str, volume: str, size: int) -> int | None:
        """See :meth:`bootvol.interfaces.IImageCloningBackend.clone_image`."""
        await self._faults.meet(self._clock, "clone_image")
        cloned: int | None = await IImageCloningBackend(self._inner).clone_image(
            location, volume, size
        )
        return cloned


@implementer(IImageStream)
class _Stream:
    def __init__(self, inner: IImageStream, faults: Faults, clock: IReactorTime) -> None:
        self._inner = inner
        self._faults = faults
        self._clock = clock
        self._at = inner.offset
        self.size, self.offset, self.validator = inner.size, inner.offset, inner.validator
        if ISparseStream.providedBy(inner):
            alsoProvides(self, ISparseStream)

    async def read_into(self, target: memoryview) -> int:
        await self._faults.meet(self._clock, "read_into", waits=True)
        length = len(target)
        if self._faults.longest_read is not None:
            length = min(length, self._faults.longest_read)
        breaks_at = self._faults.breaks_at
        if breaks_at is not None and self._at + length > breaks_at:
            raise SourceFailed("The connection broke off.")
        count = await self._inner.read_into(target[:length])
        self._at += count
        return count

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        await self._faults.meet(self._clock, "extents", waits=True)
        breaks_at = self._faults.breaks_at
        if breaks_at is not None and offset >= breaks_at:
            raise SourceFailed("The connection broke off.")
        found: Sequence[Extent] = await ISparseStream(self._inner).extents(offset, length)
        return found

    def skip(self, length: int) -> None:
        ISparseStream(self._inner).skip(length)
        self._at += length

    async def close(self) -> None:
        await self._inner.close()


@implementer(IImageSource)
class FaultySource:
    """A wrapper of a source.  Its streams never provide files for sharing blocks.

    :param faults: the faults to show.
    :param clock: provides IReactorTime.
    """

    def __init__(self, inner: IImageSource, faults: Faults, clock: IReactorTime) -> None:
        self._inner = inner
        self._faults = faults
        self._clock = clock
        self.name = inner.name
        if IPartSource.providedBy(inner):
            alsoProvides(self, IPartSource)

    async def images(self, caller: Caller) -> Sequence[Image]:
        """See :meth:`bootvol.interfaces.IImageSource.images`."""
        await self._faults.meet(self._clock, "images")
        return await self._inner.images(caller)

    async def find(self, caller: Caller, reference: str) -> Image:
        """See :meth:`bootvol.interfaces.IImageSource.find`."""
        await self._faults.meet(self._clock, "find")
        return await self._inner.find(caller, reference)

    async def open(
        self, image: Image, offset: int = 0, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IImageSource.open`."""
        await self._faults.meet(self._clock, "open")
        inner = await self._inner.open(image, offset, validator)
        return _Stream(inner, self._faults, self._clock)

    async def open_part(
        self, image: Image, offset: int, length: int, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IPartSource.open_part`."""
        await self._faults.meet(self._clock, "open_part")
        inner = await IPartSource(self._inner).open_part(image, offset, length, validator)
        return _Stream(inner, self._faults, self._clock)
