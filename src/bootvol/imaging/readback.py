"""Reads a volume in order, and skips the zeros that its reader knows."""

from __future__ import annotations

from collections.abc import Callable

from bootvol.errors import BackendFailed, DigestMismatch
from bootvol.imaging.blocks import up_to_block
from bootvol.imaging.buffers import Memory
from bootvol.imaging.digest import Digester
from bootvol.imaging.extents import STEP, Ahead
from bootvol.interfaces import IVolumeReader
from bootvol.model import Digest
from bootvol.threads import Threads


class ReadBack:
    """A sequential reader of volumes of one backend.

    :param block: the backend's block size in bytes.
    :ivar done: progress in bytes.
    """

    def __init__(self, block: int, memory: Memory, threads: Threads) -> None:
        self.done = 0
        self._block = block
        self._memory = memory
        self._threads = threads

    async def run(
        self,
        reader: IVolumeReader,
        end: int,
        take: Callable[[int, memoryview], None],
        take_zeros: Callable[[int], None],
    ) -> None:
        """Pass the content of a volume to ``take`` and ``take_zeros``, in a thread, in order.

        :param end: number of bytes to pass, from the volume's start.
        :param take: called with the offset of the read bytes (from the volume's start) and the
            bytes.
        :param take_zeros: called with the number of the next zeros, which were not read.
        :raises bootvol.errors.BackendFailed: if the volume cannot be read.
        """
        ahead = Ahead(reader, end, STEP)
        offset = 0
        with self._memory.lend() as pool:
            buffer = await pool.take()
            while offset < end:
                extent = await ahead.at(offset, pool.size)
                length = min(extent.length, end - offset)
                if extent.zero:
                    await self._threads.run(take_zeros, length)
                else:
                    whole = up_to_block(length, self._block)
                    await reader.read_into(offset, buffer[:whole])
                    await self._threads.run(take, offset, buffer[:length])
                offset += length
                self.done = offset

    async def verify(self, reader: IVolumeReader, digest: Digest, length: int) -> None:
        """Read a volume, and compare its content with a digest.

        :param length: number of bytes that the digest covers, from the volume's start.
        :raises bootvol.errors.BackendFailed: if the content differs, or cannot be read.
        """
        found = Digester(digest)
        await self.run(reader, length, lambda _, data: found.update(data), found.skip)
        try:
            found.verify()
        except DigestMismatch:
            raise BackendFailed("The volume returns other bytes than those written.") from None
