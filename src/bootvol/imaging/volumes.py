"""What is on a volume, as the stream of an image."""

from __future__ import annotations

from zope.interface import implementer

from bootvol.interfaces import IImageStream, IVolumeReader


@implementer(IImageStream)
class VolumeStream:
    """The first bytes of a volume.

    Memory to read into must have room for whole blocks.

    :param reader: is not closed with the stream.
    :param size: how many, in bytes.
    :param block: the backend's block size in bytes.
    """

    def __init__(self, reader: IVolumeReader, size: int, block: int) -> None:
        self.size: int | None = size
        self.offset = 0
        self.validator: str | None = None
        self._reader = reader
        self._block = block
        self._left = size
        self._next = 0

    async def read_into(self, target: memoryview) -> int:
        """See :meth:`bootvol.interfaces.IImageStream.read_into`."""
        length = min(len(target), self._left)
        whole = -(-length // self._block) * self._block
        if length:
            await self._reader.read_into(self._next, target[:whole])
        self._next += length
        self._left -= length
        return length

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IImageStream.close`."""
