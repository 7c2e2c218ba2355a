"""The importer: fills one volume from one image under a claim of its caller.

The importer claims nothing, leaves nothing open, and retries persistently. An import resumes from
its last checkpoint whenever possible: after the source broke off, and after the daemon ended. After
the end of a daemon, the bytes before the checkpoint are first read back and hashed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final

import attrs

from bootvol.backends import Backends
from bootvol.clocks import sleep
from bootvol.errors import (
    BackendFailed,
    DigestMismatch,
    FormatMismatch,
    ImageCorrupt,
    ImageLengthUnknown,
    ImageNotFound,
    ImageTruncated,
    ImportFailed,
    NoSpace,
    NotADisk,
    SourceFailed,
    SourceRefused,
    SpoolFull,
    UnsupportedFormat,
    WrongStore,
)
from bootvol.imaging.bandwidth import Bandwidth
from bootvol.imaging.containers import Containers, too_large
from bootvol.imaging.inspect import CONTAINERS, ContainerDetected, largest_container
from bootvol.imaging.pipeline import CopyPipeline, PrefixChanged
from bootvol.imaging.spool import Room, Spool
from bootvol.imaging.target import Target, VolumeTarget
from bootvol.imaging.volumes import Ends, NullWriter, VolumeStream
from bootvol.interfaces import (
    IFileStream,
    IImageSource,
    IImageStream,
    IOpenEndedStream,
)
from bootvol.model import Digest, Image, Import, Phase, Volume
from bootvol.shortage import short_of
from bootvol.worker.claims import Claim
from bootvol.worker.copier import Copier
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.lane_place import YieldingStream
from bootvol.worker.progress import Heartbeat, Progress
from bootvol.worker.shortcuts import Filling, Shortcut
from bootvol.worker.takeover import inherit

#: The first and the longest pause before a retry, in seconds. Pauses roughly double.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
#: Errors that may be temporary once a part of the image has been received: a proxy sends its own
#: page, one of several mirrors lacks the image, or a server refuses a client that asks too often.
_MAY_PASS: Final = (ImageNotFound, NotADisk, SourceRefused)


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


class _Tries:
    """Decides whether to try again.

    :param most: limit of successive tries without new bytes, and limit of tries that start over.
    :ivar fruitless: number of tries since the last one that brought new bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._furthest = self._over = self.fruitless = 0

    def go_on(self, start: int, reached: int) -> bool:
        """Record how far a try has come; return whether to try again.

        :param start: bytes received before the try.
        :param reached: bytes received by now: fewer than ``start`` if the try started over, as for
            another image.
        """
        if reached < start:
            # Later tries are compared with this one: they need not come as far as the earlier copy
            # at once.
            self._over += 1
            self._furthest = 0
        self.fruitless = 0 if reached > self._furthest else self.fruitless + 1
        self._furthest = max(self._furthest, reached)
        return max(self.fruitless, self._over) <= self._most


