"""The pipeline and its stages."""

from __future__ import annotations

import gzip
import hashlib
import struct
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from bootvol.errors import (
    BackendFailed,
    DigestMismatch,
    ImageCorrupt,
    ImageRefersElsewhere,
    ImageTooLarge,
    ImageTruncated,
    ImportFailed,
    NotADisk,
    SourceFailed,
    UnsupportedFormat,
)
from bootvol.imaging.blocks import PIECE, runs
from bootvol.imaging.buffers import Memory
from bootvol.imaging.digest import Digester
from bootvol.imaging.gathering import gather_cancelling
from bootvol.imaging.inspect import ContainerDetected, Inspection
from bootvol.imaging.pipeline import CopyPipeline, PrefixChanged
from bootvol.interfaces import IImageStream
from bootvol.model import Digest, Image
from bootvol.testing.backends import noise, read
from bootvol.testing.memory import MemoryBackend
from bootvol.threads import Threads

MIB = 1024 * 1024
SIZE = 8 * MIB
IMAGE = Image("i", "s", "n")
BUFFER = 2 * PIECE
CLOCK: Any = reactor


@given(st.lists(st.tuples(st.integers(1, 3 * PIECE), st.booleans()), max_size=6))
def test_runs_cover_the_chunk_and_tell_zeros(parts: list[tuple[int, bool]]) -> None:
    data = b"".join(bytes(length) if zero else b"\1" * length for length, zero in parts)
    found = list(runs(memoryview(data)))
    assert b"".join(data[run.start : run.start + run.length] for run in found) == data
    for run in found:
        content = data[run.start : run.start + run.length]
        assert run.length
        assert run.start % PIECE == 0
        if run.zero:
            assert not any(content)
        else:
            assert all(any(content[at : at + PIECE]) for at in range(0, run.length, PIECE))
    assert all(one.zero is not two.zero for one, two in pairwise(found))


@implementer(IImageStream)
class Stream:
    """A stream of bytes in memory that may end in an error or wait for ever."""

    def __init__(self, content: bytes, size: int | None = None, end: Any = None) -> None:
        self.size = size
        self.offset = 0
        self.validator: str | None = "one"
        self.read = 0
        self._content = memoryview(content)
        self._end = end

    async def read_into(self, target: memoryview) -> int:
        """See IImageStream."""
        data = self._content[self.read : self.read + len(target)]
        if len(data) < len(target) and self._end is not None:
            if isinstance(self._end, Deferred):
                await self._end
            raise self._end
        target[: len(data)] = data
        self.read += len(data)
        return len(data)

    async def close(self) -> None:
        """See IImageStream."""


def own(content: bytes) -> Digest:
    """Return bootvol's own digest, for images without a stated digest."""
    digester = Digester(None)
    digester.update(memoryview(content))
    digest = digester.verify()
    assert digest is not None
    return digest


