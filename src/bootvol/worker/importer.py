"""The importer: fills one volume from one image under a claim of its caller.

The importer claims nothing, leaves nothing open, and retries persistently. An import resumes from
its last checkpoint whenever possible: after the source broke off, and after the daemon ended. After
the end of a daemon, the bytes before the checkpoint are first read back and hashed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress

import attrs
from twisted.logger import Logger

from bootvol.errors import (
    ImageLengthUnknown,
    ImportFailed,
    NoSpace,
    SpoolFull,
    UnsupportedFormat,
)
from bootvol.imaging.bandwidth import Bandwidth
from bootvol.imaging.containers import Containers, other_format, too_large
from bootvol.imaging.inspect import CONTAINERS, ContainerDetected, largest_container
from bootvol.imaging.pipeline import CopyPipeline
from bootvol.imaging.room import Room, Share
from bootvol.imaging.source_size import has_ended
from bootvol.imaging.spool import Spool
from bootvol.imaging.target import Target, VolumeTarget
from bootvol.imaging.volumes import Ends, NullWriter, VolumeStream
from bootvol.interfaces import (
    IImageSource,
    IImageStream,
)
from bootvol.model import Digest, Image, Import, Phase, Volume
from bootvol.sparing import FewLines
from bootvol.worker.claims import Claim
from bootvol.worker.copier import Copier
from bootvol.worker.deltas import Deltas
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.lane_place import YieldingStream
from bootvol.worker.placer import NotPlaceable, Placer, check_doubtful
from bootvol.worker.progress import Heartbeat, Progress
from bootvol.worker.retries import retried
from bootvol.worker.shortcuts import Filling, Shortcut
from bootvol.worker.takeover import resumes


@attrs.frozen
class _Fetch:
    """A copy of an image from its source.

    :ivar target: the destination: the volume, or the spool.
    :ivar container: the known container format of an image that is copied as it is; else None.
    """

    filling: Filling
    source: IImageSource
    target: Target
    container: str | None = None

    @property
    def image(self) -> Image:
        """The image."""
        return self.filling.image

    @property
    def progress(self) -> Progress:
        """The progress of the copy."""
        return self.filling.progress

    @property
    def heartbeat(self) -> Heartbeat:
        """Records the progress durably."""
        return self.filling.heartbeat


class Importer:
    """Runs imports.

    :param source: returns an image source by name; raises SourceGone for an unknown name.
    :param image_cache: keeps finished images for later imports.
    :param deltas: makes volumes from earlier releases of their images.
    :param shortcuts: ways to fill a volume without a copy, in the order of preference.
    :param containers: reads the disks of images in containers.
    :param bandwidth: the limit of what all imports together read from sources.
    """

    _log = Logger()

    def __init__(
        self,
        source: Callable[[str], IImageSource],
        image_cache: ImageCache,
        deltas: Deltas,
        shortcuts: Sequence[Shortcut],
        containers: Containers,
        bandwidth: Bandwidth,
        copier: Copier,
    ) -> None:
        self._source = source
        self._image_cache = image_cache
        self._deltas = deltas
        self._shortcuts = shortcuts
        self._containers = containers
        self._bandwidth = bandwidth
        self._copier = copier
        self._limits = copier.limits
        self._clock = copier.clock
        self._lines = FewLines(copier.clock, self._log, "failed attempts to fetch images")
        self._placer = Placer(copier, self._paced)
        self._room = Room(copier.limits.spool_size, copier.clock)

    async def run(self, volume: Volume, task: Import, progress: Progress, claim: Claim) -> None:
        """Copy the image of ``task`` onto ``volume``, from its checkpoint or its first byte.

        :param claim: the claim on the volume; renewing the claim records ``progress`` durably.

        When the method returns, the volume is right and durable. When the method raises or is
        cancelled, the volume may be allocated, and may hold any bytes; nothing is left open.

        :raises bootvol.errors.BootvolError: if the import cannot be done; the error tells the
            reason.
        """
        try:
            await self._run(volume, task, progress, claim)
        except NoSpace as error:
            # A requested volume has priority over the cache.
            if (
                progress.stopping
                or error.never_fits
                or not await self._image_cache.make_room(volume.backend, volume.id)
            ):
                raise
            # The first try may have dropped the task's checkpoint, and replaced the volume.
            left = None if progress.staged else progress.checkpoint
            task = attrs.evolve(task, checkpoint=left)
            await self._run(volume, task, progress, claim)

    async def _run(self, volume: Volume, task: Import, progress: Progress, claim: Claim) -> None:
        image, content = task.image, task.content
        progress.start(task)
        await self._image_cache.let_go(volume.id)
        target = self._deltas.target(volume, image, content)
        filling = Filling(volume, image, content, target, progress, claim.heartbeat)
        for shortcut in self._shortcuts:
            if await shortcut.before_source(filling):
                return
        fetch = _Fetch(filling, self._source(image.source), target)
        try:
            digest = await self._tried(fetch)
        except ContainerDetected as detected:
            digest = await self._convert(fetch, detected)
        if self._limits.read_back and digest is not None:
            progress.phase = Phase.VERIFYING
            await self._copier.verify(target, digest, progress.bytes_done)
        # Without a digest, the source may have sent another image than the requested one.
        if content is not None and (image.digest or progress.validator == image.validator):
            size = progress.bytes_done
            told = progress.warnings
            index = await self._deltas.index_of(target, volume, image)
            await self._image_cache.add(volume, image, content, size, digest, told, claim, index)

    async def _convert(self, fetch: _Fetch, detected: ContainerDetected) -> Digest | None:
        """Copy the disk in a container onto the volume: directly, or through the spool."""
        target, progress = fetch.target, fetch.progress
        if detected.disk_size > target.size:
            raise too_large(detected.disk_size, target.size)
        unpacked = isinstance(progress.copy, CopyPipeline) and progress.copy.unpacks
        # A vhd of a fixed size is recognized by its end: checkpoints may exist by then.
        await progress.forget(fetch.heartbeat)
        progress.staged = True
        container = detected.container
        if self._placer.can_place(container, unpacked=unpacked) and not self._limits.read_back:
            with suppress(NotPlaceable):
                await self._place(fetch, container)
                return None
        with self._room.share() as share:
            while True:
                try:
                    return await self._by_spool(fetch, detected, share)
                except SpoolFull:
                    if progress.stopping or share.is_alone:
                        raise
                await progress.forget(fetch.heartbeat)
                progress.phase = Phase.QUEUED
                await progress.lane_place.rest(share.wait())

    async def _by_spool(
        self, fetch: _Fetch, detected: ContainerDetected, share: Share
    ) -> Digest | None:
        """Copy a container to the spool, and then the disk in the container onto the volume.

        :raises SpoolFull: if the spool has no space.
        """
        target, progress = fetch.target, fetch.progress
        most = largest_container(target.size)
        spool = Spool(self._limits.spool, most, share, self._copier.threads)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(spool.close)
            try:
                await self._tried(attrs.evolve(fetch, target=spool, container=detected.container))
            except (NoSpace, SpoolFull) as error:
                # Removing cached images would not help: they take no room on the spool's disk.
                share.lack()
                raise SpoolFull from error
            except ContainerDetected:
                raise other_format(detected.container) from None
            await spool.cut(progress.bytes_done)
            stream = await self._containers.open(
                detected.container, spool.descriptor, target.size, stack
            )
            await target.renew()
            writer = await target.open_writer()
            stack.push_async_callback(writer.close)
            disk = attrs.evolve(fetch.image, format="raw", digest=None)
            copy = self._copier.copy(disk, target)
            progress.begin(copy, Phase.CONVERTING, self._clock.seconds())
            return await copy.run(
                YieldingStream(stream, progress.lane_place, self._clock), writer, plain=True
            )

    async def _tried(self, fetch: _Fetch) -> Digest | None:
        """Copy an image to its destination, with retries after failures; return its digest."""
        return await retried(
            lambda: self._attempt(fetch),
            fetch.filling,
            self._limits.retries,
            self._clock,
            self._lines,
        )

    async def _place(self, fetch: _Fetch, container: str) -> None:
        """Copy the disk in a container to the volume while the container arrives.

        :raises NotPlaceable: if the image needs the spool.
        """
        filling = fetch.filling
        size = await retried(
            lambda: self._placer.attempt(filling, fetch.source, container),
            filling,
            self._limits.retries,
            self._clock,
            self._lines,
        )
        disk = attrs.evolve(fetch.image, format="raw", digest=None)
        await self._examine(attrs.evolve(fetch, filling=attrs.evolve(filling, image=disk)), size)

    async def _attempt(self, fetch: _Fetch) -> Digest | None:
        """Copy until the image is complete or the copy breaks off; keep the received bytes."""
        copy = await self._restored(fetch)
        async with AsyncExitStack() as stack:
            at = copy.reached if copy is not None else None
            stream = await fetch.source.open(fetch.image, *(at or ()))
            self._copier.lend_ahead(stream, stack)
            stack.push_async_callback(stream.close)
            fetch.progress.validator = stream.validator
            held = fetch.progress.stated.hold(stream)
            if copy is None or at is None or stream.offset != at[0]:
                # The source may be unable to resume from a checkpoint, or the image may have
                # changed.
                size = await self._shortcut(fetch, stream)
                if size is not None:
                    # The examination detects compressed images, which have to be unpacked during a
                    # copy.
                    with suppress(UnsupportedFormat):
                        return await self._examine(fetch, size)
                copy = await self._afresh(fetch)
            writer = await fetch.target.open_writer()
            stack.push_async_callback(writer.close)
            fetch.progress.begin(copy, Phase.DOWNLOADING, self._clock.seconds())
            try:
                digest = await copy.run(self._paced(fetch.filling, held), writer)
            except ImportFailed as error:
                await copy.flush(writer)
                await check_doubtful(error, stream, held, fetch.progress)
                raise
            if not copy.ends_by_itself and not has_ended(held):
                raise ImageLengthUnknown
            fetch.progress.warn(*copy.warnings)
            return digest

    def _paced(self, filling: Filling, stream: IImageStream) -> IImageStream:
        """Return a stream within the limits of bandwidth, read only while the job has a place."""
        limited = self._bandwidth.limited(filling.image.source, stream)
        return YieldingStream(limited, filling.progress.lane_place, self._clock)

    async def _shortcut(self, fetch: _Fetch, stream: IImageStream) -> int | None:
        """Ask the shortcuts; return the size of the image in bytes, or None if none helps."""
        filling = fetch.filling
        if fetch.target is not filling.target or filling.image.format in CONTAINERS:
            return None
        for shortcut in self._shortcuts:
            size = await shortcut.from_stream(filling, stream)
            if size is not None:
                return size
        return None

    async def _examine(self, fetch: _Fetch, size: int) -> Digest | None:
        """Check that the volume begins with a disk that matches what was stated; return its digest.

        Only the volume is read: the image at the source may have changed by now.

        :param size: size of the image in bytes.
        :returns: the digest; None if no digest was needed.
        """
        reader = await fetch.target.open_reader()
        try:
            hashed = fetch.image.digest is not None or self._limits.read_back
            block = fetch.target.capabilities.block_size
            stream = (VolumeStream if hashed else Ends)(reader, size, block)
            copy = self._copier.copy(fetch.image, fetch.target)
            fetch.progress.begin(copy, Phase.VERIFYING, self._clock.seconds())
            digest = await copy.run(stream, NullWriter(), plain=True)
            fetch.progress.warn(*copy.warnings)
        finally:
            await reader.close()
        fetch.progress.arrive(size)
        return digest

    async def _restored(self, fetch: _Fetch) -> CopyPipeline | None:
        """Return a copy that resumes from the checkpoint; None if no valid checkpoint exists."""
        earlier, checkpoint = fetch.progress.copy, fetch.progress.checkpoint
        if isinstance(earlier, CopyPipeline) and earlier.can_go_on:
            return earlier
        if checkpoint is None:
            return None
        blank = checkpoint.blank
        copy = self._copier.copy(fetch.image, fetch.target, fetch.container, blank=blank)
        inherited = fetch.progress.inherited
        if inherited is not None and isinstance(fetch.target, VolumeTarget):
            fetch.progress.phase = Phase.CLONING
        return copy if await resumes(copy, checkpoint, fetch.target, inherited) else None

    async def _afresh(self, fetch: _Fetch) -> CopyPipeline:
        """Return a copy from the image's first byte, and make its destination as good as new."""
        fetch.progress.start_over()
        await fetch.progress.forget(fetch.heartbeat)
        await fetch.target.renew()
        return self._copier.copy(fetch.image, fetch.target, fetch.container)
