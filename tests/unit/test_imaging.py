"""The pipeline and its stages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
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
    ImageTooLarge,
    ImageTruncated,
    NotADisk,
    UnsupportedFormat,
)
from bootvol.imaging.blocks import PIECE, runs
from bootvol.imaging.buffers import BufferPool
from bootvol.imaging.inspect import check_head
from bootvol.imaging.pipeline import Copy
from bootvol.imaging.tasks import together
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
    """A stream of bytes in memory, that may end in an error or wait for ever."""

    def __init__(self, content: bytes, size: int | None = None, end: Any = None) -> None:
        self.size = size
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


@pytest.fixture
def threads() -> Iterator[Threads]:
    """Threads for hashing."""
    threads = Threads(reactor, "test", 2)  # type: ignore[arg-type]
    threads.start()
    yield threads
    threads.stop()


async def copy(
    threads: Threads, backend: MemoryBackend, stream: Stream, image: Image = IMAGE
) -> tuple[Digest, list[int]]:
    """Copy a stream onto a new volume."""
    await backend.allocate("v", SIZE)
    writer = await backend.open_writer("v")
    progress: list[int] = []
    pool = BufferPool(3, BUFFER)
    task = Copy(image, SIZE, backend.capabilities, pool, threads, progress.append, CLOCK)
    return await task.run(stream, writer), progress


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
    threads: Threads, kind: dict[str, int], content: bytes
) -> None:
    backend = MemoryBackend("m", reactor, **kind)
    digest, progress = await copy(threads, backend, Stream(content, len(content)))
    assert digest == Digest("sha512", hashlib.sha512(content).hexdigest())
    assert await read(backend, "v", 0, SIZE) == content.ljust(SIZE, b"\0")
    assert progress == sorted(progress)
    assert progress[-1] == len(content)


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
    assert digest.value == stated.value.lower()
    with pytest.raises(DigestMismatch, match="was stated"):
        await copy(threads, backend, Stream(content[:-1]), image)


@pytest.mark.parametrize(
    ("stream", "image", "error"),
    [
        (Stream(b""), IMAGE, NotADisk),
        (Stream(b"<html>"), IMAGE, NotADisk),
        (Stream(noise(SIZE + 1)), IMAGE, ImageTooLarge),
        (Stream(b"", SIZE + 1), IMAGE, ImageTooLarge),
        (Stream(noise(MIB), 2 * MIB), IMAGE, ImageTruncated),
        (Stream(noise(MIB), end=ImageTruncated()), IMAGE, ImageTruncated),
        (Stream(noise(MIB)), attrs.evolve(IMAGE, format="qcow2"), UnsupportedFormat),
    ],
)
@ensureDeferred
async def test_what_is_refused(
    threads: Threads, stream: Stream, image: Image, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await copy(threads, MemoryBackend("m", reactor), stream, image)


@ensureDeferred
async def test_a_backend_that_fails_ends_the_copy(threads: Threads) -> None:
    backend = MemoryBackend("m", reactor)
    await backend.allocate("v", SIZE)
    writer = await backend.open_writer("v")
    await writer.close()
    task = Copy(IMAGE, SIZE, backend.capabilities, BufferPool(2, BUFFER), threads, print, CLOCK)
    stream = Stream(noise(SIZE))
    with pytest.raises(BackendFailed):
        await task.run(stream, writer)
    assert stream.read <= 3 * BUFFER, "nothing is read that cannot be written"


@ensureDeferred
async def test_the_source_waits_for_the_backend(threads: Threads) -> None:
    """Backpressure: a writer that does not end holds no more than the pool."""
    backend = MemoryBackend("m", reactor)
    await backend.allocate("v", SIZE)
    writer = await backend.open_writer("v")
    held: Deferred[None] = Deferred()
    writer.write = lambda *_: held  # type: ignore[assignment]
    stream = Stream(noise(SIZE))
    pool = BufferPool(4, BUFFER)
    running = Deferred.fromCoroutine(
        Copy(IMAGE, SIZE, backend.capabilities, pool, threads, print, CLOCK).run(stream, writer)
    )
    while stream.read < 4 * BUFFER:
        await threads.run(lambda: None)
    for _ in range(20):
        await threads.run(lambda: None)
    assert stream.read == 4 * BUFFER
    running.cancel()
    with pytest.raises(CancelledError):
        await running


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
        await together(CLOCK, waits(), fails())
    assert ended == ["cancelled"]


@pytest.mark.parametrize(
    "head",
    [
        b"\xeb\x63\x90" + bytes(509),
        bytes(512),
        noise(70000),
        b"<\0\0",
        bytes(510) + b"\x55\xaa",
    ],
)
def test_what_may_be_a_disk_passes(head: bytes) -> None:
    check_head(memoryview(head))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"KDMV\1\0\0\0", "vmdk"),
        (b"QFI\xfb\0\0\0\3", "qcow2"),
        (b"conectix", "vhd"),
        (b"vhdxfile", "vhdx"),
        (b"LUKS\xba\xbe\0\1", "luks"),
        (bytes(0x40) + b"\x7f\x10\xda\xbe", "vdi"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh9", "bzip2"),
    ],
)
def test_containers_are_named(head: bytes, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        check_head(memoryview(head.ljust(70000, b"\0")))
