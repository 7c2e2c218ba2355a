"""Fills a volume with the disk of a container while the container arrives, without a spool.

For some formats, the source has to give parts of the image: the tables that lead to the disk's
clusters are read first. Otherwise the importer takes the way through the spool.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from bootvol.errors import (
    DigestMismatch,
    ImageCorrupt,
    ImageTruncated,
    ImportFailed,
    SourceFailed,
)
from bootvol.imaging.containers import other_format
from bootvol.imaging.inspect import CONTAINERS, check_container_size, is_misnamed
from bootvol.imaging.pieces.guide import Guide, TablesChanged
from bootvol.imaging.pieces.limits import ALIGNED, Limits
from bootvol.imaging.pieces.maps import Map, MapGuide, Read
from bootvol.imaging.pieces.pieces import Unusual
from bootvol.imaging.placing import PlacingCopy
from bootvol.imaging.qcow2 import tables as qcow2
from bootvol.imaging.source_size import has_ended
from bootvol.imaging.streaming import StreamingCopy
from bootvol.imaging.vdi import blocks as vdi
from bootvol.imaging.vmdk.markers import MarkerGuide
from bootvol.interfaces import (
    IFileStream,
    IImageSource,
    IImageStream,
    IPartSource,
    IPrefetchingStream,
    IPrefixedStream,
)
from bootvol.model import UNEXPECTED_FORMAT, Phase
from bootvol.threads import Threads
from bootvol.worker.copier import Copier
from bootvol.worker.progress import Progress
from bootvol.worker.shortcuts import Filling

#: Formats whose images are led through by a map of their tables, and the readers of the maps.
_MAPPED: Final[Mapping[str, Callable[[bytes, int, Read, Limits, Threads], Awaitable[Map]]]] = {
    "qcow2": qcow2.read_map,
    "vdi": vdi.read_map,
}
#: Formats whose images lead through themselves.
_STREAMED: Final[Mapping[str, Callable[[Limits], Guide]]] = {"vmdk": MarkerGuide}

#: First bytes to read at once: usually all of a small image's tables.
_FIRST: Final = 512 * 1024


class NotPlaceable(Exception):
    """The image, or its source, needs the spool. The volume may hold any bytes."""


class _Parts:
    """Reads parts of an image.

    :param pace: limits how fast a stream is read.
    :ivar size: size of the image's file in bytes.
    :ivar validator: validator of the image.
    """

    def __init__(
        self, source: IImageSource, filling: Filling, pace: Callable[[IImageStream], IImageStream]
    ) -> None:
        self._source = source
        self._image = filling.image
        self._progress = filling.progress
        self._pace = pace
        self._head = b""
        self.validator, self.size = "", 0

    async def begin(self) -> bytes:
        """Read and return the image's first bytes.

        :raises NotPlaceable: if the source states no size or no validator.
        """
        stream = self._pace(await self._open(0, _FIRST, None))
        try:
            if stream.offset or stream.size is None or stream.validator is None:
                raise NotPlaceable
            self.size, self.validator = stream.size, stream.validator
            self._head = await self._bytes(stream, min(_FIRST, stream.size))
        finally:
            await stream.close()
        return self._head

    async def read(self, offset: int, length: int) -> bytes:
        """Return exactly ``length`` bytes at ``offset``.

        :raises NotPlaceable: if the source cannot begin near ``offset``, or has another image now.
        :raises bootvol.errors.ImportFailed: if the source breaks off.
        """
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        sent = await self._open(offset, length, self.validator)
        stream = self._pace(sent)
        try:
            if IPrefixedStream.providedBy(sent) and IPrefixedStream(sent).prefix > _FIRST:
                raise NotPlaceable
            if stream.offset != offset or stream.size not in (None, self.size):
                raise NotPlaceable
            return await self._bytes(stream, length)
        finally:
            await stream.close()

    async def _open(self, offset: int, length: int, validator: str | None) -> IImageStream:
        if IPartSource.providedBy(self._source):
            parts = IPartSource(self._source)
            part: IImageStream = await parts.open_part(self._image, offset, length, validator)
            return part
        return await self._source.open(self._image, offset, validator)

    async def _bytes(self, stream: IImageStream, length: int) -> bytes:
        data = bytearray(length)
        if await stream.read_into(memoryview(data)) < length:
            raise ImageTruncated("The image ended within its tables.")
        # Nothing else shows that the work goes on.
        self._progress.parts += 1
        return bytes(data)


class Placer:
    """Imports images without a spool.

    :param paced: returns a stream that reads no faster than its import may.
    """

    def __init__(
        self, copier: Copier, paced: Callable[[Filling, IImageStream], IImageStream]
    ) -> None:
        self._copier = copier
        self._paced = paced

    def can_place(self, container: str, *, unpacked: bool) -> bool:
        """Return whether an image need not be spooled because of its format.

        :param container: format of the container.
        :param unpacked: whether the image is compressed as a whole, or in an archive.
        """
        return container in _STREAMED or (container in _MAPPED and not unpacked)

    async def attempt(self, filling: Filling, source: IImageSource, container: str) -> int:
        """Copy the disk until it is complete, or until the source breaks off.

        After a break the next attempt continues where this one ended.

        :param container: format of the image.
        :returns: the size of the disk in bytes.
        :raises NotPlaceable: if the image needs the spool.
        :raises bootvol.errors.ImportFailed: if the image is broken, or the source fails.
        :raises bootvol.errors.BackendFailed: if the volume cannot be written.
        """
        progress, earlier = filling.progress, filling.progress.copy
        if isinstance(earlier, PlacingCopy) and earlier.can_go_on:
            copy = earlier
        else:
            copy = await self._new_copy(filling, source, container)
        async with AsyncExitStack() as stack:
            at = copy.reached
            stream = await source.open(filling.image, *(at or ()))
            self._copier.lend_ahead(stream, stack)
            stack.push_async_callback(stream.close)
            progress.validator = stream.validator
            held = progress.stated.hold(stream)
            if not copy.continues(stream):
                if at is None:
                    # The source may have mirrors with different validators.
                    raise NotPlaceable
                raise await self._image_changed(filling)
            writer = await filling.target.open_writer()
            stack.push_async_callback(writer.close)
            progress.begin(copy, Phase.DOWNLOADING, self._copier.clock.seconds())
            try:
                await copy.run(self._paced(filling, held), writer)
                await check_file(stream)
            except Unusual as error:
                await progress.forget(filling.heartbeat)
                raise NotPlaceable from error
            except TablesChanged as error:
                raise await self._image_changed(filling) from error
            except ImportFailed as error:
                await writer.flush()
                await check_doubtful(error, stream, held, progress)
                raise
            if is_misnamed(filling.image, container):
                progress.warn(UNEXPECTED_FORMAT)
            return copy.disk_size

    async def _new_copy(
        self, filling: Filling, source: IImageSource, container: str
    ) -> PlacingCopy:
        """Return a copy from the image's first byte, and make the volume as good as new."""
        copier, target, image = self._copier, filling.target, filling.image
        filling.progress.start_over()
        await filling.progress.forget(filling.heartbeat)
        limits = Limits.of(target.size, target.capabilities, copier.memory)
        rest = target.size, copier.memory, copier.threads, copier.clock
        if (guide := _STREAMED.get(container)) is not None:
            await target.renew()
            # The renewal may have changed the capabilities.
            return StreamingCopy(image, guide(limits), target.capabilities, *rest)
        parts = _Parts(source, filling, partial(self._paced, filling))
        head = await parts.begin()
        check_container_size(parts.size, target.size)
        at, magic, _ = CONTAINERS[container]
        if not head.startswith(magic, at):
            raise other_format(container)
        try:
            read_map = _MAPPED[container]
            mapped = await read_map(head, parts.size, parts.read, limits, copier.threads)
        except Unusual as error:
            raise NotPlaceable from error
        await target.renew()
        # Plain pieces are split at whole blocks.
        unit = max(ALIGNED, limits.block)
        map_guide, able = MapGuide(mapped, unit), target.capabilities
        return PlacingCopy(image, map_guide, parts.size, parts.validator, able, *rest)

    async def _image_changed(self, filling: Filling) -> SourceFailed:
        """Drop the copy, and return the error for a source that no longer has the same image."""
        await filling.progress.forget(filling.heartbeat)
        return SourceFailed(
            "The image has changed since bootvol read its tables, or the source no longer gives"
            " parts of the image."
        )


async def check_doubtful(
    error: ImportFailed, stream: IImageStream, held: IImageStream, progress: Progress
) -> None:
    """Raise a better error if the image may be right, although its bytes are not.

    :param error: the failure of a copy.
    :param stream: the stream of the source.
    :param held: the same stream, held to the stated sizes.
    :param progress: the import, which learns whether the bytes came from several servers.
    :raises bootvol.errors.SourceFailed: if a program wrote to the file of the image.
    :raises bootvol.errors.ImageTruncated: if the connection may have ended too soon.
    """
    ahead = IPrefetchingStream(stream, None)
    progress.mixed = ahead is not None and ahead.mixed
    if isinstance(error, (DigestMismatch, ImageCorrupt)):
        await check_file(stream)
        if not has_ended(held):
            raise ImageTruncated(f"The connection ended, perhaps too soon: {error}") from error


async def check_file(stream: IImageStream) -> None:
    """Check that no program wrote to the file of an image during the copy.

    :raises bootvol.errors.SourceFailed: if the file has changed: the bytes may be of two images.
    """
    if IFileStream.providedBy(stream):
        await IFileStream(stream).check()
