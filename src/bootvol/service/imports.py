"""Fills one volume from one image: claims nothing, decides nothing, leaves nothing open."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime

from bootvol.imaging.buffers import BufferPool
from bootvol.imaging.pipeline import Copy
from bootvol.model import Import, Phase, Volume
from bootvol.service.backends import Backends
from bootvol.service.images import Images
from bootvol.threads import Threads


@attrs.define
class Progress:
    """How far a running import has come; its worker writes it down now and then.

    :ivar since: seconds since 1970 when this attempt began.
    """

    since: float
    phase: Phase = Phase.ALLOCATING
    bytes_done: int = 0
    bytes_total: int | None = None

    def columns(self, now: float) -> dict[str, Any]:
        """Return the columns of the import's row that this fills."""
        rate = self.bytes_done / (now - self.since) if now > self.since else 0
        return {
            "phase": self.phase,
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "bytes_per_second": int(rate),
        }


class Importer:
    """Runs imports.

    :param threads: where hashing happens.
    :param buffers: how many buffers each import has.
    :param buffer_size: of each, in bytes.
    :param clock: the reactor.
    """

    def __init__(
        self,
        images: Images,
        backends: Backends,
        threads: Threads,
        buffers: int,
        buffer_size: int,
        clock: IReactorTime,
    ) -> None:
        self._images = images
        self._backends = backends
        self._threads = threads
        self._buffers = buffers
        self._buffer_size = buffer_size
        self._clock = clock

    async def run(self, volume: Volume, task: Import, progress: Progress) -> None:
        """Copy the image of ``task`` onto ``volume``, from its first byte.

        When it returns, the volume is right and durable.  When it raises or is cancelled, the
        volume is allocated or not, and holds anything; nothing is open.

        :raises bootvol.errors.BootvolError: why it cannot be done.
        """
        source = self._images.source(task.image.source)
        backend = self._backends.named(volume.backend)
        if task.attempt > 1:
            # What an earlier attempt wrote may lie where this one leaves holes.
            await backend.delete(volume.name)
        await backend.allocate(volume.name, volume.size_bytes)
        async with AsyncExitStack() as stack:
            stream = await source.open(task.image)
            stack.push_async_callback(stream.close)
            writer = await backend.open_writer(volume.name)
            stack.push_async_callback(writer.close)
            progress.phase = Phase.DOWNLOADING
            progress.bytes_total = stream.size

            def advance(done: int) -> None:
                progress.bytes_done = done
                if done == stream.size:
                    progress.phase = Phase.FINISHING

            pool = BufferPool(self._buffers, self._buffer_size)
            copy = Copy(
                task.image,
                volume.size_bytes,
                backend.capabilities,
                pool,
                self._threads,
                advance,
                self._clock,
            )
            await copy.run(stream, writer)
