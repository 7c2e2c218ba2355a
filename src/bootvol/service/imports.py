"""Fills one volume from one image: claims nothing, leaves nothing open, and does not give up soon.

An import goes on from its last checkpoint whenever it can: after the source broke off, and after
the daemon ended.  What is on the volume up to there is read back and hashed again first.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from bootvol.errors import BackendFailed, DigestMismatch, ImportFailed
from bootvol.imaging.bandwidth import Bandwidth
from bootvol.imaging.buffers import BufferPool
from bootvol.imaging.containers import Containers, too_large
from bootvol.imaging.pipeline import Copy, Packed, PrefixChanged
from bootvol.imaging.spool import Spool
from bootvol.interfaces import (
    Capabilities,
    IBlockBackend,
    IImageSource,
    IVolumeReader,
    IVolumeWriter,
)
from bootvol.model import Checkpoint, Digest, Image, Import, Phase, Volume
from bootvol.service.backends import Backends
from bootvol.service.images import Images
from bootvol.threads import Threads

#: Seconds to the first try again, and at most; each is twice the last, more or less.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
#: How much larger than its disk a container may be in any case, in bytes.
_MARGIN: Final = 64 * 1024 * 1024

Keep = Callable[[], Awaitable[object]]


@attrs.define
class Progress:
    """How far a running import has come; its worker writes it down now and then.

    :ivar since: seconds since 1970 when this attempt began.
    :ivar began_at: bytes that were on the volume by then.
    :ivar resume: the checkpoint to go on from, until there is a copy that has its own.
    :ivar expected: the image's size in bytes as its source gave it, until there is a copy.
    :ivar stopping: the import has been cancelled: whatever fails now, it is not tried again.
    :ivar staged: what has come is not on the volume yet, and lost when the daemon ends.
    """

    since: float
    phase: Phase = Phase.ALLOCATING
    began_at: int = 0
    expected: int | None = None
    resume: Checkpoint | None = None
    copy: Copy | None = None
    stopping: bool = False
    staged: bool = False

    def begin(self, copy: Copy, phase: Phase, now: float) -> None:
        """Note that a copy begins, or goes on."""
        self.copy, self.began_at = copy, copy.offset
        self.since, self.phase = now, phase

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where another attempt may go on."""
        return self.copy.checkpoint if self.copy else self.resume

    @property
    def bytes_done(self) -> int:
        """How much of the image is on the volume."""
        if self.copy is not None:
            return self.copy.offset
        return self.resume.offset if self.resume else 0

    @property
    def bytes_total(self) -> int | None:
        """How much there is of the image."""
        return self.copy.size if self.copy else self.expected

    def columns(self, now: float) -> dict[str, Any]:
        """Return the columns of the import's row that this fills."""
        arrived = self.phase is Phase.DOWNLOADING and self.bytes_done == self.bytes_total
        rate = (self.bytes_done - self.began_at) / (now - self.since) if now > self.since else 0
        checkpoint = None if self.staged else self.checkpoint
        return {
            "phase": Phase.FINISHING if arrived else self.phase,
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "bytes_per_second": max(0, int(rate)),
            "durable_bytes": checkpoint.offset if checkpoint else None,
            "durable_digest": checkpoint.digest if checkpoint else None,
            "validator": checkpoint.validator if checkpoint else None,
        }


@attrs.frozen
class Limits:
    """What one import may use.

    :ivar buffers: how many buffers.
    :ivar buffer_size: of each, in bytes.
    :ivar checkpoint: bytes between two checkpoints.
    :ivar retries: how often in a row a source may break off before the import has come further, by
        its checkpoint, than ever before.
    :ivar spool: the folder where containers are kept while their disks are read.
    :ivar read_back: whether a volume is read once more, and held against what was written.
    """

    buffers: int
    buffer_size: int
    checkpoint: int
    retries: int
    spool: Path
    read_back: bool = False


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


class _OnBackend:
    """A volume as a place."""

    def __init__(self, backend: IBlockBackend, volume: Volume) -> None:
        self.size = volume.size_bytes
        self.capabilities = backend.capabilities
        self._backend = backend
        self._name = volume.name

    async def renew(self) -> None:
        """Allocate the volume anew: what was written earlier may lie where there are holes now."""
        await self._backend.delete(self._name)
        await self._backend.allocate(self._name, self.size)

    async def open_writer(self) -> IVolumeWriter:
        """Open it for writing."""
        return await self._backend.open_writer(self._name)

    async def open_reader(self) -> IVolumeReader:
        """Open it for reading."""
        return await self._backend.open_reader(self._name)


@attrs.frozen
class _Fetch:
    """An image, where it comes from, where it goes, and how far that has come.

    :ivar container: the format that it is known to be packed in, if it is fetched as it is.
    """

    image: Image
    source: IImageSource
    place: Place
    progress: Progress
    keep: Keep
    container: str | None = None