def a_copy(threads: Threads, backend: MemoryBackend, image: Image = IMAGE) -> CopyPipeline:
    """Return a copy before its start."""
    memory = Memory(4, BUFFER // 2)  # and twice the size for a single one
    return CopyPipeline(image, SIZE, backend.capabilities, memory, threads, CLOCK, MIB)


async def copy(
    threads: Threads, backend: MemoryBackend, stream: Stream, image: Image = IMAGE
) -> tuple[Digest | None, CopyPipeline]:
    """Copy a stream onto a new volume."""
    await backend.allocate("v", SIZE)
    writer = await backend.open_writer("v")
    task = a_copy(threads, backend, image)
    return await task.run(stream, writer), task


BACKENDS = [
    {},
    {"parallel_writes": 3},
    {"fill": 0xAA, "block_size": 4096},
    {"fill": 0xAA, "block_size": 65536, "parallel_writes": 2},
]
CONTENTS = [
    noise(1),
    noise(BUFFER),
    noise(BUFFER + 1),
    noise(3 * MIB + 777),
    bytes(3 * MIB),
    noise(MIB) + bytes(MIB) + noise(PIECE) + bytes(5) + noise(100) + bytes(2 * PIECE),
    noise(SIZE),
]


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("content", CONTENTS, ids=len)
@ensureDeferred
async def test_the_volume_is_the_image_and_zeros(
    threads: Threads, kind: dict[str, Any], content: bytes
) -> None:
    """A volume is its image followed by zeros, on every kind of backend.

    Break: `src/bootvol/imaging/pipeline.py`: `await writer.zero(end, self._volume_size - end)` ->
    `await writer.zero(end, 0)`.
    Break: `src/bootvol/imaging/blocks.py`: `await writer.zero(offset + run.start, run.length)` ->
    `pass`.
    """
    backend = MemoryBackend("m", reactor, **kind)
    digest, done = await copy(threads, backend, Stream(content, len(content)))
    assert digest == own(content)
    assert await read(backend, "v", 0, SIZE) == content.ljust(SIZE, b"\0")
    assert done.offset == len(content)


@ensureDeferred
async def test_zeros_are_not_written_where_there_are_zeros(threads: Threads) -> None:
    backend = MemoryBackend("m", reactor)
    await copy(threads, backend, Stream(noise(PIECE) + bytes(4 * MIB) + noise(PIECE)))
    assert len(backend.volumes["v"].pages) == 2


@pytest.mark.parametrize("algorithm", ["sha512", "sha256", "md5"])
@ensureDeferred
async def test_the_stated_digest_decides(threads: Threads, algorithm: str) -> None:
    content = noise(MIB)
    stated = Digest(algorithm, hashlib.new(algorithm, content).hexdigest().upper())
    image = attrs.evolve(IMAGE, digest=stated)
    backend = MemoryBackend("m", reactor)
    digest, _ = await copy(threads, backend, Stream(content), image)
    assert digest is not None
    assert digest.value == stated.value.lower()
    with pytest.raises(DigestMismatch, match="was stated"):
        await copy(threads, backend, Stream(content[:-1]), image)


@pytest.mark.parametrize(
    ("stream", "image", "error"),
    [
        (Stream(b""), IMAGE, NotADisk),
        (Stream(b"<html>"), IMAGE, NotADisk),
        (Stream("\ufeff<!DOCTYPE html>é".encode()), IMAGE, NotADisk),
        (Stream("\ufeff<html>é".encode("utf-16-le")), IMAGE, NotADisk),
        (Stream("\ufeff{}".encode("utf-16-be")), IMAGE, NotADisk),
        (Stream(b"404 page not found\n"), IMAGE, NotADisk),
        (Stream(b"Not here. " * 1000), IMAGE, NotADisk),
        (Stream(noise(SIZE + 1)), IMAGE, ImageTooLarge),
        (Stream(noise(SIZE), SIZE + 1), IMAGE, ImageTooLarge),
        (Stream(noise(SIZE), 2**63), IMAGE, ImageTooLarge),
        (Stream(noise(MIB), 2 * MIB), IMAGE, ImageTruncated),
        (Stream(noise(MIB), end=ImageTruncated()), IMAGE, ImageTruncated),
        (Stream(noise(MIB)), attrs.evolve(IMAGE, format="qed"), UnsupportedFormat),
    ],
)
@ensureDeferred
async def test_what_is_refused(
    threads: Threads, stream: Stream, image: Image, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await copy(threads, MemoryBackend("m", reactor), stream, image)


@pytest.mark.parametrize("kind", BACKENDS)
@ensureDeferred
async def test_a_copy_goes_on_from_a_checkpoint(threads: Threads, kind: dict[str, Any]) -> None:
    content = noise(2 * MIB) + bytes(MIB) + noise(2 * MIB + 99, 2)
    backend = MemoryBackend("m", reactor, **kind)
    await backend.allocate("v", SIZE)
    first = a_copy(threads, backend)
    writer = await backend.open_writer("v")
    with pytest.raises(ImageTruncated):
        await first.run(Stream(content[: 3 * MIB + 5], end=ImageTruncated()), writer)
    await first.flush(writer)
    checkpoint = first.checkpoint
    assert checkpoint is not None
    assert checkpoint.offset == first.offset
    assert first.offset % BUFFER == 0

    second = a_copy(threads, backend)
    await second.restore(await backend.open_reader("v"), checkpoint)
    assert second.offset == checkpoint.offset
    rest = Stream(content)
    rest.read = rest.offset = checkpoint.offset
    digest = await second.run(rest, writer)
    assert digest is not None
    assert digest == own(content)
    assert await read(backend, "v", 0, SIZE) == content.ljust(SIZE, b"\0")

    await writer.write(0, memoryview(bytearray(65536)))
    with pytest.raises(PrefixChanged):
        await a_copy(threads, backend).restore(await backend.open_reader("v"), checkpoint)


@pytest.mark.parametrize("kind", BACKENDS)
@ensureDeferred
async def test_a_copy_that_broke_off_goes_on(threads: Threads, kind: dict[str, Any]) -> None:
    """Continue without reading back."""
    backend = MemoryBackend("m", reactor, **kind)
    content = noise(MIB) + bytes(2 * MIB) + noise(3 * MIB)
    await backend.allocate("v", SIZE)
    writer = await backend.open_writer("v")
    task = a_copy(threads, backend)
    # Without a reason, a stream ends as if complete.
    for end, reason in (
        (MIB + 5, ImageTruncated()),
        (4 * MIB, None),
        (5 * MIB + 9, SourceFailed("The connection broke off.")),
    ):
        part = Stream(content[:end], len(content), reason)
        part.read = part.offset = task.offset
        with pytest.raises(ImportFailed):
            await task.run(part, writer)
        await task.flush(writer)
        assert task.can_go_on
        assert end - BUFFER < task.offset <= end
    rest = Stream(content, len(content))
    rest.read = rest.offset = task.offset
    digest = await task.run(rest, writer)
    assert digest == own(content)
    assert await read(backend, "v", 0, SIZE) == content.ljust(SIZE, b"\0")
    assert not task.can_go_on


@ensureDeferred
async def test_what_had_come_before_a_break_is_kept(threads: Threads) -> None:
    """The volume has these bytes, up to the last whole block."""
    backend = MemoryBackend("m", reactor, fill=0xAA, block_size=4096)
    content = noise(2 * PIECE + 5)
    await backend.allocate("v", SIZE)
    writer = await backend.open_writer("v")
    task = a_copy(threads, backend)
    part = Stream(content, SIZE)
    usual = part.read_into

    async def read_into(target: memoryview) -> int:
        count = await usual(target)
        if count < len(target):
            error = SourceFailed("The connection broke off.")
            error.came = count
            raise error
        return count

    part.read_into = read_into  # type: ignore[method-assign]
    with pytest.raises(SourceFailed):
        await task.run(part, writer)
    await task.flush(writer)
    assert task.reached == (2 * PIECE, "one")
    assert await read(backend, "v", 0, 3 * PIECE) == content[: 2 * PIECE] + b"\xaa" * PIECE


@ensureDeferred
async def test_checkpoints_are_flushed_and_without_gaps(threads: Threads) -> None:
    backend = MemoryBackend("m", reactor, parallel_writes=3)
    await backend.allocate("v", SIZE)
    writer = await backend.open_writer("v")
    task = a_copy(threads, backend)
    content = noise(SIZE)
    seen: list[int] = []
    flush = writer.flush

    async def flushed() -> None:
        on_volume = backend.volumes["v"].read(0, task.offset)
        assert on_volume == content[: task.offset]
        await flush()
        seen.append(task.offset)

    writer.flush = flushed  # type: ignore[method-assign]
    await task.run(Stream(content), writer)
    assert len(seen) > 2
    assert task.checkpoint is not None
    assert own(content[: task.checkpoint.offset]).value == task.checkpoint.digest


@ensureDeferred
async def test_without_a_validator_there_is_no_checkpoint(threads: Threads) -> None:
    stream = Stream(noise(4 * MIB))
    stream.validator = None
    _, done = await copy(threads, MemoryBackend("m", reactor), stream)
    assert done.checkpoint is None


@ensureDeferred
async def test_a_backend_that_fails_ends_the_copy(threads: Threads) -> None:
    backend = MemoryBackend("m", reactor)
    await backend.allocate("v", SIZE)
    writer = await backend.open_writer("v")
    await writer.close()
    task = a_copy(threads, backend)
    stream = Stream(noise(SIZE))
    with pytest.raises(BackendFailed):
        await task.run(stream, writer)
    assert stream.read <= 5 * BUFFER, "nothing is read that cannot be written"
    assert not task.can_go_on


@ensureDeferred
async def test_nothing_is_read_on_after_a_copy_of_what_is_compressed(threads: Threads) -> None:
    backend = MemoryBackend("m", reactor)
    await backend.allocate("v", SIZE)
    writer = await backend.open_writer("v")
    await writer.close()
    more: Deferred[None] = Deferred()
    packed = gzip.compress(noise(MIB + 2 * BUFFER), 1)
    with pytest.raises(BackendFailed):
        await a_copy(threads, backend).run(Stream(packed, end=more), writer)
    assert more.called, "what was to come next is not waited for any more"


@ensureDeferred
async def test_the_source_waits_for_the_backend(threads: Threads) -> None:
    """Backpressure: a hanging writer holds no more buffers than the pool has."""
    backend = MemoryBackend("m", reactor)
    await backend.allocate("v", SIZE)
    writer = await backend.open_writer("v")
    held: Deferred[None] = Deferred()
    writer.write = lambda *_: held  # type: ignore[assignment]
    stream = Stream(noise(SIZE))
    running = Deferred.fromCoroutine(a_copy(threads, backend).run(stream, writer))
    while stream.read < 4 * BUFFER:
        await threads.run(lambda: None)
    for _ in range(20):
        await threads.run(lambda: None)
    assert stream.read == 4 * BUFFER
    running.cancel()
    with pytest.raises(CancelledError):
        await running


@ensureDeferred
async def test_together_stops_when_it_is_cancelled() -> None:
    never: list[Deferred[None]] = [Deferred(), Deferred()]

    async def wait(deferred: Deferred[None]) -> None:
        await deferred

    running = Deferred.fromCoroutine(gather_cancelling(CLOCK, *map(wait, never)))
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    assert all(each.called for each in never)


@ensureDeferred
async def test_other_bytes_than_those_written_are_found(threads: Threads) -> None:
    """A volume that returns wrong bytes does not pass the comparison."""
    backend = MemoryBackend("b", CLOCK)
    content = noise(SIZE)
    digest, pipeline = await copy(threads, backend, Stream(content))
    assert digest is not None
    reader = await backend.open_reader("v")
    await pipeline.verify(reader, digest, SIZE)
    backend.volumes["v"].write(5 * MIB, memoryview(b"x" * 4))
    with pytest.raises(BackendFailed, match="other bytes than those written"):
        await pipeline.verify(reader, digest, SIZE)
    await reader.close()


@ensureDeferred
async def test_together_leaves_nothing_running() -> None:
    ended: list[str] = []
    never: Deferred[None] = Deferred()

    async def waits() -> None:
        try:
            await never
        finally:
            ended.append("cancelled")

    async def fails() -> None:
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        await gather_cancelling(CLOCK, waits(), fails())
    assert ended == ["cancelled"]


def test_inspectors_log_no_bytes_of_images(caplog: pytest.LogCaptureFixture) -> None:
    """A hostile image writes nothing of its own to the log.

    Break: `src/bootvol/imaging/inspect.py`: `.disabled = True` -> `.disabled = False`.
    """
    # VMware, Virtual Disk Format 1.1: a header, and a descriptor of 20 sectors.
    fields = b"KDMV", 1, 3, 2048, 128, 1, 20, 512, 21, 26, 128, 0, b"\n \r\n", 0
    header = struct.pack("<4sIIQQQQIQQQB4sH", *fields).ljust(512, b"\0")
    descriptor = b'createType="monolithicSparse"\n' + b"bytes of the image" * 500
    with pytest.raises(ImageRefersElsewhere, match="Invalid VMDK descriptor data"):
        Inspection(None).begin(memoryview((header + descriptor).ljust(70_000, b"\0")))
    assert caplog.text == ""


@pytest.mark.parametrize(
    "head",
    [
        b"\xeb\x63\x90" + bytes(509),
        bytes(512),
        noise(70000),
        b"<\0\0",
        b"<" + bytes(range(1, 256)) * 3,
        bytes(510) + b"\x55\xaa",
    ],
)
def test_what_may_be_a_disk_passes(head: bytes) -> None:
    inspection = Inspection(None)
    inspection.begin(memoryview(head))
    assert inspection.container is None


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"QED\0", "qed"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh9", "bzip2"),
        (b"QFI\xfb\0\0\0\1", "qcow of version 1"),
    ],
)
def test_what_is_not_read_is_named(head: bytes, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        Inspection(None).begin(memoryview(head.ljust(70000, b"\0")))


@ensureDeferred
async def test_a_container_is_told_before_anything_is_written(threads: Threads) -> None:
    head = b"conectix".ljust(BUFFER, b"\0")
    backend = MemoryBackend("m", reactor)
    with pytest.raises(ContainerDetected) as packed:
        await copy(threads, backend, Stream(head + noise(MIB)))
    assert packed.value.container == "vhd"
    assert await read(backend, "v", 0, SIZE) == bytes(SIZE)


FOOTER = b"conectix".ljust(60, b"\0") + b"\0\0\0\2" + bytes(448)
FOOTER = FOOTER[:64] + (~sum(FOOTER) & 0xFFFFFFFF).to_bytes(4, "big") + FOOTER[68:]


@pytest.mark.parametrize("length", [None, SIZE + len(FOOTER)])
@pytest.mark.parametrize("kind", BACKENDS)
@ensureDeferred
async def test_a_footer_may_lie_behind_the_end_of_the_volume(
    threads: Threads, kind: dict[str, Any], length: int | None
) -> None:
    """The disk of a fixed-size vhd has the volume's size."""
    content = noise(SIZE) + FOOTER
    with pytest.raises(ContainerDetected) as packed:
        await copy(threads, MemoryBackend("m", reactor, **kind), Stream(content, length))
    assert packed.value.container == "vhd"
    for image, tail in ((IMAGE, FOOTER[::-1]), (attrs.evolve(IMAGE, format="raw"), FOOTER)):
        stream = Stream(noise(SIZE) + tail, length)
        with pytest.raises(ImageTooLarge):
            await copy(threads, MemoryBackend("m", reactor, **kind), stream, image)


@pytest.mark.parametrize("stated", [None, "raw", "vhd"])
@pytest.mark.parametrize("size", [PIECE, 3 * MIB])
@ensureDeferred
async def test_a_footer_is_no_part_of_a_disk(
    threads: Threads, stated: str | None, size: int
) -> None:
    """The footer belongs to the disk only if the caller states the format ``raw``."""
    content = noise(size) + FOOTER
    image = attrs.evolve(IMAGE, format=stated)
    if stated == "raw":
        await copy(threads, MemoryBackend("m", reactor), Stream(content), image)
    else:
        with pytest.raises(ContainerDetected) as packed:
            await copy(threads, MemoryBackend("m", reactor), Stream(content), image)
        assert packed.value.container == "vhd"
    if stated == "vhd":
        return
    for place in (0, 63, 64):
        wrong = bytearray(content)
        wrong[size + place] ^= 1
        copying = copy(threads, MemoryBackend("m", reactor), Stream(bytes(wrong)), image)
        if stated == "raw" or not place:
            await copying
        else:
            # The image begins like a footer: a raw disk would contain these bytes.
            with pytest.raises(ImageCorrupt, match="its footer is broken"):
                await copying


def test_memory_for_bytes_ahead_is_as_large_as_the_buffers() -> None:
    memory = Memory(4, 65536)
    with memory.ahead() as first, memory.ahead() as second:
        assert len(first) == 2 * len(second) == 8 * 65536
    with memory.ahead() as third:
        assert len(third) == len(first)
