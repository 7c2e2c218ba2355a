"""Volumes that begin as clones of similar disks: nothing of the other disk remains."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from sqlalchemy import Connection, insert
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import capturedLogs, formatEvent

from bootvol.backends import Backends
from bootvol.errors import BackendFailed, NoSpace, SourceFailed
from bootvol.imaging import chunk_index
from bootvol.imaging.buffers import Memory
from bootvol.imaging.chunk_index import (
    CHUNK,
    HOLE,
    PAGE,
    UNKNOWN,
    ChunkIndex,
    IndexFull,
    entries_of,
)
from bootvol.imaging.delta import Base, Contents, DeltaTarget, DeltaWriter
from bootvol.imaging.pipeline import CopyPipeline
from bootvol.imaging.target import Target, VolumeTarget
from bootvol.lifecycle import Status
from bootvol.model import CachedImage, DiskIndex, Image, Volume, family_of
from bootvol.store import disk_indexes
from bootvol.store import image_cache as rows
from bootvol.store.schema import imports, volumes
from bootvol.testing.backends import noise, read
from bootvol.testing.memory import MemoryBackend
from bootvol.threads import Threads
from bootvol.worker.copier import Copier, ImportLimits
from bootvol.worker.deltas import Deltas
from tests.fuzzing import fuzz
from tests.unit.test_extents import BUFFER, CLOCK, IMAGE, MIB, PARTS, SIZE, Sparse
from tests.unit.test_imaging import Stream

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VOLUME = Volume(1, "v", "t", "u", 1, Status.DOWNLOADING, NOW, "nova", "b", "i")
INDEX = DiskIndex("family", "t", 0, b"chunks")
CACHED = CachedImage("golden", "b", "i", "content", SIZE, None, 0, 0.0)
HALF = CHUNK // 2


class Watched(MemoryBackend):
    """A backend with clones that notes what is written."""

    def __init__(self, **kind: Any) -> None:
        super().__init__("b", reactor, clones=True, **kind)
        self.written: list[tuple[int, int]] = []

    async def open_writer(self, volume: str) -> Any:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_writer`."""
        writer: Any = await super().open_writer(volume)
        plain = writer.write

        async def write(offset: int, data: memoryview) -> None:
            self.written.append((offset, len(data)))
            await plain(offset, data)

        writer.write = write
        return writer


def found(base: Base | None) -> Callable[[], Any]:
    """Return a search that finds a base."""

    async def find() -> Base | None:
        return base

    return find


