"""The destinations of an image's bytes, and the factory of copies."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import attrs
from twisted.internet.interfaces import IReactorTime

from bootvol.imaging.buffers import Memory
from bootvol.imaging.pipeline import Copy
from bootvol.interfaces import (
    Capabilities,
    IBlockBackend,
    IImageCloningBackend,
    ISharingBackend,
    IVolumeReader,
    IVolumeWriter,
)
from bootvol.model import Digest, Image
from bootvol.threads import Threads


@attrs.frozen
class Limits:
    """The resources that one import may use.

    :ivar checkpoint: bytes between two checkpoints.
    :ivar retries: how often in a row a source may break off before the import's checkpoint gets
        further than ever before.
    :ivar spool: the folder that holds containers while their disks are read.
    :ivar spool_size: limit of all containers in the spool together, in bytes; None for the free
        space.
    :ivar read_back: whether to read each volume once more, and compare it with the written bytes.
    :ivar strict: whether to refuse an image that nothing identifies as a disk.
    """

    checkpoint: int
    retries: int
    spool: Path
    spool_size: int | None = None
    read_back: bool = False
    strict: bool = False


class Place(Protocol):
    """The destination of a copy of an image's bytes."""

    @property
    def size(self) -> int:
        """The capacity in bytes."""

    @property
    def capabilities(self) -> Capabilities:
        """The declared capabilities."""

    async def renew(self) -> None:
        """Reset the destination, as if nothing had been written to it."""

    async def open_writer(self) -> IVolumeWriter:
        """Open the destination for writing."""

    async def open_reader(self) -> IVolumeReader:
        """Open the destination for reading."""


class OnBackend:
    """A volume as a destination.

    :param name: name of the volume on its backend.
    :param size: size of the volume in bytes.
    """

    def __init__(self, backend: IBlockBackend, name: str, size: int) -> None:
        self.size = size
        self.capabilities = backend.capabilities
        self.backend = backend
        self.name = name

    async def renew(self) -> None:
        """Allocate the volume anew: earlier writes may have left bytes in the image's holes."""
        await self.backend.delete(self.name)
        await self.backend.allocate(self.name, self.size)

    async def share(self, file: int) -> int | None:
        """Make the volume anew so that it shares the blocks of an open file.

        :param file: the file's descriptor.
        :returns: the size in bytes of the file, which the volume begins with; None if sharing is
            impossible: then no volume exists.
        """
        await self.backend.delete(self.name)
        return await ISharingBackend(self.backend).share(file, self.name, self.size)

    async def clone_image(self, location: str) -> int | None:
        """Make the volume anew as a clone of an image.

        :returns: the size in bytes of the image, which the volume begins with; None if cloning is
            impossible: then no volume exists.
        """
        await self.backend.delete(self.name)
        cloning = IImageCloningBackend(self.backend)
        return await cloning.clone_image(location, self.name, self.size)

    async def open_writer(self) -> IVolumeWriter:
        """Open the volume for writing."""
        return await self.backend.open_writer(self.name)

    async def open_reader(self) -> IVolumeReader:
        """Open the volume for reading."""
        return await self.backend.open_reader(self.name)


@attrs.frozen
class Copier:
    """A factory of copies that have not begun yet.

    :ivar memory: the memory of all copies.
    :ivar threads: the threads that hash.
    :ivar clock: the reactor.
    """

    limits: Limits
    memory: Memory
    threads: Threads
    clock: IReactorTime

    def copy(
        self, image: Image, place: Place, container: str | None = None, *, inspected: bool = True
    ) -> Copy:
        """Return a copy of ``image`` to ``place``.

        :param container: the known container format of an image that is copied as it is; else None.
        :param inspected: false for the content of a volume, which may be anything.
        """
        return Copy(
            image,
            place.size,
            place.capabilities,
            self.memory,
            self.threads,
            self.clock,
            self.limits.checkpoint,
            container,
            self.limits.read_back,
            self.limits.strict,
            inspected,
        )

    async def verify(self, place: Place, digest: Digest, length: int) -> None:
        """Read back the bytes written to ``place``, and compare them with a digest.

        :param length: how many of the first bytes the digest covers.
        :raises bootvol.errors.BackendFailed: if the backend returns other bytes, or none.
        """
        reader = await place.open_reader()
        try:
            await self.copy(Image("", "", "", "raw"), place).verify(reader, digest, length)
        finally:
            await reader.close()
