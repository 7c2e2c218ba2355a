"""Copies of disks while their images arrive, with sources that break off anywhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from zope.interface import implementer

from bootvol.errors import SourceFailed
from bootvol.imaging.buffers import Memory
from bootvol.imaging.pieces.limits import ALIGNED, Limits
from bootvol.imaging.pieces.maps import Map, MapGuide, Read
from bootvol.imaging.placing import PlacingCopy
from bootvol.interfaces import Capabilities, ISparseStream
from bootvol.model import Extent, Image
from bootvol.testing.backends import read
from bootvol.testing.memory import MemoryBackend
from bootvol.threads import Threads
from tests.images import MIB, qemu_img
from tests.unit.test_imaging import CLOCK, Stream

SECTOR = 512
#: Sizes of the volume and of the disk, in bytes. The disk ends within a cluster and a block.
SIZE, DISK = 8 * MIB, 7 * MIB + 512 * 3
#: The smallest buffers for the largest clusters of the tests, in bytes.
BUFFER = 320 * 1024


ReadMap = Callable[[bytes, int, Read, Limits, Threads], Awaitable[Map]]


def memory() -> Memory:
    """Return the memory of copies."""
    return Memory(4, BUFFER)


def capabilities_of(kind: dict[str, Any]) -> Capabilities:
    """Return the capabilities of a backend with these arguments."""
    return MemoryBackend("m", reactor, **kind).capabilities


def limits_of(kind: dict[str, Any]) -> Limits:
    """Return the limits of an import to a volume of :data:`SIZE` on a backend."""
    return Limits.of(SIZE, capabilities_of(kind), memory())


def raw(folder: Path, content: bytes, kind: str) -> bytes:
    """Return the disk in an image, as QEMU reads the disk.

    :param kind: QEMU's name of the format.
    """
    (folder / "read.image").write_bytes(content)
    qemu_img("convert", "-f", kind, "-O", "raw", folder / "read.image", folder / "read.raw")
    return (folder / "read.raw").read_bytes()


async def copied(
    content: bytes,
    kind: dict[str, Any],
    new: Callable[[], PlacingCopy],
    breaks: tuple[int, ...] = (),
    *,
    sized: bool = True,
) -> bytes:
    """Return the volume after an import of ``content``.

    :param kind: arguments of the backend.
    :param new: makes a copy.
    :param breaks: offsets in the file where the source breaks off.
    :param sized: whether the source states the size of the file.
    """
    backend = MemoryBackend("m", reactor, **kind)
    await backend.allocate("v", SIZE)
    writer = await backend.open_writer("v")
    copy = new()
    for end in (*breaks, len(content)):
        at = copy.reached[0] if copy.reached else 0
        stream = Breaking(content[at:], end - at, len(content) - end)
        stream.offset = at
        stream.size = len(content) if sized else None
        try:
            await copy.run(stream, writer)
        except SourceFailed:
            if not copy.can_go_on:
                assert not copy.offset
                copy = new()
    if copy.size is not None:
        assert copy.offset == copy.size == len(content)
    await writer.close()
    return await read(backend, "v", 0, SIZE)


@implementer(ISparseStream)
class Breaking(Stream):
    """A stream that breaks off, perhaps within a read, and that knows all sectors of zeros."""

    def __init__(self, content: bytes, end: int, rest: int) -> None:
        super().__init__(content)
        self._whole = content
        self._end_at = end if rest else None

    async def extents(self, offset: int, length: int) -> list[Extent]:
        """See ISparse."""
        # Offsets count from the start of the image.
        at = offset - self.offset
        found = []
        for start in range(at, min(at + length, len(self._whole)), SECTOR):
            piece = self._whole[start : start + SECTOR]
            found.append(Extent(len(piece), zero=not any(piece)))
        return [
            Extent(sum(each.length for each in run), zero)
            for zero, run in groupby(found, key=attrgetter("zero"))
        ]

    def skip(self, length: int) -> None:
        """See ISparseStream."""
        self.read += length

    async def read_into(self, target: memoryview) -> int:
        """See IImageStream."""
        if self._end_at is not None and self.read + len(target) > self._end_at:
            came = max(0, self._end_at - self.read)
            await super().read_into(target[:came])
            error = SourceFailed("broken off")
            error.came = came
            raise error
        return await super().read_into(target)


async def mapped_by(read_map: ReadMap, threads: Threads, content: bytes, limits: Limits) -> Map:
    """Return the map of an image, read from the file by parts."""

    async def part(offset: int, length: int) -> bytes:
        assert offset + length <= len(content)
        return content[offset : offset + length]

    return await read_map(content[:512], len(content), part, limits, threads)


async def placed_by(
    read_map: ReadMap,
    threads: Threads,
    content: bytes,
    kind: dict[str, Any],
    image: Image,
    breaks: tuple[int, ...] = (),
    streamed: bytes | None = None,
) -> bytes:
    """Return the volume after an import of an image with a map: see :func:`copied`.

    :param streamed: the file as it arrives, if other than the file of the tables.
    """
    capabilities = capabilities_of(kind)
    found = await mapped_by(read_map, threads, content, limits_of(kind))

    def new() -> PlacingCopy:
        guide = MapGuide(found, max(ALIGNED, capabilities.block_size))
        rest = capabilities, SIZE, memory(), threads, CLOCK
        return PlacingCopy(image, guide, len(content), "one", *rest)

    return await copied(content if streamed is None else streamed, kind, new, breaks, sized=False)
