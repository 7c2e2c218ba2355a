"""Imports whose volume begins as a clone of a disk that was cached during the import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from bootvol.imaging.buffers import Memory
from bootvol.imaging.chunk_index import CHUNK
from bootvol.imaging.delta import Base, DeltaTarget
from bootvol.model import Image
from bootvol.testing.backends import noise, read
from bootvol.threads import Threads
from bootvol.worker.copier import Copier, ImportLimits
from bootvol.worker.placer import Placer
from bootvol.worker.progress import Progress
from bootvol.worker.shortcuts import Filling
from tests.images import convert
from tests.unit.test_delta import VOLUME, Watched, filled
from tests.unit.test_extents import CLOCK, MIB, SIZE
from tests.unit.test_imaging import Stream


class Source:
    """A source of one image."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def open(self, image: Image, offset: int = 0, validator: str | None = None) -> Stream:
        """See :meth:`bootvol.interfaces.IImageSource.open`."""
        stream = Stream(self._content[offset:], len(self._content))
        stream.offset = offset
        return stream


async def _nothing() -> None:
    pass


@pytest.mark.parametrize(
    ("kind", "options"),
    [("qcow2", ()), ("vmdk", ("-o", "subformat=streamOptimized"))],
)
@ensureDeferred
async def test_a_base_is_found_only_for_the_second_renewal(
    threads: Threads, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    """The first renewal precedes the look at the format; the second one, the copy of the disk.

    Another import may finish between the two.  The holes of the image are zeroed all the same.
    """
    backend = Watched()
    base = await filled(backend, "base", threads, noise(SIZE - CHUNK, 1))
    bases: list[Base | None] = [None, base]

    async def find() -> Base | None:
        return bases.pop(0)

    target = DeltaTarget(backend, "v", SIZE, threads, find)
    await target.renew()
    disk = noise(MIB, 2) + bytes(3 * MIB) + noise(MIB, 3)
    source: Any = Source(convert(tmp_path, kind, options, disk))
    image = Image("i", "s", "n", format=kind)
    filling = Filling(VOLUME, image, "content", target, Progress(0), _nothing)
    copier = Copier(ImportLimits(MIB, 0, tmp_path), Memory(4, 320 * 1024), threads, CLOCK)
    placer = Placer(copier, lambda _, stream: stream)
    assert await placer.attempt(filling, source, kind) == len(disk)
    assert target.base is base
    assert await read(backend, "v", 0, SIZE) == disk.ljust(SIZE, b"\0")
