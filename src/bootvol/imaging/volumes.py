"""The existing content of a volume: as the stream of an image, or copied to another volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zope.interface import alsoProvides, implementer

from bootvol.imaging.blocks import runs, up_to_block, write_runs
from bootvol.interfaces import (
    IImageStream,
    ISparse,
    ISparseStream,
    IVolumeReader,
    IVolumeWriter,
)
from bootvol.model import Extent

#: Size in bytes of the beginning and of the end that :class:`Ends` reads.
_END: Final = 4 * 1024 * 1024


@implementer(IImageStream, ISparseStream)
class VolumeStream:
    """A stream of the first bytes of a volume.

    Targets of reads must have room for whole blocks.

    :param reader: reader of the volume.  The stream does not close the reader.
    :param size: number of bytes in the stream.
    :param block: the backend's block size in bytes.
    :param offset: first byte of the stream.
    :param validator: tells these bytes from all others; None if the volume may change.
    """

    def __init__(
        self,
        reader: IVolumeReader,
        size: int,
        block: int,
        offset: int = 0,
        validator: str | None = None,
    ) -> None:
        self.size: int | None = size
        self._size = size
        self.offset = offset
        self.validator = validator
        self._reader = reader
        self._sparse: ISparse | None = ISparse(reader, None)
        self._block = block
        self._left = size - offset
        self._next = offset

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        length = min(len(target), self._left)
        if length:
            await self._reader.read_into(self._next, target[: up_to_block(length, self._block)])
        self._next += length
        self._left -= length
        return length

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """See :meth:`bootvol.interfaces.ISparse.extents`."""
        if self._sparse is None:
            return [Extent(length, zero=False)]
        return await self._sparse.extents(offset, up_to_block(length, self._block))

    def skip(self, length: int) -> None:
        """See :meth:`bootvol.interfaces.ISparseStream.skip`."""
        self._next += length
        self._left -= length

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""


class Ends(VolumeStream):
    """A stream of a volume that reads only the beginning and the end, which show the format.

    The part between counts as zeros.  The parameters are the same as for :class:`VolumeStream`.
    """

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """See :meth:`bootvol.interfaces.ISparse.extents`."""
        end = (self._size - _END) // _END * _END
        if offset < _END:
            return [Extent(_END - offset, zero=False)]
        if offset < end:
            return [Extent(end - offset, zero=True)]
        return [Extent(length, zero=False)]


@implementer(IVolumeReader)
class CopyingReader:
    """A reader that also writes all read bytes to the same place of another volume.

    :param reader: reader of the first volume, not closed with this object.
    :param writer: writer of the other volume, not closed with this object.
    :param zeros: whether zeros have to be written, too.
    """

    def __init__(self, reader: IVolumeReader, writer: IVolumeWriter, *, zeros: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._zeros = zeros
        if ISparse.providedBy(reader) and not zeros:
            self.extents = ISparse(reader).extents
            alsoProvides(self, ISparse)

    async def read_into(self, offset: int, target: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeReader.read_into`.

        :raises bootvol.errors.BackendFailed: also if the other volume cannot be written.
        """
        await self._reader.read_into(offset, target)
        await write_runs(self._writer, offset, target, runs(target), zeros=self._zeros)

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeReader.close`."""


@implementer(IVolumeWriter)
class NullWriter:
    """A writer that drops its input, since the volume already has these bytes."""

    async def write(self, offset: int, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.write`."""

    async def zero(self, offset: int, length: int) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.zero`."""

    async def flush(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.flush`."""

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.close`."""
