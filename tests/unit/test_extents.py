"""Known zeros are neither read nor written, and the content stays the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from xxhash import xxh3_128_hexdigest
from zope.interface import implementer

from bootvol.errors import DigestMismatch, SourceFailed
from bootvol.imaging.blocks import PIECE
from bootvol.imaging.buffers import Memory
from bootvol.imaging.digest import Digester
from bootvol.imaging.extents import LEAST, Ahead
from bootvol.imaging.inspect import CONTAINERS, Inspection
from bootvol.imaging.pipeline import CopyPipeline, PrefixChanged
from bootvol.imaging.target import VolumeTarget
from bootvol.imaging.volumes import VolumeStream
from bootvol.interfaces import IImageStream, ISparse, ISparseStream
from bootvol.model import Digest, Extent, Image
from bootvol.testing.backends import noise, read
from bootvol.testing.memory import MemoryBackend
from bootvol.threads import Threads
from bootvol.worker.takeover import inherit

MIB = 1024 * 1024
TIB = 1024**4
SIZE = 12 * MIB
NOISE = noise(2 * MIB)
BUFFER = 2 * PIECE
IMAGE = Image("i", "s", "n", format="raw")
CLOCK: Any = reactor

#: Parts of an image: data, zeros unknown to the stream, and known zeros; lengths in bytes.
PARTS = st.lists(
    st.tuples(
        st.sampled_from(["data", "zeros", "hole"]),
        st.one_of(st.integers(1, 2 * MIB), st.integers(1, 32).map(lambda pages: pages * PIECE)),
    ),
    min_size=1,
    max_size=6,
)


@implementer(IImageStream, ISparseStream)
class Sparse:
    """A stream with a map of some of its zeros.

    :ivar read: number of bytes read from the stream.
    """

    def __init__(self, parts: Sequence[tuple[str, int]], offset: int = 0, few: int = 3) -> None:
        pieces = [NOISE[:length] if kind == "data" else bytes(length) for kind, length in parts]
        self.content = b"".join(pieces)
        self.size = len(self.content)
        self.offset = self.at = offset
        self.validator = "one"
        self.read = 0
        self.breaks_at: int | None = None
        self._parts = parts
        self._few = few

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        """See ISparse."""
        found: list[Extent] = []
        start = 0
        for kind, count in self._parts:
            start += count
            if start > offset and len(found) < self._few:
                # The last extent may reach beyond the requested range.
                found.append(Extent(start - offset, kind == "hole"))
                offset = start
        return found

    def skip(self, length: int) -> None:
        """See ISparseStream."""
        self.at += length

    async def read_into(self, target: memoryview) -> int:
        """See IImageStream."""
        if self.breaks_at is not None and self.at + len(target) > self.breaks_at:
            raise SourceFailed("broken off")
        data = self.content[self.at : self.at + len(target)]
        target[: len(data)] = data
        self.at += len(data)
        self.read += len(data)
        return len(data)

    async def close(self) -> None:
        """See IImageStream."""


def own(content: bytes) -> Digest | None:
    """Return bootvol's own digest, for images without a stated digest."""
    digester = Digester(None)
    digester.update(memoryview(content))
    return digester.verify()