class Importer:
    """Runs imports.

    :param containers: reads the disks of images that are not plain.
    :param bandwidth: what all of them together may take from sources.
    :param threads: where hashing happens.
    :param clock: the reactor.
    """

    def __init__(
        self,
        images: Images,
        backends: Backends,
        containers: Containers,
        bandwidth: Bandwidth,
        threads: Threads,
        limits: Limits,
        clock: IReactorTime,
    ) -> None:
        self._images = images
        self._backends = backends
        self._containers = containers
        self._bandwidth = bandwidth
        self._threads = threads
        self._limits = limits
        self._clock = clock

    async def run(self, volume: Volume, task: Import, progress: Progress, keep: Keep) -> None:
        """Copy the image of ``task`` onto ``volume``, from its checkpoint or its first byte.

        :param keep: writes ``progress`` down durably.

        When it returns, the volume is right and durable.  When it raises or is cancelled, the
        volume is allocated or not, and holds anything; nothing is open.

        :raises bootvol.errors.BootvolError: why it cannot be done.
        """
        source = self._images.source(task.image.source)
        place = _OnBackend(self._backends.named(volume.backend), volume)
        progress.resume, progress.expected = task.checkpoint, task.image.size_bytes
        fetch = _Fetch(task.image, source, place, progress, keep)
        try:
            digest = await self._fetch(fetch)
        except Packed as packed:
            digest = await self._convert(fetch, packed)
        if self._limits.read_back and digest is not None and progress.copy is not None:
            progress.phase = Phase.VERIFYING
            reader = await place.open_reader()
            try:
                await progress.copy.verify(reader, digest)
            finally:
                await reader.close()

    async def _convert(self, fetch: _Fetch, packed: Packed) -> Digest | None:
        """Fetch a container to the spool, and copy the disk in it onto the volume."""
        place, progress = fetch.place, fetch.progress
        if packed.disk_size > place.size:
            raise too_large(packed.disk_size, place.size)
        # A container may be larger than its disk (tables, snapshots), but not by much.
        spool = Spool(self._limits.spool, place.size + place.size // 8 + _MARGIN, self._threads)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(spool.close)
            progress.staged = True
            await self._fetch(attrs.evolve(fetch, place=spool, container=packed.container))
            await spool.cut(progress.bytes_done)
            stream = await self._containers.open(
                packed.container, spool.descriptor, place.size, stack
            )
            await place.renew()
            writer = await place.open_writer()
            stack.push_async_callback(writer.close)
            disk = attrs.evolve(fetch.image, format="raw", digest=None)
            copy = self._copy(attrs.evolve(fetch, image=disk))
            progress.begin(copy, Phase.CONVERTING, self._clock.seconds())
            return await copy.run(stream, writer, plain=True)

    async def _fetch(self, fetch: _Fetch) -> Digest | None:
        """Copy an image to its place, however often its source breaks off; return its digest."""
        progress = fetch.progress
        fruitless = furthest = 0
        while True:
            start = progress.checkpoint
            try:
                return await self._attempt(fetch)
            except DigestMismatch:
                if start is None:
                    raise
                # Perhaps it was the earlier part that was wrong: once more, from the first byte.
                await _forget(progress, fetch.keep)
            except ImportFailed as error:
                if progress.stopping or not error.retryable:
                    raise
                reached = progress.checkpoint.offset if progress.checkpoint else 0
                fruitless = 0 if reached > furthest else fruitless + 1
                furthest = max(furthest, reached)
                if fruitless > self._limits.retries:
                    raise
                progress.phase = Phase.RETRYING
                pause = max(_pause(fruitless), getattr(error, "retry_after", 0.0))
                await deferLater(self._clock, pause, lambda: None)

    async def _attempt(self, fetch: _Fetch) -> Digest | None:
        """Copy until the image has come, or something breaks off: what came by then is kept."""
        copy = await self._restored(fetch)
        if copy is None:
            copy = await self._afresh(fetch)
        async with AsyncExitStack() as stack:
            at = copy.checkpoint
            stream = await fetch.source.open(
                fetch.image, copy.offset, at.validator if at is not None else None
            )
            stream = self._bandwidth.limited(fetch.image.source, stream)
            stack.push_async_callback(stream.close)
            if stream.offset != copy.offset:
                # The source cannot go on from there, or the image is another by now.
                copy = await self._afresh(fetch)
            writer = await fetch.place.open_writer()
            stack.push_async_callback(writer.close)
            fetch.progress.begin(copy, Phase.DOWNLOADING, self._clock.seconds())
            try:
                return await copy.run(stream, writer)
            except ImportFailed:
                await copy.flush(writer)
                raise

    async def _restored(self, fetch: _Fetch) -> Copy | None:
        """Return a copy that goes on from the checkpoint, or None if there is none that holds."""
        checkpoint = fetch.progress.checkpoint
        if checkpoint is None:
            return None
        copy = self._copy(fetch)
        try:
            reader = await fetch.place.open_reader()
            try:
                await copy.restore(reader, checkpoint)
            finally:
                await reader.close()
        except (PrefixChanged, BackendFailed):
            return None
        return copy

    async def _afresh(self, fetch: _Fetch) -> Copy:
        """Return a copy from the image's first byte, onto a place that is as new."""
        await _forget(fetch.progress, fetch.keep)
        await fetch.place.renew()
        return self._copy(fetch)

    def _copy(self, fetch: _Fetch) -> Copy:
        return Copy(
            fetch.image,
            fetch.place.size,
            fetch.place.capabilities,
            BufferPool(self._limits.buffers, self._limits.buffer_size),
            self._threads,
            self._clock,
            self._limits.checkpoint,
            fetch.container,
            self._limits.read_back,
        )


async def _forget(progress: Progress, keep: Keep) -> None:
    """Let go of the checkpoint, durably, before anything that it vouches for is changed."""
    if progress.checkpoint is not None:
        progress.copy = progress.resume = None
        await keep()


def _pause(tries: int) -> float:
    """Return seconds to wait; by chance, so that those who failed together do not return so."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** max(0, tries - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
