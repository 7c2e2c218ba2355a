"""Copies the disk in a container that leads through itself, and may be compressed as a whole.

No part of the image is read ahead, so any source will do.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from bootvol.imaging.buffers import Memory
from bootvol.imaging.decompress import DecompressingStream, unpacked
from bootvol.imaging.inspect import largest_container
from bootvol.imaging.pieces.guide import Guide
from bootvol.imaging.placing import PlacingCopy
from bootvol.interfaces import Capabilities, IImageStream, IVolumeWriter
from bootvol.model import Image
from bootvol.threads import Threads


class StreamingCopy(PlacingCopy):
    """The copy of the disk in one container to one volume, from any stream.

    The parameters and attributes are those of :class:`.PlacingCopy`.
    """

    def __init__(
        self,
        image: Image,
        guide: Guide,
        capabilities: Capabilities,
        volume_size: int,
        memory: Memory,
        threads: Threads,
        clock: IReactorTime,
    ) -> None:
        super().__init__(
            image, guide, None, None, capabilities, volume_size, memory, threads, clock
        )
        self._image = image
        self._unpacking: DecompressingStream | None = None

    @property
    def reached(self) -> tuple[int, str] | None:
        """See :attr:`.PlacingCopy.reached`."""
        if self._unpacking is None:
            return super().reached
        taken, validator = self._unpacking.taken, self._unpacking.packed_validator
        return (taken, validator) if taken and validator is not None else None

    def continues(self, stream: IImageStream) -> bool:
        """See :meth:`.PlacingCopy.continues`.  The source has compared the validators."""
        at = self.reached
        return stream.offset == (at[0] if at is not None else 0)

    async def run(self, stream: IImageStream, writer: IVolumeWriter) -> None:
        """See :meth:`.PlacingCopy.run`."""
        disk: IImageStream = stream
        if self._unpacking is not None:
            self._unpacking.go_on(stream)
            disk = self._unpacking
        elif not self._total:
            most = largest_container(self._volume_size)
            stated = self._image.digest
            disk, self._digester.stated = await unpacked(stream, stated, most, self._threads)
            self._digester.idle = self._digester.stated is None
            if isinstance(disk, DecompressingStream):
                self._unpacking = disk
            else:
                self.size, self.validator = stream.size, stream.validator
        try:
            await super().run(disk, writer)
        finally:
            # The caller still asks the stream for its file.
            if disk is not stream:
                await disk.close()
