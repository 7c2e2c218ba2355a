"""The disk in a qcow2 image, decoded while the image arrives: QEMU is the reference."""

from __future__ import annotations

import hashlib
import random
import struct
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from bootvol.errors import (
    ContainerTruncated,
    DigestMismatch,
    ImageCorrupt,
    ImageTruncated,
    ImportFailed,
)
from bootvol.imaging.pieces.guide import TablesChanged
from bootvol.imaging.pieces.maps import sort
from bootvol.imaging.pieces.pieces import Pieces, Unusual
from bootvol.imaging.qcow2.clusters import ZstdClusters
from bootvol.imaging.qcow2.header import parse
from bootvol.imaging.qcow2.tables import read_map
from bootvol.model import Digest, Image
from bootvol.testing.backends import noise
from bootvol.threads import Threads
from tests.fuzzing import fuzz
from tests.images import MIB, convert, patched, qemu_img, qemu_io
from tests.placing import DISK, SECTOR, SIZE, capabilities_of, limits_of, mapped_by, placed_by, raw
from tests.unit.test_imaging import BACKENDS

IMAGE = Image("images", "disk", "disk", "qcow2")


mapped = partial(mapped_by, read_map)


async def placed(
    threads: Threads,
    content: bytes,
    kind: dict[str, Any],
    image: Image = IMAGE,
    breaks: tuple[int, ...] = (),
    streamed: bytes | None = None,
) -> bytes:
    """Return the volume after an import of ``content``: see :func:`tests.placing.placed_by`."""
    return await placed_by(read_map, threads, content, kind, image, breaks, streamed)


OPTIONS = [
    "compat=0.10",
    "compat=1.1",
    "cluster_size=4k",
    "cluster_size=64k,compression_type=zstd",
    "cluster_size=512",
    "extended_l2=on,cluster_size=128k",
    "extended_l2=on,cluster_size=16k",
    "lazy_refcounts=on,refcount_bits=64",
    "preallocation=metadata",
]


