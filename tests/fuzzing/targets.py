"""Functions that feed one image to one decoder, in one thread and without a running reactor."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import attrs
from backports import zstd
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from bootvol.errors import ImportFailed
from bootvol.imaging.buffers import Memory
from bootvol.imaging.decompress import unpacked
from bootvol.imaging.pieces.guide import TablesChanged
from bootvol.imaging.pieces.limits import ALIGNED, Limits
from bootvol.imaging.pieces.maps import MapGuide
from bootvol.imaging.pieces.pieces import Unusual
from bootvol.imaging.pipeline import CopyPipeline
from bootvol.imaging.placing import PlacingCopy
from bootvol.imaging.qcow2 import tables
from bootvol.imaging.streaming import StreamingCopy
from bootvol.imaging.vdi import blocks
from bootvol.imaging.vmdk.markers import MarkerGuide
from bootvol.interfaces import Capabilities, IVolumeWriter
from bootvol.model import Image
from bootvol.testing.backends import noise
from bootvol.testing.sources import read_all
from bootvol.threads import Threads
from tests.images import convert, gpt, mbr, ova
from tests.placing import ReadMap, mapped_by
from tests.unit.test_imaging import Stream
from tests.unit.test_parts import bgzf, xz_stream

#: Size of the volume in bytes.
SIZE: Final = 4 * 1024 * 1024
#: The errors of images.
REFUSALS: Final = ImportFailed, Unusual, TablesChanged
_CAPABILITIES: Final = Capabilities(reads_zero_when_new=True, block_size=512)
#: The most turns of the clock for one image.
_TURNS: Final = 100_000


class _Reactor(Clock):
    def callFromThread(self, call: Callable[..., object], *args: object) -> None:  # noqa: N802
        """See IReactorFromThreads."""
        call(*args)


class _Here(Threads):
    """Runs each call at once, in the caller's thread."""

    def _defer(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        return execute(call, *args, **kwargs)


CLOCK: Any = _Reactor()
_THREADS: Final = _Here(CLOCK, "here", 1)


@implementer(IVolumeWriter)
class _Writer:
    """Checks the places of all writes."""

    async def write(self, offset: int, data: memoryview) -> None:
        """See IVolumeWriter."""
        assert 0 <= offset <= offset + len(data) <= SIZE
        assert not offset % 512
        assert not len(data) % 512

    async def zero(self, offset: int, length: int) -> None:
        """See IVolumeWriter."""
        assert 0 <= offset <= offset + length <= SIZE

    async def flush(self) -> None:
        """See IVolumeWriter."""

    async def close(self) -> None:
        """See IVolumeWriter."""


def run(work: Coroutine[Deferred[Any], Any, object]) -> None:
    """Run a coroutine to its end.

    :raises AssertionError: if the coroutine does not end.
    """
    results: list[object] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    for _ in range(_TURNS):
        if results:
            break
        CLOCK.advance(1)
    assert results, "the decoder does not end"
    if isinstance(results[0], Failure):
        results[0].raiseException()


def _image(kind: str) -> Image:
    return Image("images", "disk", "disk", kind)


def _memory() -> Memory:
    return Memory(3, 160 * 1024)


async def _place(read_map: ReadMap, content: bytes) -> None:
    memory = _memory()
    limits = Limits.of(SIZE, _CAPABILITIES, memory)
    guide = MapGuide(await mapped_by(read_map, _THREADS, content, limits), ALIGNED)
    rest = _CAPABILITIES, SIZE, memory, _THREADS, CLOCK
    copy = PlacingCopy(_image("qcow2"), guide, len(content), "one", *rest)
    await copy.run(Stream(content, len(content)), _Writer())


async def _stream(content: bytes) -> None:
    memory = _memory()
    guide = MarkerGuide(Limits.of(SIZE, _CAPABILITIES, memory))
    rest = _CAPABILITIES, SIZE, memory, _THREADS, CLOCK
    await StreamingCopy(_image("vmdk"), guide, *rest).run(Stream(content), _Writer())


async def _copy(content: bytes) -> None:
    rest = SIZE, _CAPABILITIES, _memory(), _THREADS, CLOCK, SIZE
    await CopyPipeline(_image("raw"), *rest).run(Stream(content), _Writer())


async def _unpack(content: bytes) -> None:
    stream, _ = await unpacked(Stream(content), None, SIZE, _THREADS, _memory())
    try:
        await read_all(stream, 65536)
    finally:
        await stream.close()


@attrs.frozen
class Target:
    """A decoder.

    :ivar decode: decodes an image.
    :ivar seeds: makes right images, with a folder for files.
    """

    decode: Callable[[bytes], Coroutine[Deferred[Any], Any, object]]
    seeds: Callable[[Path], list[bytes]]

    def feed(self, content: bytes) -> None:
        """Decode an image.  A refused image is fine.

        :raises Exception: if the decoder has a fault.
        """
        try:
            run(self.decode(content))
        except REFUSALS:
            return


_DISK: Final = noise(40_000) + bytes(60_000) + b"text" * 5_000 + bytes(8192 - 512) + noise(512)
_DISK_SIZE: Final = len(_DISK) // 512 * 512


def _qcow2(folder: Path) -> list[bytes]:
    disk = _DISK[:_DISK_SIZE]
    forms: list[list[str]] = [
        ["-o", "cluster_size=4k"],
        ["-c", "-o", "cluster_size=4k"],
        ["-c", "-o", "cluster_size=16k,compression_type=zstd"],
        ["-o", "cluster_size=16k,extended_l2=on"],
        ["-o", "cluster_size=512,compat=0.10"],
    ]
    return [convert(folder, "qcow2", form, disk) for form in forms]


def _vmdk(folder: Path) -> list[bytes]:
    return [convert(folder, "vmdk", ["-o", "subformat=streamOptimized"], _DISK[:_DISK_SIZE])]


TARGETS: Final[dict[str, Target]] = {
    "qcow2": Target(lambda content: _place(tables.read_map, content), _qcow2),
    "vdi": Target(
        lambda content: _place(blocks.read_map, content),
        lambda folder: [convert(folder, "vdi", disk=_DISK[:_DISK_SIZE])],
    ),
    "vmdk": Target(_stream, _vmdk),
    "archive": Target(_unpack, lambda folder: [ova(each) for each in _vmdk(folder)]),
    "gzip": Target(_unpack, lambda _: [gzip.compress(_DISK), bgzf(_DISK, 9000)]),
    "zstd": Target(
        _unpack, lambda _: [zstd.compress(_DISK), zstd.compress(b"a") * 3 + zstd.compress(_DISK)]
    ),
    "xz": Target(_unpack, lambda _: [xz_stream([_DISK, b"a"], sized=[True, False], check=1)]),
    "raw": Target(_copy, lambda _: [gpt(SIZE) + _DISK, mbr(SIZE) + _DISK]),
}