class Importer:
    """Runs imports.

    :param source: returns an image source by name; raises SourceGone for an unknown name.
    :param image_cache: keeps finished images for later imports.
    :param shortcuts: ways to fill a volume without a copy, in the order of preference.
    :param containers: reads the disks of images in containers.
    :param bandwidth: the limit of what all imports together read from sources.
    """

    def __init__(
        self,
        source: Callable[[str], IImageSource],
        backends: Backends,
        image_cache: ImageCache,
        shortcuts: Sequence[Shortcut],
        containers: Containers,
        bandwidth: Bandwidth,
        copier: Copier,
    ) -> None:
        self._source = source
        self._backends = backends
        self._image_cache = image_cache
        self._shortcuts = shortcuts
        self._containers = containers
        self._bandwidth = bandwidth
        self._copier = copier
        self._limits = copier.limits
        self._clock = copier.clock
        self._room = Room(copier.limits.spool_size)

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
        except NoSpace:
            # A requested volume has priority over the cache.
            if progress.stopping or not await self._image_cache.make_room(
                volume.backend, volume.id
            ):
                raise
            await self._run(volume, task, progress, claim)

    async def _run(self, volume: Volume, task: Import, progress: Progress, claim: Claim) -> None:
        image, content = task.image, task.content
        progress.start(task)
        await self._image_cache.let_go(volume.id)
        target = VolumeTarget(self._backends.named(volume.backend), volume.name, volume.size_bytes)
        filling = Filling(volume, image, content, target, progress, claim.heartbeat)
        for shortcut in self._shortcuts:
            if await shortcut.before_source(filling):
                return
        fetch = _Fetch(filling, self._source(image.source), target)
        try:
            digest = await self._fetch(fetch)
        except ContainerDetected as detected:
            digest = await self._convert(fetch, detected)
        if self._limits.read_back and digest is not None:
            progress.phase = Phase.VERIFYING
            await self._copier.verify(target, digest, progress.bytes_done)
        # Without a digest, the source may have sent another image than the requested one.
        if content is not None and (image.digest or progress.validator == image.validator):
            size = progress.bytes_done
            told = progress.warnings
            await self._image_cache.add(volume, image, content, size, digest, told, claim)

    async def _convert(self, fetch: _Fetch, detected: ContainerDetected) -> Digest | None:
        """Fetch a container to the spool, and copy the disk in it onto the volume."""
        target, progress = fetch.target, fetch.progress
        if detected.disk_size > target.size:
            raise too_large(detected.disk_size, target.size)
        most = largest_container(target.size)
        spool = Spool(self._limits.spool, most, self._room, self._copier.threads)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(spool.close)
            # A vhd of a fixed size is recognized by its end: checkpoints may exist by then.
            await progress.forget(fetch.heartbeat)
            progress.staged = True
            try:
                await self._fetch(attrs.evolve(fetch, target=spool, container=detected.container))
            except NoSpace as error:
                # Removing cached images would not help: they take no room on the spool's disk.
                raise SpoolFull from error
            except ContainerDetected:
                raise FormatMismatch(
                    f"The image was {detected.container} at first, and had another format when it"
                    " was fetched again."
                ) from None
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

    async def _fetch(self, fetch: _Fetch) -> Digest | None:
        """Copy an image to its destination, with retries after failures; return its digest."""
        progress = fetch.progress
        tries = _Tries(self._limits.retries)
        begun = doubted = False
        while True:
            start = progress.reached
            begun = begun or progress.bytes_done > 0
            try:
                return await self._attempt(fetch)
            except (DigestMismatch, ImageCorrupt):
                if start is None or doubted:
                    raise
                # Perhaps the earlier part was wrong: try once more from the first byte.
                doubted = True
                tries = _Tries(self._limits.retries)
                progress.start_over()
                await progress.forget(fetch.heartbeat)
            except (ImportFailed, ImageNotFound) as error:
                may_pass = error.retryable or (begun and isinstance(error, _MAY_PASS))
                if progress.stopping or not may_pass or short_of(error):
                    raise
                if not tries.go_on((start or (0, ""))[0], (progress.reached or (0, ""))[0]):
                    raise
                # The frames of the traceback hold buffers, which nothing counts during the pause.
                error.with_traceback(None)
                progress.phase = Phase.RETRYING
                pause = max(_pause(tries.fruitless), getattr(error, "retry_after", 0.0))
                await progress.lane_place.rest(sleep(self._clock, pause))

    async def _attempt(self, fetch: _Fetch) -> Digest | None:
        """Copy until the image is complete or the copy breaks off; keep the received bytes."""
        copy = await self._restored(fetch)
        async with AsyncExitStack() as stack:
            at = copy.reached if copy is not None else None
            stream = await fetch.source.open(fetch.image, *(at or ()))
            stack.push_async_callback(stream.close)
            fetch.progress.validator = stream.validator
            if copy and copy.size and stream.offset and stream.size not in (None, copy.size):
                raise SourceFailed(
                    f"The source now states {stream.size} bytes for the image, but stated"
                    f" {copy.size} before."
                )
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
            sent = stream
            stream = self._bandwidth.limited(fetch.image.source, stream)
            stream = YieldingStream(stream, fetch.progress.lane_place, self._clock)
            writer = await fetch.target.open_writer()
            stack.push_async_callback(writer.close)
            fetch.progress.begin(copy, Phase.DOWNLOADING, self._clock.seconds())
            try:
                digest = await copy.run(stream, writer)
            except ImportFailed as error:
                await copy.flush(writer)
                doubtful = isinstance(error, (DigestMismatch, ImageCorrupt))
                if doubtful and IFileStream.providedBy(sent):
                    # The bytes may be of two images, if the file was written to during the copy.
                    await IFileStream(sent).check()
                if doubtful and not _has_ended(sent):
                    raise ImageTruncated(
                        f"The connection ended, perhaps too soon: {error}"
                    ) from error
                raise
            if not copy.ends_by_itself and not _has_ended(sent):
                raise ImageLengthUnknown
            fetch.progress.warn(*copy.warnings)
            return digest

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
        if earlier is not None and earlier.can_go_on:
            return earlier
        if checkpoint is None:
            return None
        copy = self._copier.copy(fetch.image, fetch.target, fetch.container)
        try:
            inherited = fetch.progress.inherited
            if inherited is not None and isinstance(fetch.target, VolumeTarget):
                fetch.progress.phase = Phase.CLONING
                await inherit(fetch.target, inherited, lambda each: copy.restore(each, checkpoint))
            else:
                reader = await fetch.target.open_reader()
                try:
                    await copy.restore(reader, checkpoint)
                finally:
                    await reader.close()
        except PrefixChanged:
            return None
        except BackendFailed as error:
            if short_of(error) or isinstance(error, WrongStore):
                raise
            return None
        return copy

    async def _afresh(self, fetch: _Fetch) -> CopyPipeline:
        """Return a copy from the image's first byte, and make its destination as good as new."""
        fetch.progress.start_over()
        await fetch.progress.forget(fetch.heartbeat)
        await fetch.target.renew()
        return self._copier.copy(fetch.image, fetch.target, fetch.container)


def _has_ended(stream: IImageStream) -> bool:
    """Tell whether the end of a stream is known to be the end of the image."""
    return not IOpenEndedStream.providedBy(stream) or IOpenEndedStream(stream).proven


def _pause(tries: int) -> float:
    """Return the seconds to wait, with jitter: imports that failed together spread out."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** max(0, tries - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