def fits(kind: dict[str, Any], content: bytes) -> bool:
    """Return whether an image's clusters fit a backend's blocks."""
    return parse(content).subcluster >= capabilities_of(kind).block_size


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize(
    ("options", "packed"),
    [
        *((options, ()) for options in OPTIONS),
        # qemu-img allocates no clusters ahead if it compresses.
        *((options, ("-c",)) for options in OPTIONS[:-1]),
    ],
)
@ensureDeferred
async def test_a_converted_disk(
    threads: Threads, tmp_path: Path, kind: dict[str, Any], options: str, packed: tuple[str, ...]
) -> None:
    disk = bytearray(noise(2 * MIB) + bytes(3 * MIB) + b"text" * (MIB // 4) + noise(MIB, 3))
    disk += bytes(DISK - len(disk) - 512) + noise(512)
    content = convert(tmp_path, "qcow2", [*packed, "-o", options], bytes(disk))
    if fits(kind, content):
        digest = Digest("sha256", hashlib.sha256(content).hexdigest())
        image = attrs.evolve(IMAGE, digest=digest)
        volume = await placed(threads, content, kind, image)
        assert volume == bytes(disk).ljust(SIZE, b"\0")
    else:
        with pytest.raises(Unusual):
            await placed(threads, content, kind)


PLACES = st.integers(0, DISK // SECTOR - 1).map(lambda each: each * SECTOR)
LENGTHS = st.integers(1, MIB // SECTOR).map(lambda each: each * SECTOR)
COMMANDS = st.builds(
    lambda kind, place, length, pattern: kind.format(
        place=place, length=min(length, DISK - place), pattern=pattern
    ),
    st.sampled_from(
        [
            "write -P {pattern} {place} {length}",
            "write -z {place} {length}",
            "write -z -u {place} {length}",
            "discard {place} {length}",
        ]
    ),
    PLACES,
    LENGTHS,
    st.integers(0, 255),
)


@fuzz(25)
@given(
    st.lists(COMMANDS, max_size=12),
    st.sampled_from(OPTIONS),
    st.sampled_from(BACKENDS),
    st.booleans(),
    st.randoms(use_true_random=False),
)
@ensureDeferred
async def test_any_history_of_writes(
    threads: Threads,
    tmp_path: Path,
    commands: list[str],
    options: str,
    kind: dict[str, Any],
    snapshot: bool,
    chance: random.Random,
) -> None:
    """Writes in any order scatter the clusters; breaks of the source come anywhere."""
    image = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", options, image, str(DISK))
    qemu_io(image, commands[: len(commands) // 2], "qcow2")
    if snapshot:
        qemu_img("snapshot", "-c", "one", image)
    qemu_io(image, commands[len(commands) // 2 :], "qcow2")
    content = image.read_bytes()
    if fits(kind, content):
        breaks = tuple(sorted(chance.sample(range(len(content)), 3)))
        volume = await placed(threads, content, kind, breaks=breaks)
        assert volume == raw(tmp_path, content, "qcow2").ljust(SIZE, b"\0")


@pytest.fixture(scope="module")
def mixed_image(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, int]:
    """Return an image, its disk, and the size of the part of compressed clusters.

    The plain clusters after this part follow one another, at the end of the file.
    """
    folder = tmp_path_factory.mktemp("mixed")
    packed = b"".join(noise(56 * 1024, n) + bytes(8 * 1024) for n in range(24))
    plain = 4 * MIB
    (folder / "plain").write_bytes(noise(plain, 99))
    image = folder / "image"
    image.write_bytes(convert(folder, "qcow2", ["-c"], packed))
    qemu_img("resize", image, str(len(packed) + plain))
    qemu_io(image, [f"write -s {folder / 'plain'} {len(packed)} {plain}"], "qcow2")
    content = image.read_bytes()
    assert content.endswith(noise(plain, 99))
    return content, packed + noise(plain, 99), len(packed)


@fuzz(30)
@given(
    st.integers(200, 340) | st.integers(0, 3 * MIB // SECTOR),
    st.integers(MIB // SECTOR, MIB // SECTOR + 16),
    st.sampled_from(BACKENDS),
)
@ensureDeferred
async def test_holes_of_the_file(
    threads: Threads,
    mixed_image: tuple[bytes, bytes, int],
    start: int,
    length: int,
    kind: dict[str, Any],
) -> None:
    """Zeros that the source knows are skipped, wherever they begin and end in the file.

    Some begin before and behind the end of a buffer that started within a compressed cluster.

    Break: `src/bootvol/imaging/placing.py`: `pool.size - len(self._kept)` -> `pool.size`.
    """
    content, disk, packed = mixed_image
    zeros = bytes(length * SECTOR)
    at = len(disk) - packed - start * SECTOR
    content = patched(content, len(content) - at, zeros[:at])
    disk = patched(disk, len(disk) - at, zeros[:at])
    assert await placed(threads, content, kind) == disk.ljust(SIZE, b"\0")


@ensureDeferred
async def test_a_disk_of_an_odd_size_is_read_whole(threads: Threads, tmp_path: Path) -> None:
    """QEMU would leave out the last, incomplete sector."""
    disk = noise(2 * MIB)
    content = patched(convert(tmp_path, "qcow2", disk=disk), 24, struct.pack(">Q", len(disk) - 100))
    volume = await placed(threads, content, {"fill": 0xAA, "block_size": 4096})
    assert volume == disk[:-100].ljust(SIZE, b"\0")


def l2_of(content: bytes) -> int:
    """Return the offset of an image's first L2 table."""
    (l1,) = struct.unpack_from(">Q", content, 40)
    (entry,) = struct.unpack_from(">Q", content, l1)
    return int(entry) & ~(1 << 63)


def entry_of(index: int, value: int) -> Callable[[bytes], bytes]:
    """Return a function that sets an entry of the first L2 table."""
    return lambda content: patched(content, l2_of(content) + 8 * index, struct.pack(">Q", value))


def same_cluster(content: bytes) -> bytes:
    """Let two parts of the disk lie in one cluster."""
    at = l2_of(content)
    return patched(content, at + 8, content[at : at + 8])


def packed_noise(content: bytes) -> bytes:
    """Let the first plain cluster count as a compressed one."""
    (entry,) = struct.unpack_from(">Q", content, l2_of(content))
    place = entry & ~(1 << 63)
    return entry_of(0, 1 << 62 | 127 << 54 | place)(content)


HOSTILE: dict[str, tuple[type[Exception], Callable[[bytes], bytes]]] = {
    "beyond-the-end": (ContainerTruncated, entry_of(0, 1 << 40)),
    "askew": (ImageCorrupt, entry_of(0, 0x50200)),
    "shared": (Unusual, same_cluster),
    "in-the-tables": (Unusual, lambda content: entry_of(0, l2_of(content))(content)),
    "packed-in-the-header": (Unusual, entry_of(0, 1 << 62 | 100)),
    "packed-beyond": (ContainerTruncated, entry_of(0, 1 << 62 | 1 << 40)),
    "packed-noise": (ImageCorrupt, packed_noise),
    "l1-beyond": (ContainerTruncated, lambda each: patched(each, 40, struct.pack(">Q", 1 << 40))),
    "l1-askew": (ImageCorrupt, lambda each: patched(each, 40, struct.pack(">Q", 100))),
    "l1-short": (ImageCorrupt, lambda each: patched(each, 36, struct.pack(">I", 0))),
    "cluster-bits": (ImageCorrupt, lambda each: patched(each, 20, struct.pack(">I", 63))),
    "empty": (Unusual, lambda each: patched(each, 24, bytes(8))),
    "huge": (ImageCorrupt, lambda each: patched(each, 24, struct.pack(">Q", 1 << 63))),
}


@pytest.mark.parametrize("name", HOSTILE)
@ensureDeferred
async def test_tables_that_lie_are_refused(threads: Threads, tmp_path: Path, name: str) -> None:
    """Entries that lead nowhere, into other parts or to noise are errors of the image.

    Break: `src/bootvol/imaging/qcow2/tables.py`: `if place % self._header.cluster:` -> `if False:`.
    """
    error, change = HOSTILE[name]
    content = change(convert(tmp_path, "qcow2", disk=noise(2 * MIB)))
    with pytest.raises(error):
        await placed(threads, content, {})


@ensureDeferred
async def test_an_image_that_changes_after_its_tables_were_read(
    threads: Threads, tmp_path: Path
) -> None:
    """The digest covers the arriving file alone, so the tables in the file must be the known ones.

    Break: `src/bootvol/imaging/pieces/maps.py`: `raise TablesChanged` -> `pass`.
    """
    first = convert(tmp_path, "qcow2", disk=noise(MIB) + bytes(MIB) + noise(MIB, 1))
    other = convert(tmp_path, "qcow2", disk=noise(2 * MIB, 2) + bytes(MIB))
    assert len(first) == len(other)
    image = attrs.evolve(IMAGE, digest=Digest("sha256", hashlib.sha256(other).hexdigest()))
    with pytest.raises(TablesChanged):
        await placed(threads, first, {}, image, streamed=other)


@ensureDeferred
async def test_a_header_that_differs_in_the_arriving_file(threads: Threads, tmp_path: Path) -> None:
    """A lying mirror states a smaller disk, and then sends the true file with the right digest.

    Break: `src/bootvol/imaging/qcow2/tables.py`: `(begin, *tables)` -> `tuple(tables)`.
    """
    content = convert(tmp_path, "qcow2", disk=noise(2 * MIB))
    lying = patched(content, 24, struct.pack(">Q", MIB))
    with pytest.raises(TablesChanged):
        await placed(threads, lying, {}, streamed=content)


@ensureDeferred
async def test_compressed_clusters_that_are_one(threads: Threads, tmp_path: Path) -> None:
    """Clusters of the disk must not share a compressed cluster: decompression takes time."""
    content = convert(tmp_path, "qcow2", ["-c"], b"text" * MIB)
    at = l2_of(content)
    entry = content[at : at + 8]
    with pytest.raises(Unusual):
        await placed(threads, patched(content, at, entry * 8), {})


def test_pieces_that_would_take_much_memory() -> None:
    """A million compressed clusters, each a byte behind the other, would be in memory at once.

    Break: `src/bootvol/imaging/pieces/maps.py`: `piece.start < near[0] + _NEAR` -> `False`.
    """
    pieces = Pieces()
    for number in range(5000):
        start = MIB + number
        pieces.add(start, SECTOR - start % SECTOR, number * 65536, packed=True)
    with pytest.raises(Unusual):
        sort(pieces, [])


def test_clusters_that_compress_well() -> None:
    pieces = Pieces()
    for number in range(10_000):
        pieces.add(number * SECTOR, SECTOR, number * 65536, packed=True)
    sort(pieces, [])


@ensureDeferred
async def test_more_tables_than_are_read(threads: Threads, tmp_path: Path) -> None:
    content = convert(tmp_path, "qcow2", ["-o", "cluster_size=512"], noise(9 * MIB))
    with pytest.raises(Unusual):
        await mapped(threads, content, attrs.evolve(limits_of({}), volume_size=16 * MIB))


def test_a_cluster_of_many_frames_is_refused() -> None:
    frames = zstd.compress(b"text") + zstd.compress(b"") * 1000
    with pytest.raises(ImageCorrupt):
        ZstdClusters().decompress(memoryview(frames), memoryview(bytearray(4096)))


_TEXT = bytes(range(256)) * 16


def _without_size(data: bytes) -> bytes:
    """Compress data to a frame that does not state its size."""
    compressor = zstd.ZstdCompressor()
    first = compressor.compress(data[:100]) + compressor.flush(compressor.FLUSH_BLOCK)
    return first + compressor.compress(data[100:]) + compressor.flush()


@pytest.mark.parametrize(
    "frames",
    [
        zstd.compress(_TEXT),
        zstd.compress(_TEXT) + b"foreign" * 100,
        zstd.compress(_TEXT[:1000]) + zstd.compress(_TEXT[1000:]),
        _without_size(_TEXT),
        zstd.compress(_TEXT + bytes(1000)),
    ],
    ids=["one frame", "foreign bytes behind", "two frames", "no size", "a longer frame"],
)
def test_clusters_of_zstd_as_qemu_reads_them(frames: bytes) -> None:
    clusters, target = ZstdClusters(), memoryview(bytearray(4096))
    for _ in range(2):
        target[:] = bytes(4096)
        assert clusters.decompress(memoryview(frames), target) == 4096
        assert target == _TEXT


@pytest.mark.parametrize(
    "frames",
    [b"", b"text" * 100, zstd.compress(_TEXT[:-1]), zstd.compress(_TEXT)[:-1]],
    ids=["nothing", "no frame", "a short frame", "a frame cut off"],
)
def test_broken_clusters_of_zstd(frames: bytes) -> None:
    clusters, target = ZstdClusters(), memoryview(bytearray(4096))
    for _ in range(2):
        with pytest.raises(ImageCorrupt):
            clusters.decompress(memoryview(frames), target)
    assert clusters.decompress(memoryview(zstd.compress(_TEXT)), target) == 4096


def test_a_frame_that_states_a_huge_size_takes_no_memory() -> None:
    """The size is a statement of a stranger.

    Break: `src/bootvol/imaging/qcow2/clusters.py`: `if self._sizes(data) != length:` -> `if 0:`.
    """
    huge = zstd.compress(bytes(1 << 30))
    assert len(huge) < 1 << 17
    tracemalloc.start()
    try:
        target = memoryview(bytearray(1 << 16))
        assert ZstdClusters().decompress(memoryview(huge), target) == 1 << 16
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


@ensureDeferred
async def test_the_digest_of_the_file_decides(threads: Threads, tmp_path: Path) -> None:
    content = convert(tmp_path, "qcow2", ["-c"], noise(MIB) + b"text" * MIB)
    image = attrs.evolve(IMAGE, digest=Digest("sha256", "0" * 64))
    with pytest.raises(DigestMismatch):
        await placed(threads, content, {}, image)


@ensureDeferred
async def test_a_file_that_ends_early_is_truncated(threads: Threads, tmp_path: Path) -> None:
    content = convert(tmp_path, "qcow2", disk=noise(2 * MIB))
    with pytest.raises(ImageTruncated):
        await placed(threads, content, {}, streamed=content[:-1])


@fuzz(150)
@given(st.data())
@ensureDeferred
async def test_any_bytes_are_read_or_refused(
    threads: Threads, packed_image: bytes, data: Any
) -> None:
    """Changed bytes anywhere in an image give a disk or an error of an image, and nothing else.

    Break: `src/bootvol/imaging/qcow2/tables.py`: `if start >= self._size:` -> `if False:`.
    """
    content = bytearray(packed_image)
    entries = st.integers(0, 15).map(lambda n: l2_of(packed_image) + 8 * n)
    places = st.integers(0, 112) | entries | st.integers(0, len(content) - 9)
    for place, value in data.draw(st.lists(st.tuples(places, st.binary(max_size=8)), max_size=4)):
        content[place : place + len(value)] = value
    try:
        volume = await placed(threads, bytes(content), {})
    except (ImportFailed, Unusual):
        return
    assert len(volume) == SIZE


@pytest.fixture(scope="module")
def packed_image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return an image with plain and compressed clusters."""
    folder = tmp_path_factory.mktemp("packed")
    half = b"".join(noise(32 * 1024, n) + bytes(32 * 1024) for n in range(12))
    return convert(folder, "qcow2", ["-c"], half + noise(MIB // 4))
