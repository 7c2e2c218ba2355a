"""Fills one volume from one image: claims nothing, leaves nothing open, and does not give up soon.

An import goes on from its last checkpoint whenever it can: after the source broke off, and after
the daemon ended.  What is on the volume up to there is read back and hashed again first.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from bootvol.errors import BackendFailed, DigestMismatch, ImportFailed
from bootvol.imaging.bandwidth import Bandwidth
from bootvol.imaging.buffers import BufferPool
from bootvol.imaging.pipeline import Copy, PrefixChanged
from bootvol.interfaces import IBlockBackend, IImageSource
from bootvol.model import Checkpoint, Import, Phase, Volume
from bootvol.service.backends import Backends
from bootvol.service.images import Images
from bootvol.threads import Threads

#: Seconds to the first try again, and at most; each is twice the last, more or less.
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0

Keep = Callable[[], Awaitable[object]]


@attrs.define
class Progress:
    """How far a running import has come; its worker writes it down now and then.

    :ivar since: seconds since 1970 when this attempt began.
    :ivar began_at: bytes that were on the volume by then.
    :ivar resume: the checkpoint to go on from, until there is a copy that has its own.
    :ivar expected: the image's size in bytes as its source gave it, until there is a copy.
    :ivar stopping: the import has been cancelled: whatever fails now, it is not tried again.
    """

    since: float
    phase: Phase = Phase.ALLOCATING
    began_at: int = 0
    expected: int | None = None
    resume: Checkpoint | None = None
    copy: Copy | None = None
    stopping: bool = False

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
        checkpoint = self.checkpoint
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
    """

    buffers: int
    buffer_size: int
    checkpoint: int
    retries: int


class Importer:
    """Runs imports.

    :param bandwidth: what all of them together may take from sources.
    :param threads: where hashing happens.
    :param clock: the reactor.
    """

    def __init__(
        self,
        images: Images,
        backends: Backends,
        bandwidth: Bandwidth,
        threads: Threads,
        limits: Limits,
        clock: IReactorTime,
    ) -> None:
        self._images = images
        self._backends = backends
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
        backend = self._backends.named(volume.backend)
        progress.resume, progress.expected = task.checkpoint, task.image.size_bytes
        fruitless = furthest = 0
        while True:
            start = progress.checkpoint
            try:
                await self._attempt(volume, task, source, backend, progress, keep)
                return
            except DigestMismatch:
                if start is None:
                    raise
                # Perhaps it was the earlier part that was wrong: once more, from the first byte.
                await _forget(progress, keep)
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

    async def _attempt(
        self,
        volume: Volume,
        task: Import,
        source: IImageSource,
        backend: IBlockBackend,
        progress: Progress,
        keep: Keep,
    ) -> None:
        """Copy until the image has come, or something breaks off: what came by then is kept."""
        copy = await self._restored(volume, task, backend, progress.checkpoint)
        if copy is None:
            copy = await self._afresh(volume, task, backend, progress, keep)
        async with AsyncExitStack() as stack:
            at = copy.checkpoint
            stream = await source.open(
                task.image, copy.offset, at.validator if at is not None else None
            )
            stream = self._bandwidth.limited(task.image.source, stream)
            stack.push_async_callback(stream.close)
            if stream.offset != copy.offset:
                # The source cannot go on from there, or the image is another by now.
                copy = await self._afresh(volume, task, backend, progress, keep)
            writer = await backend.open_writer(volume.name)
            stack.push_async_callback(writer.close)
            progress.copy, progress.began_at = copy, copy.offset
            progress.since, progress.phase = self._clock.seconds(), Phase.DOWNLOADING
            try:
                await copy.run(stream, writer)
            except ImportFailed:
                await copy.flush(writer)
                raise

    async def _restored(
        self, volume: Volume, task: Import, backend: IBlockBackend, checkpoint: Checkpoint | None
    ) -> Copy | None:
        """Return a copy that goes on from the checkpoint, or None if there is none that holds."""
        if checkpoint is None:
            return None
        copy = self._copy(volume, task, backend)
        try:
            reader = await backend.open_reader(volume.name)
            try:
                await copy.restore(reader, checkpoint)
            finally:
                await reader.close()
        except (PrefixChanged, BackendFailed):
            return None
        return copy

    async def _afresh(
        self, volume: Volume, task: Import, backend: IBlockBackend, progress: Progress, keep: Keep
    ) -> Copy:
        """Allocate the volume anew: what was written earlier may lie where there are holes now."""
        await _forget(progress, keep)
        await backend.delete(volume.name)
        await backend.allocate(volume.name, volume.size_bytes)
        return self._copy(volume, task, backend)

    def _copy(self, volume: Volume, task: Import, backend: IBlockBackend) -> Copy:
        return Copy(
            task.image,
            volume.size_bytes,
            backend.capabilities,
            BufferPool(self._limits.buffers, self._limits.buffer_size),
            self._threads,
            self._clock,
            self._limits.checkpoint,
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
