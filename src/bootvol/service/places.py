"""Where the bytes of an image go, and how they are copied there."""

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
    """What one import may use.

    :ivar checkpoint: bytes between two checkpoints.
    :ivar retries: how often in a row a source may break off before the import has come further, by
        its checkpoint, than ever before.
    :ivar spool: the folder where containers are kept while their disks are read.
    :ivar spool_size: the most that all of them together may take there, in bytes; None is as much
        as there is.
    :ivar read_back: whether a volume is read once more, and held against what was written.
    :ivar strict: whether an image is refused that nothing tells to be a disk.
    """

    checkpoint: int
    retries: int
    spool: Path
    spool_size: int | None = None
    read_back: bool = False
    strict: bool = False


class Place(Protocol):
    """Where a copy of an image's bytes goes."""

    @property
    def size(self) -> int:
        """The most that it holds, in bytes."""

    @property
    def capabilities(self) -> Capabilities:
        """What it promises."""

    async def renew(self) -> None:
        """Let it be as if nothing had been written to it."""

    async def open_writer(self) -> IVolumeWriter:
        """Open it for writing."""

    async def open_reader(self) -> IVolumeReader:
        """Open it for reading."""


class OnBackend:
    """A volume as a place.

    :param name: of the volume on its backend.
    :param size: of the volume in bytes.
    """

    def __init__(self, backend: IBlockBackend, name: str, size: int) -> None:
        self.size = size
        self.capabilities = backend.capabilities
        self.backend = backend
        self.name = name

    async def renew(self) -> None:
        """Allocate the volume anew: what was written earlier may lie where there are holes now."""
        await self.backend.delete(self.name)
        await self.backend.allocate(self.name, self.size)

    async def share(self, file: int) -> int | None:
        """Let the volume, made anew, share the blocks of an open file.

        :returns: the bytes of the file, which the volume begins with; None if that cannot be: then
            there is no volume.
        """
        await self.backend.delete(self.name)
        return await ISharingBackend(self.backend).share(file, self.name, self.size)

    async def clone_image(self, location: str) -> int | None:
        """Let the volume, made anew, be a clone of an image.

        :returns: the bytes of the image, which the volume begins with; None if that cannot be: then
            there is no volume.
        """
        await self.backend.delete(self.name)
        cloning = IImageCloningBackend(self.backend)
        return await cloning.clone_image(location, self.name, self.size)

    async def open_writer(self) -> IVolumeWriter:
        """Open it for writing."""
        return await self.backend.open_writer(self.name)

    async def open_reader(self) -> IVolumeReader:
        """Open it for reading."""
        return await self.backend.open_reader(self.name)


@attrs.frozen
class Copier:
    """Makes copies that have not begun yet.

    :ivar memory: of all of them.
    :ivar threads: where hashing happens.
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

        :param container: the format that the image is known to be packed in, if it is to be copied
            as it is.
        :param inspected: false for what a volume holds: that may be anything.
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
        """Read back what was written to ``place``, and hold it against a digest.

        :param length: how many first bytes the digest is of.
        :raises bootvol.errors.BackendFailed: it gives back something else, or nothing.
        """
        reader = await place.open_reader()
        try:
            await self.copy(Image("", "", "", "raw"), place).verify(reader, digest, length)
        finally:
            await reader.close()
