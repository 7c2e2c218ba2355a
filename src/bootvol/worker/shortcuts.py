"""Ways to fill a volume without a copy of the image's bytes.

The importer asks the shortcuts in the order of :mod:`bootvol.composition`, and takes the first that
fills the volume. If none does, the importer copies the image.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from bootvol.imaging.target import VolumeTarget
from bootvol.interfaces import IFileStream, IImageStream, ILocatedStream
from bootvol.model import Image, Phase, Volume
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.progress import Heartbeat, Progress


@attrs.frozen
class Filling:
    """A volume to fill with an image.

    :ivar content: key of the image's bytes; None if no key is known.
    :ivar heartbeat: records ``progress`` durably.
    """

    volume: Volume
    image: Image
    content: str | None
    target: VolumeTarget
    progress: Progress
    heartbeat: Heartbeat

    async def begin(self) -> None:
        """Note that a shortcut is about to change the volume: earlier bytes are of no use."""
        self.progress.phase = Phase.CLONING
        await self.progress.forget(self.heartbeat)


class Shortcut(Protocol):
    """A way to fill a volume. A shortcut that is impossible changes nothing, or leaves no volume.

    :raises bootvol.errors.NoSpace: if the backend has no room for the volume.
    :raises bootvol.errors.BackendFailed: if the backend fails.
    """

    async def before_source(self, filling: Filling) -> bool:
        """Try to fill the volume before the source is asked.

        :returns: whether the volume is complete, verified and durable.
        """

    async def from_stream(self, filling: Filling, stream: IImageStream) -> int | None:
        """Try to fill the volume from where the image is stored, without reading the stream.

        :param stream: the image at its source.
        :returns: the size of the image in bytes, which the volume begins with; None if impossible.
            The caller then examines the volume.
        """


class NoShortcut:
    """The base of shortcuts: every way is impossible."""

    async def before_source(self, filling: Filling) -> bool:
        """See :meth:`Shortcut.before_source`."""
        return False

    async def from_stream(self, filling: Filling, stream: IImageStream) -> int | None:
        """See :meth:`Shortcut.from_stream`."""
        return None


class FromImageCache(NoShortcut):
    """Clones or copies a cached image of the same content on the same backend."""

    def __init__(self, image_cache: ImageCache) -> None:
        self._image_cache = image_cache

    async def before_source(self, filling: Filling) -> bool:
        """See :meth:`Shortcut.before_source`."""
        return filling.content is not None and await self._image_cache.fill(
            filling.volume, filling.content, filling.progress, filling.heartbeat
        )


class SharedBlocks(NoShortcut):
    """Shares the blocks of an image file with the volume (reflink)."""

    async def from_stream(self, filling: Filling, stream: IImageStream) -> int | None:
        """See :meth:`Shortcut.from_stream`."""
        if not (filling.target.capabilities.shares and IFileStream.providedBy(stream)):
            return None
        file = IFileStream(stream)
        await filling.begin()
        size = await filling.target.share(file.fileno())
        if size is not None:
            # A file that was being written to may have held neither the old nor the new image.
            await file.check()
        return size


class ImageClone(NoShortcut):
    """Clones an image that is stored beside the volumes, as in a Ceph cluster."""

    async def from_stream(self, filling: Filling, stream: IImageStream) -> int | None:
        """See :meth:`Shortcut.from_stream`."""
        if not (filling.target.capabilities.clones_images and ILocatedStream.providedBy(stream)):
            return None
        location = ILocatedStream(stream).location
        if location is None:
            return None
        await filling.begin()
        size = await filling.target.clone_image(location)
        # The image at that location may differ from the image that the source would send.
        return size if stream.size in (None, size) else None