def copy_to(target: Target, threads: Threads, *, blank: bool = True) -> CopyPipeline:
    """Return a copy before its start."""
    limits = ImportLimits(MIB, 0, Path("unused"))
    copier = Copier(limits, Memory(4, BUFFER // 2), threads, CLOCK)
    return copier.copy(IMAGE, target, blank=blank)


def fitting(parts: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the first parts that fit on the volume together."""
    ends = accumulate(length for _, length in parts)
    return [part for part, end in zip(parts, ends, strict=True) if end <= SIZE]


async def filled(backend: MemoryBackend, name: str, threads: Threads, content: bytes) -> Base:
    """Import an image; return the volume as a base."""
    target = DeltaTarget(backend, name, SIZE, threads, found(None))
    await target.renew()
    await copy_to(target, threads).run(Stream(content, len(content)), await target.open_writer())
    return base_of(target)


def base_of(target: DeltaTarget) -> Base:
    """Return a filled volume as a base."""
    assert target.contents is not None
    index = target.contents.index()
    assert index is not None
    return Base(target.name, index, target.size)


def check_index(index: ChunkIndex, disk: bytes) -> None:
    """Check that every known entry is right."""
    for number in range(len(disk) // CHUNK):
        chunk = disk[number * CHUNK : (number + 1) * CHUNK]
        right = hashlib.sha256(chunk).digest() if any(chunk) else HOLE
        assert index[number] in (UNKNOWN, right)


@fuzz(40)
@given(
    parallel=st.sampled_from([1, 3]),
    before=PARTS,
    after=PARTS,
    same=st.integers(0, 6),
    cut=st.integers(0, SIZE),
    how=st.sampled_from(["whole", "goes on", "restarts"]),
)
@ensureDeferred
async def test_nothing_of_the_base_remains(
    threads: Threads,
    parallel: int,
    before: list[tuple[str, int]],
    after: list[tuple[str, int]],
    same: int,
    cut: int,
    how: str,
) -> None:
    """The volume has the bytes of the new image, and zeros to its end.

    The copy may break off, and go on in the same daemon or in the next one.

    Break: `src/bootvol/imaging/delta.py`: `return self._base[number] == entry` -> `return True`.
    """
    backend = Watched(parallel_writes=parallel)
    base = await filled(backend, "base", threads, Sparse(before).content)
    parts = fitting(before[:same] + after)
    stream = Sparse(parts)
    target = DeltaTarget(backend, "v", SIZE, threads, found(base))
    await target.renew()
    task = copy_to(target, threads)
    if how != "whole":
        stream.breaks_at = cut
    try:
        await task.run(stream, await target.open_writer())
    except SourceFailed:
        await task.flush(await target.open_writer())
        checkpoint = task.checkpoint
        next_target: VolumeTarget = target
        if how == "restarts" or not task.can_go_on:
            next_target = VolumeTarget(backend, "v", SIZE)
            if checkpoint is None:
                await next_target.renew()
                task = copy_to(next_target, threads)
            else:
                task = copy_to(next_target, threads, blank=checkpoint.blank)
                await task.restore(await backend.open_reader("v"), checkpoint)
        stream = Sparse(parts, task.offset)
        await task.run(stream, await next_target.open_writer())
        target.contents = target.contents if next_target is target else None
    disk = stream.content.ljust(SIZE, b"\0")
    assert await read(backend, "v", 0, SIZE) == disk
    if target.contents is not None:
        check_index(base_of(target).index, disk)


@fuzz(60)
@given(
    calls=st.lists(
        st.tuples(st.integers(0, 15), st.integers(1, 10), st.sampled_from([None, 1, 2])),
        max_size=12,
    ),
    grain=st.sampled_from([CHUNK, HALF, 4096]),
)
@ensureDeferred
async def test_any_calls_come_out_right(
    threads: Threads, calls: list[tuple[int, int, int | None]], grain: int
) -> None:
    """The writer makes the same bytes as the backend's own writer, of any calls in any order."""
    backend = Watched()
    before = noise(4 * CHUNK, 1) + bytes(4 * CHUNK) + noise(4 * CHUNK, 2)
    base = await filled(backend, "base", threads, before)
    target = DeltaTarget(backend, "v", SIZE, threads, found(base))
    await target.renew()
    model = bytearray(before.ljust(SIZE, b"\0"))
    writer = await target.open_writer()
    for place, length, seed in calls:
        offset, count = place * grain, length * grain
        data = bytes(count) if seed is None else noise(16 * CHUNK, seed)[offset:][:count]
        data = data.ljust(count, b"\1")
        if seed is None:
            await writer.zero(offset, count)
        else:
            await writer.write(offset, memoryview(bytearray(data)))
        model[offset : offset + count] = data
    assert await read(backend, "v", 0, SIZE) == model
    check_index(base_of(target).index, bytes(model))


@ensureDeferred
async def test_only_what_differs_is_written(threads: Threads) -> None:
    """Data of the base where the new image has zeros is zeroed.

    Break: `src/bootvol/imaging/delta.py`: `reads_zero_when_new=base is None` ->
    `reads_zero_when_new=True`.
    """
    backend = Watched()
    old = noise(32 * CHUNK) + bytes(8 * CHUNK) + noise(8 * CHUNK, 1)
    new = bytearray(old)
    new[5 * CHUNK : 6 * CHUNK] = noise(CHUNK, 2)
    new[7 * CHUNK + 9] ^= 1
    new[20 * CHUNK : 24 * CHUNK] = bytes(4 * CHUNK)
    base = await filled(backend, "base", threads, old)
    backend.written.clear()
    target = DeltaTarget(backend, "v", SIZE, threads, found(base))
    await target.renew()
    stream = Stream(bytes(new), len(new))
    await copy_to(target, threads).run(stream, await target.open_writer())
    assert await read(backend, "v", 0, SIZE) == new.ljust(SIZE, b"\0")
    assert sorted(backend.written) == [(5 * CHUNK, CHUNK), (7 * CHUNK, CHUNK)]
    assert target.contents is not None
    assert (target.contents.written, target.contents.kept) == (2 * CHUNK, 34 * CHUNK)
    assert base_of(target).index[7] == hashlib.sha256(new[7 * CHUNK : 8 * CHUNK]).digest()
    assert base_of(target).index[20] == HOLE


@ensureDeferred
async def test_a_smaller_volume_between_cuts_the_index(threads: Threads) -> None:
    """Data that the smaller volume cut off is gone, though the third release has the data again.

    Break: `src/bootvol/imaging/delta.py`: `index.cut(self.size // CHUNK)` -> `pass`.
    """
    backend = Watched()
    contents = [noise(SIZE - CHUNK), noise(3 * CHUNK), noise(SIZE - CHUNK)]
    base = None
    for number, (content, size) in enumerate(zip(contents, [SIZE, SIZE // 3, SIZE], strict=True)):
        target = DeltaTarget(backend, str(number), size, threads, found(base))
        await target.renew()
        stream = Stream(content, len(content))
        await copy_to(target, threads).run(stream, await target.open_writer())
        assert await read(backend, str(number), 0, size) == content.ljust(size, b"\0")
        base = base_of(target)
        check_index(base.index, content.ljust(SIZE, b"\0"))


@ensureDeferred
async def test_a_base_that_is_gone_costs_nothing(threads: Threads) -> None:
    """The cached image may be removed at any time before the clone."""
    backend = Watched()
    base = await filled(backend, "base", threads, noise(4 * CHUNK))
    await backend.delete("base")
    target = DeltaTarget(backend, "v", SIZE, threads, found(base))
    await target.renew()
    assert target.base is None
    assert target.capabilities == backend.capabilities
    content = bytes(CHUNK) + noise(CHUNK)
    stream = Stream(content, len(content))
    await copy_to(target, threads).run(stream, await target.open_writer())
    assert await read(backend, "v", 0, SIZE) == content.ljust(SIZE, b"\0")
    check_index(base_of(target).index, content)


@ensureDeferred
async def test_a_full_backend_is_no_missing_base(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The importer makes room, and tries again."""
    backend = Watched()
    base = await filled(backend, "base", threads, noise(CHUNK))

    async def full(source: str, target: str, size: int, held: int) -> None:
        raise NoSpace("full")

    monkeypatch.setattr(backend, "clone", full)
    with pytest.raises(NoSpace):
        await DeltaTarget(backend, "v", SIZE, threads, found(base)).renew()


@ensureDeferred
async def test_a_volume_made_otherwise_has_no_index(threads: Threads) -> None:
    """Bytes that another daemon wrote, or that a shortcut shared, are unknown."""
    backend = Watched()
    await filled(backend, "other", threads, noise(2 * CHUNK, 1))
    target = DeltaTarget(backend, "v", SIZE, threads, found(None))
    await target.renew()
    await target.clone("other", SIZE)
    assert target.contents is None
    writer = await target.open_writer()
    assert not isinstance(writer, DeltaWriter)


@ensureDeferred
async def test_bytes_that_may_be_lost_are_written_again(threads: Threads) -> None:
    """A failed flush may lose bytes, so only chunks of the untouched base are left out."""
    backend = Watched()
    target = DeltaTarget(backend, "v", SIZE, threads, found(None))
    await target.renew()
    writer = await target.open_writer()
    data = memoryview(bytearray(noise(CHUNK)))
    for _ in range(2):
        await writer.write(0, data)
    assert backend.written == [(0, CHUNK)] * 2


@ensureDeferred
async def test_a_failed_write_leaves_the_chunk_unknown(threads: Threads) -> None:
    class Broken:
        async def write(self, offset: int, data: memoryview) -> None:
            raise BackendFailed("broken")

        async def zero(self, offset: int, length: int) -> None:
            raise BackendFailed("broken")

        flush = close = None

    contents = Contents(ChunkIndex())
    broken: Any = Broken()
    writer = DeltaWriter(broken, contents, threads)
    with pytest.raises(BackendFailed):
        await writer.write(0, memoryview(bytearray(noise(CHUNK))))
    with pytest.raises(BackendFailed):
        await writer.zero(0, CHUNK)
    index = contents.index()
    assert index is not None
    assert index[0] == UNKNOWN


@ensureDeferred
async def test_halves_at_once_are_both_written(threads: Threads) -> None:
    backend = Watched()
    base = await filled(backend, "base", threads, noise(CHUNK))
    target = DeltaTarget(backend, "v", SIZE, threads, found(base))
    await target.renew()
    writer = await target.open_writer()
    data = memoryview(bytearray(noise(CHUNK, 1)))
    await gatherResults(
        [
            Deferred.fromCoroutine(writer.write(at, data[at : at + HALF]))
            for at in range(0, CHUNK, HALF)
        ]
    )
    assert await read(backend, "v", 0, CHUNK) == data
    assert base_of(target).index[0] == UNKNOWN


def test_an_index_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with data in too many places has no index, and every call writes."""
    monkeypatch.setattr(chunk_index, "_MOST", 2)
    index, entry = ChunkIndex(), b"\1" * 32
    index[0] = index[5000] = entry
    with pytest.raises(IndexFull):
        index[9000] = entry
    contents = Contents(index)
    assert list(contents.nonzero(0, 10_000)) == [(0, 1), (5000, 5001)]
    contents.change(9000, [entry])
    assert contents.index() is None
    for number in (1, 5000, 9000):
        contents.change(number, [entry])
    assert list(contents.unlike(0, [entry])) == [(0, 1)]
    assert list(contents.nonzero(0, 10_000)) == [(0, 10_000)]


@fuzz(100)
@given(
    numbers=st.lists(st.integers(0, 10_000), max_size=20),
    place=st.integers(0),
    cut=st.integers(1, 400),
)
def test_a_stored_index_is_the_same_or_refused(numbers: list[int], place: int, cut: int) -> None:
    index = ChunkIndex()
    for number in numbers:
        index[number] = hashlib.sha256(str(number).encode()).digest()
    stored = index.to_bytes()
    assert dict(ChunkIndex.of_bytes(stored).entries()) == dict(index.entries())
    changed = bytearray(stored)
    changed[place % len(stored)] ^= 1
    for wrong in (changed, stored[:-cut], stored + b"\0", b""):
        with pytest.raises(ValueError, match="no index"):
            ChunkIndex.of_bytes(bytes(wrong))


def test_parts_of_chunks_are_unknown() -> None:
    data = memoryview(bytearray(noise(3 * CHUNK)))
    whole = hashlib.sha256(data[HALF : HALF + CHUNK]).digest()
    assert entries_of(HALF, data[: 2 * CHUNK]) == [UNKNOWN, whole, UNKNOWN]
    assert entries_of(4096, data[:4096]) == [UNKNOWN]


def test_releases_of_an_image_are_a_family() -> None:
    def family(name: str, source: str = "s") -> str:
        return family_of(Image(name, source, name))

    first = family("Debian-12-generic-amd64-20260101-1.qcow2")
    assert first == family("debian-12-generic-amd64-20260201-17.qcow2")
    assert first != family("debian-12-nocloud-amd64-20260101-1.qcow2")
    assert first != family("Debian-12-generic-amd64-20260101-1.qcow2", "other")


@attrs.frozen
class Case:
    """A cached image with an index, and whether a volume may begin with it."""

    fits: bool
    cached: CachedImage = CACHED
    index: DiskIndex = INDEX
    others: str | None = None


@pytest.mark.parametrize(
    "case",
    [
        Case(fits=True),
        Case(fits=True, index=attrs.evolve(INDEX, depth=1)),
        Case(fits=False, index=attrs.evolve(INDEX, depth=2)),
        Case(fits=False, index=attrs.evolve(INDEX, family="other")),
        Case(fits=False, cached=attrs.evolve(CACHED, backend="other")),
        Case(fits=False, cached=attrs.evolve(CACHED, host="other")),
        Case(fits=False, index=attrs.evolve(INDEX, tenant="other")),
        Case(fits=True, index=attrs.evolve(INDEX, tenant="other"), others="content"),
        Case(fits=False, index=attrs.evolve(INDEX, tenant="other"), others="another"),
    ],
)
def test_a_base_is_an_image_of_the_tenant(db: Connection, case: Case) -> None:
    """A volume begins only with an image that its tenant has got from the source.

    Otherwise the time of an import would tell about images of others.

    Break: `src/bootvol/store/disk_indexes.py`: `or_(disk_indexes.c.tenant == volume.tenant,
    received)` -> `or_(disk_indexes.c.tenant != "", received)`.

    Break: `src/bootvol/store/disk_indexes.py`: `volumes.c.tenant == volume.tenant,` ->
    `volumes.c.tenant != "",`.
    """
    for number, (tenant, content) in enumerate([("t", case.others), ("other", "content")], 1):
        db.execute(
            insert(volumes).values(
                id=number, name=f"v{number}", tenant=tenant, user="u", size_gib=1, created_at=NOW,
                availability_zone="nova", backend="b", metadata={}, status="available",
            )
        )  # fmt: skip
        db.execute(
            insert(imports).values(
                volume_id=number, image={}, source="s", content=content, phase="done",
                bytes_done=0, bytes_per_second=0, attempt=1,
            )
        )  # fmt: skip
    assert rows.begin(db, case.cached, 1)
    assert rows.complete(db, case.cached.name, case.index)
    base = disk_indexes.find(db, VOLUME, "family", 1)
    assert base == ((case.cached.name, case.cached.size, case.index) if case.fits else None)


def test_an_index_goes_with_its_image(db: Connection) -> None:
    for name in ("golden", "newer"):
        assert rows.begin(db, attrs.evolve(CACHED, name=name, content=name), 1)
        assert disk_indexes.find(db, VOLUME, "family", 1) != (name, CACHED.size, INDEX), (
            "still in the making"
        )
        assert rows.complete(db, name, INDEX)
    assert disk_indexes.find(db, VOLUME, "family", 1) == ("newer", CACHED.size, INDEX)
    rows.mark_for_eviction(db, "newer")
    assert disk_indexes.find(db, VOLUME, "family", 1) == ("golden", CACHED.size, INDEX)
    rows.forget(db, "golden")
    assert disk_indexes.find(db, VOLUME, "family", 1) is None
    assert not rows.complete(db, "newer", INDEX), "given up meanwhile"


@ensureDeferred
async def test_a_long_run_of_zeros_is_noted_page_by_page(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reactor notes one page at a time.  A lost index notes nothing, whatever the length.

    Break: `src/bootvol/imaging/delta.py`: `            yield first, end` -> `            pass`.
    """
    zeroed: list[tuple[int, int]] = []

    class Zeroing:
        async def zero(self, offset: int, length: int) -> None:
            zeroed.append((offset, length))

        write = flush = close = None

    base = ChunkIndex()
    for number in range(3 * PAGE):
        base[number] = UNKNOWN
    contents = Contents(base)
    zeroing: Any = Zeroing()
    writer = DeltaWriter(zeroing, contents, threads)
    await writer.zero(CHUNK, 4 * PAGE * CHUNK)
    assert zeroed == [
        (CHUNK, (PAGE - 1) * CHUNK),
        (PAGE * CHUNK, PAGE * CHUNK),
        (2 * PAGE * CHUNK, PAGE * CHUNK),
    ]
    zeroed.clear()
    monkeypatch.setattr(chunk_index, "_MOST", 3)
    contents.change(4 * PAGE, [UNKNOWN])
    assert contents.index() is None
    # A list with an entry for each of these chunks would take 8 TiB.
    length = 2**40 * CHUNK
    await writer.zero(0, length)
    assert zeroed == [(0, length)]


def test_a_backend_without_clones_is_told_once(threads: Threads) -> None:
    """The setting would be without any effect, and nobody would know."""
    loop: Any = reactor
    database: Any = None
    deltas = Deltas(database, Backends([MemoryBackend("b", loop)], loop), threads, {"b"})
    now = datetime(2026, 1, 1, tzinfo=UTC)
    volume = Volume(1, "v", "t", "u", 1, Status.DOWNLOADING, now, "nova", "b", "i")
    with capturedLogs() as logged:
        for _ in range(2):
            assert not isinstance(deltas.target(volume, Image("i", "s", "n"), "c"), DeltaTarget)
    (told,) = map(formatEvent, logged)
    assert told == "delta = true has no effect on backend b, which makes no clones of volumes"
