"""The destinations of an image's bytes."""

from __future__ import annotations

from typing import Protocol

from bootvol.interfaces import (
    Capabilities,
    IBlockBackend,
    ICloningBackend,
    IImageCloningBackend,
    ISharingBackend,
    IVolumeReader,
    IVolumeWriter,
)


class Target(Protocol):
    """The destination of a copy of an image's bytes."""

    @property
    def size(self) -> int:
        """The capacity in bytes."""

    @property
    def capabilities(self) -> Capabilities:
        """The declared capabilities."""

    async def renew(self) -> None:
        """Reset the destination, as if nothing had been written to it.

        The capabilities may differ from then on.
        """

    async def open_writer(self) -> IVolumeWriter:
        """Open the destination for writing."""

    async def open_reader(self) -> IVolumeReader:
        """Open the destination for reading."""


class VolumeTarget:
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
        await self.replace()
        await self.backend.allocate(self.name, self.size)

    async def replace(self) -> None:
        """Remove the volume, for another volume of the same name."""
        await self.backend.delete(self.name)

    async def clone(self, source: str, held: int) -> None:
        """Make the volume anew as a clone of another one.

        :param source: name of the other volume on the backend, which has to clone.
        :param held: the bytes that the other volume must have.
        """
        await self.replace()
        await ICloningBackend(self.backend).clone(source, self.name, self.size, held)

    async def share(self, file: int) -> int | None:
        """Make the volume anew so that it shares the blocks of an open file.

        :param file: the file's descriptor.
        :returns: the size in bytes of the file, which the volume begins with; None if sharing is
            impossible: then no volume exists.
        """
        await self.replace()
        return await ISharingBackend(self.backend).share(file, self.name, self.size)

    async def clone_image(self, location: str) -> int | None:
        """Make the volume anew as a clone of an image.

        :returns: the size in bytes of the image, which the volume begins with; None if cloning is
            impossible: then no volume exists.
        """
        await self.replace()
        cloning = IImageCloningBackend(self.backend)
        return await cloning.clone_image(location, self.name, self.size)

    async def open_writer(self) -> IVolumeWriter:
        """Open the volume for writing."""
        return await self.backend.open_writer(self.name)

    async def open_reader(self) -> IVolumeReader:
        """Open the volume for reading."""
        return await self.backend.open_reader(self.name)
