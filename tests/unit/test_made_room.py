"""An import that is tried again because the removal of cached images made room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_twisted import ensureDeferred

from bootvol.errors import NoSpace
from bootvol.imaging.bandwidth import Bandwidth
from bootvol.imaging.buffers import Memory
from bootvol.imaging.chunk_index import CHUNK
from bootvol.imaging.delta import DeltaTarget
from bootvol.imaging.digest import Digester
from bootvol.interfaces import IImageStream
from bootvol.model import Checkpoint, Image, Import
from bootvol.testing.backends import noise, read, write
from bootvol.threads import Threads
from bootvol.worker.copier import Copier, ImportLimits
from bootvol.worker.importer import Importer
from bootvol.worker.progress import Progress
from tests.unit.test_delta import Watched, filled, found
from tests.unit.test_extents import CLOCK, MIB, SIZE
from tests.unit.test_imaging import Stream
from tests.unit.test_shortcuts import IMAGE, VOLUME, Claim
from tests.unit.test_worker import NoImageCache

#: Both releases begin with the same chunk.  The second release has no more data.
OLD = noise(4 * CHUNK)
NEW = OLD[:CHUNK] + bytes(4 * CHUNK)


class Roomy(NoImageCache):
    """A cache that makes room."""

    async def make_room(self, name: str, but_for: int = 0) -> bool:
        """See :meth:`bootvol.worker.image_cache.ImageCache.make_room`."""
        return True


class Source:
    """A source that sends the first stream from the first byte, and others as wanted."""

    def __init__(self) -> None:
        self._opened = 0

    async def open(
        self, image: Image, offset: int = 0, validator: str | None = None
    ) -> IImageStream:
        """See :meth:`bootvol.interfaces.IImageSource.open`."""
        self._opened += 1
        offset = offset if self._opened > 1 else 0
        stream = Stream(NEW[offset:], len(NEW))
        stream.offset = offset
        return stream


@ensureDeferred
async def test_a_dropped_checkpoint_stays_dropped(threads: Threads, tmp_path: Path) -> None:
    """The volume has other bytes by then, perhaps with the same beginning.

    Break: `src/bootvol/worker/importer.py`: `task = attrs.evolve(task, checkpoint=left)` -> `pass`.
    """
    backend = Watched()
    base = await filled(backend, "base", threads, OLD)
    await backend.allocate("v", SIZE)
    await write(backend, "v", 0, OLD[:CHUNK])
    digester = Digester(None)
    digester.update(memoryview(OLD[:CHUNK]))
    checkpoint = Checkpoint(CHUNK, digester.so_far(), "one")
    clone, full = backend.clone, [NoSpace("full")]

    async def cloned(source: str, target: str, size: int, held: int = 0) -> None:
        await clone(source, target, size, held)
        if full:
            raise full.pop()

    backend.clone = cloned  # type: ignore[method-assign]

    class Targets:
        def target(self, *_: object) -> DeltaTarget:
            return DeltaTarget(backend, "v", SIZE, threads, found(base))

    copier = Copier(ImportLimits(MIB, 0, tmp_path), Memory(2, MIB), threads, CLOCK)
    source: Any = Source()
    cache: Any = Roomy()
    targets: Any = Targets()
    no: Any = None
    importer = Importer(
        lambda _name: source, cache, targets, (), no, Bandwidth(None, {}, CLOCK), copier
    )
    claim: Any = Claim()
    await importer.run(VOLUME, Import(1, IMAGE, checkpoint=checkpoint), Progress(0.0), claim)
    assert not full
    assert await read(backend, "v", 0, SIZE) == NEW.ljust(SIZE, b"\0")