def a_copy(
    threads: Threads, backend: MemoryBackend, image: Image = IMAGE, size: int = SIZE
) -> CopyPipeline:
    """Return a copy before its start."""
    memory = Memory(3, BUFFER // 2)
    return CopyPipeline(image, size, backend.capabilities, memory, threads, CLOCK, MIB)


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(parts=PARTS, few=st.integers(1, 4))
@ensureDeferred
async def test_what_is_ahead_is_right_and_worth_it(parts: list[tuple[str, int]], few: int) -> None:
    stream = Sparse(parts, few=few)
    ahead = Ahead(stream, stream.size)
    at = 0
    while at < stream.size:
        extent = await ahead.at(at, BUFFER)
        end = min(at + extent.length, stream.size)
        assert extent.length > 0
        assert end == stream.size or end % PIECE == 0
        if extent.zero:
            assert at
            assert extent.length >= LEAST
            assert not any(stream.content[at:end])
        else:
            assert extent.length <= BUFFER
        at = end


@ensureDeferred
async def test_holes_in_parts_of_any_size_are_all_passed_over() -> None:
    stream = Sparse([("data", MIB), ("hole", 4 * MIB), ("data", 1), ("hole", 4 * MIB - 1)])
    ahead, at, zeros = Ahead(stream, stream.size, 2 * MIB), 0, 0
    while at < stream.size:
        extent = await ahead.at(at, BUFFER)
        assert extent.length <= 2 * MIB
        zeros += extent.length if extent.zero else 0
        at += extent.length
    assert zeros == 8 * MIB - PIECE


@ensureDeferred
async def test_a_provider_that_tells_nothing_is_read() -> None:
    stream = Sparse([("data", MIB)], few=0)
    assert await Ahead(stream, MIB).at(PIECE, BUFFER) == Extent(BUFFER, zero=False)


KINDS: list[dict[str, Any]] = [
    {},
    {"parallel_writes": 3},
    {"fill": 0xAA, "block_size": 4096},
    {"fill": 0xAA, "block_size": 65536, "parallel_writes": 2},
]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(KINDS),
    parts=PARTS,
    stated=st.booleans(),
    cut=st.integers(0, SIZE),
    lost=st.booleans(),
)
@ensureDeferred
async def test_any_pattern_comes_out_the_same(
    threads: Threads,
    kind: dict[str, Any],
    parts: list[tuple[str, int]],
    stated: bool,
    cut: int,
    lost: bool,
) -> None:
    """Copy at once, or in two steps with a saved checkpoint between; then read back.

    Between the steps the claim is lost: another volume takes over the written bytes.
    """
    backend = MemoryBackend("m", reactor, **kind)
    stream = Sparse(parts)
    content = stream.content
    sha = Digest("sha256", hashlib.sha256(content).hexdigest())
    image = attrs.evolve(IMAGE, digest=sha) if stated else IMAGE
    await backend.allocate("v", SIZE)
    name, task = "v", a_copy(threads, backend, image)
    writer = await backend.open_writer(name)
    stream.breaks_at = cut
    try:
        digest = await task.run(stream, writer)
    except SourceFailed:
        await task.flush(writer)
        checkpoint, task = task.checkpoint, a_copy(threads, backend, image)
        if checkpoint is not None and lost:
            name = "w"
            await inherit(
                VolumeTarget(backend, name, SIZE), "v", lambda each: task.restore(each, checkpoint)
            )
        elif checkpoint is not None:
            await task.restore(await backend.open_reader(name), checkpoint)
        digest = await task.run(Sparse(parts, task.offset), await backend.open_writer(name))
    assert digest == (sha if stated else own(content))
    assert await read(backend, name, 0, SIZE) == content.ljust(SIZE, b"\0")
    assert digest is not None
    await task.verify(await backend.open_reader(name), digest, len(content))
    assert task.offset == len(content)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(parts=PARTS, data=st.data())
def test_zeros_hash_alike_read_or_not(parts: list[tuple[str, int]], data: st.DataObject) -> None:
    stream = Sparse(parts)
    content = memoryview(stream.content)
    for stated in (None, Digest("sha256", hashlib.sha256(content).hexdigest())):
        digester = Digester(stated)
        at = 0
        while at < len(content):
            length = data.draw(st.integers(1, 16)) * PIECE
            if any(content[at : at + length]):
                digester.update(content[at : at + length])
            else:
                digester.skip(min(length, len(content) - at))
            at += length
        assert digester.verify() == (stated or own(stream.content))


def test_what_differs_hashes_otherwise() -> None:
    data, zeros = noise(PIECE), bytes(PIECE)
    contents = [b"", data, zeros, data + zeros, zeros + data, data * 2, data + zeros + data]
    contents += [zeros * 2, data[:-1], zeros[:-1], data + zeros[:-1]]
    assert len({own(each) for each in contents}) == len(contents)


def test_golden_volumes_of_before_are_still_verified() -> None:
    """Older digests cover all bytes, zeros included."""
    content = noise(PIECE) + bytes(3 * PIECE + 5)
    digester = Digester(Digest("xxh3_128", xxh3_128_hexdigest(content)))
    digester.update(memoryview(content)[:PIECE])
    digester.skip(3 * PIECE + 5)
    assert digester.verify() == digester.stated


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_with_holes_is_judged_alike(name: str) -> None:
    """An inspector in need of more bytes sees the zeros, too."""
    offset, magic, _ = CONTAINERS[name]
    head = memoryview(bytes(offset) + magic + bytes(PIECE - offset - len(magic)))
    seen: list[str] = []
    for skips in (False, True):
        inspection = Inspection(name)
        try:
            inspection.begin(head)
            if skips:
                inspection.skip(3 * PIECE + 5)
            else:
                inspection.more(memoryview(bytes(3 * PIECE + 5)))
            inspection.finish()
            seen.append(f"{inspection.container} {inspection.disk_size}")
        except Exception as error:
            seen.append(repr(error))
    assert seen[0] == seen[1]


@ensureDeferred
async def test_only_data_is_read_and_nothing_else_written(threads: Threads) -> None:
    backend = MemoryBackend("m", reactor)
    await backend.allocate("v", 2 * SIZE)
    stream = Sparse([("data", MIB), ("hole", 8 * MIB), ("data", MIB), ("hole", 10 * MIB)])
    task = a_copy(threads, backend, size=2 * SIZE)
    await task.run(stream, await backend.open_writer("v"))
    assert stream.read == 2 * MIB
    assert len(backend.volumes["v"].pages) == 2 * MIB // PIECE
    assert (task.offset, task.skipped) == (20 * MIB, 18 * MIB)


@ensureDeferred
async def test_a_volume_of_zeros_is_copied_at_once(threads: Threads) -> None:
    """Read, write and read back one TiB."""
    backend = MemoryBackend("m", reactor)
    await backend.allocate("v", TIB)
    await (await backend.open_writer("v")).write(0, memoryview(bytearray(noise(MIB))))
    reader = await backend.open_reader("v")
    reads: list[int] = []
    read_into = reader.read_into

    async def counted(offset: int, target: memoryview) -> None:
        reads.append(len(target))
        await read_into(offset, target)

    async def extents(offset: int, length: int) -> Sequence[Extent]:
        return [Extent(MIB - offset, zero=False)] if offset < MIB else [Extent(length, zero=True)]

    reader.read_into, reader.extents = counted, extents  # type: ignore[method-assign, attr-defined]
    assert ISparse.providedBy(reader)
    await backend.allocate("w", TIB)
    memory = Memory(3, BUFFER // 2)
    task = CopyPipeline(
        IMAGE, TIB, backend.capabilities, memory, threads, CLOCK, MIB, hash_anyway=True
    )
    digest = await task.run(
        VolumeStream(reader, TIB, 512), await backend.open_writer("w"), plain=True
    )
    assert digest is not None
    await task.verify(reader, digest, TIB)
    assert sum(reads) == 2 * MIB
    assert len(backend.volumes["w"].pages) == MIB // PIECE
    assert task.skipped == TIB - MIB


@ensureDeferred
async def test_a_map_that_lies_about_a_volume_does_not_pass(threads: Threads) -> None:
    """A digest reveals the lie: zeros count in the digest."""
    backend = MemoryBackend("m", reactor)
    await backend.allocate("v", SIZE)
    writer, reader = await backend.open_writer("v"), await backend.open_reader("v")
    task = a_copy(threads, backend)
    await task.run(Sparse([("data", 2 * MIB)]), writer)

    async def extents(offset: int, length: int) -> Sequence[Extent]:
        return [Extent(length, zero=True)]

    reader.extents = extents  # type: ignore[attr-defined]
    assert task.checkpoint is not None
    with pytest.raises(PrefixChanged):
        await a_copy(threads, backend).restore(reader, task.checkpoint)
    sha = Digest("sha256", hashlib.sha256(NOISE).hexdigest())
    lying = Sparse([("data", 2 * MIB)])
    lying.extents = extents  # type: ignore[method-assign]
    with pytest.raises(DigestMismatch):
        await a_copy(threads, backend, attrs.evolve(IMAGE, digest=sha)).run(lying, writer)
