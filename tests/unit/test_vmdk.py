"""The disk in a streamed vmdk image, decoded while the image arrives: QEMU is the reference."""

from __future__ import annotations

import gzip
import hashlib
import random
import struct
import subprocess
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from bootvol.errors import (
    ContainerTruncated,
    DigestMismatch,
    FormatMismatch,
    ImageCorrupt,
    ImageRefersElsewhere,
    ImageTooLarge,
    ImportFailed,
)
from bootvol.imaging.pieces.pieces import Unusual
from bootvol.imaging.streaming import StreamingCopy
from bootvol.imaging.vmdk.markers import MarkerGuide
from bootvol.model import Digest, Image
from bootvol.testing.backends import noise
from bootvol.threads import Threads
from tests.fuzzing import fuzz
from tests.images import MIB, convert, ova, patched, qemu_img, qemu_io
from tests.placing import DISK, SECTOR, SIZE, capabilities_of, copied, limits_of, memory, raw
from tests.unit.test_imaging import BACKENDS, CLOCK
from tests.vmdk import DIRECTORY, END, FOOTER, TABLE, Streamed, grain, metadata

IMAGE = Image("images", "disk", "disk", "vmdk")
QEMU = ["-o", "subformat=streamOptimized"]


async def placed(
    threads: Threads,
    content: bytes,
    kind: dict[str, Any],
    image: Image = IMAGE,
    breaks: tuple[int, ...] = (),
    *,
    sized: bool = True,
) -> bytes:
    """Return the volume after an import of ``content``: see :func:`tests.placing.copied`."""

    def new() -> StreamingCopy:
        guide = MarkerGuide(limits_of(kind))
        return StreamingCopy(image, guide, capabilities_of(kind), SIZE, memory(), threads, CLOCK)

    return await copied(content, kind, new, breaks, sized=sized)


#: The ways that images arrive.
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": lambda content: gzip.compress(content, 1),
    "ova": ova,
    "packed-ova": lambda content: gzip.compress(ova(content), 1),
}
FORMS = st.builds(
    Streamed,
    grain=st.sampled_from([8, 32, 128]),
    late=st.booleans(),
    empty=st.booleans(),
    zeros=st.booleans(),
    short=st.booleans(),
    version=st.sampled_from([1, 2, 3]),
)
PLACES = st.integers(0, DISK // SECTOR - 1).map(lambda each: each * SECTOR)
LENGTHS = st.integers(1, MIB // SECTOR).map(lambda each: each * SECTOR)
WRITES = st.lists(st.tuples(PLACES, LENGTHS, st.integers(0, 255)), max_size=8)


@fuzz(25)
@given(
    WRITES,
    FORMS,
    st.sampled_from(BACKENDS),
    st.sampled_from(list(PACKED)),
    st.booleans(),
    st.randoms(use_true_random=False),
)
@ensureDeferred
async def test_any_disk_as_vmware_streams_it(
    threads: Threads,
    tmp_path: Path,
    writes: list[tuple[int, int, int]],
    form: Streamed,
    kind: dict[str, Any],
    way: str,
    sized: bool,
    chance: random.Random,
) -> None:
    """Breaks of the source come anywhere.  Grains smaller than a block are left to QEMU."""
    disk = bytearray(DISK)
    for place, length, pattern in writes:
        length = min(length, DISK - place)
        data = bytes([pattern]) * length if pattern % 2 else noise(length, pattern)
        disk[place : place + length] = data
    image = form.image(bytes(disk))
    content = PACKED[way](image)
    breaks = tuple(sorted(chance.sample(range(len(content)), 3)))
    assert raw(tmp_path, image, "vmdk") == disk
    if form.grain * SECTOR < capabilities_of(kind).block_size:
        with pytest.raises(Unusual):
            await placed(threads, content, kind)
    else:
        volume = await placed(threads, content, kind, breaks=breaks, sized=sized)
        assert volume == disk.ljust(SIZE, b"\0")


@fuzz(25)
@given(WRITES, st.sampled_from(BACKENDS), st.booleans(), st.randoms(use_true_random=False))
@ensureDeferred
async def test_any_history_of_writes_by_qemu(
    threads: Threads,
    tmp_path: Path,
    writes: list[tuple[int, int, int]],
    kind: dict[str, Any],
    sized: bool,
    chance: random.Random,
) -> None:
    """QEMU writes the tables first, and the grains in any order."""
    image = tmp_path / "disk.vmdk"
    qemu_img("create", "-f", "vmdk", *QEMU, image, str(DISK))
    grain, seen = 128 * SECTOR, set()
    commands = []
    for place, length, pattern in writes:
        # QEMU refuses to write to a grain once more.
        at = place // grain
        if at not in seen and (at + 1) * grain <= DISK:
            seen.add(at)
            del length
            commands.append(f"write -P {pattern} {at * grain} {grain}")
    qemu_io(image, commands, "vmdk")
    content = image.read_bytes()
    breaks = tuple(sorted(chance.sample(range(len(content)), 3)))
    volume = await placed(threads, content, kind, breaks=breaks, sized=sized)
    assert volume == raw(tmp_path, content, "vmdk").ljust(SIZE, b"\0")


DATA = noise(2 * MIB) + bytes(3 * MIB) + b"text" * (MIB // 4) + noise(DISK - 6 * MIB, 3)


@pytest.mark.parametrize("kind", BACKENDS)
@ensureDeferred
async def test_a_disk_converted_by_qemu(
    threads: Threads, tmp_path: Path, kind: dict[str, Any]
) -> None:
    content = convert(tmp_path, "vmdk", QEMU, DATA)
    digest = Digest("sha256", hashlib.sha256(content).hexdigest())
    volume = await placed(threads, content, kind, attrs.evolve(IMAGE, digest=digest))
    assert volume == DATA.ljust(SIZE, b"\0")


@pytest.mark.parametrize("way", PACKED)
@ensureDeferred
async def test_the_digest_covers_the_bytes_of_the_source(threads: Threads, way: str) -> None:
    """The digest is that of the archive, and not that of the image inside.

    Break: `src/bootvol/imaging/streaming.py`: `stated = self._image.digest` -> `stated = None`.
    """
    content = PACKED[way](Streamed().image(DATA))
    right = Digest("sha256", hashlib.sha256(content).hexdigest())
    volume = await placed(threads, content, {}, attrs.evolve(IMAGE, digest=right))
    assert volume == DATA.ljust(SIZE, b"\0")
    wrong = attrs.evolve(IMAGE, digest=Digest("sha256", "0" * 64))
    with pytest.raises(DigestMismatch):
        await placed(threads, content, {}, wrong)


def changed(offset: int, data: bytes) -> Callable[[bytes], bytes]:
    """Return a function that changes bytes of an image; offsets count from either end."""
    return lambda content: patched(content, offset % len(content), data)


def first(packed: bytes, place: int = 0, size: int | None = None) -> Callable[[bytes], bytes]:
    """Return a function that gives an image with another first grain.

    :param packed: the compressed grain.
    :param place: place on the disk, in sectors.
    :param size: the stated length of ``packed``, if other than the right one.
    """
    marker = struct.pack("<QI", place, len(packed) if size is None else size)
    return lambda _: Streamed().image(DATA, marker + packed)


#: A grain of another content than the first of :data:`DATA`.
PACKED_GRAIN = zlib.compress(bytes(65535) + b"\1")
#: Places in the descriptor.
PARENT = Streamed().image(DATA).index(b"ffffffff")
EXTENT = Streamed().image(DATA).index(b"RDONLY")
#: Places from the end: the end marker, the footer and its marker, the directory and its marker, the
#: table and its marker.
LAST, FOOT, LIST, ENTRIES = -512, -1024, -2048, -4608
#: The length of a descriptor, in sectors.
WIDE = struct.pack("<Q", 100)

HOSTILE: dict[str, tuple[type[Exception], Callable[[bytes], bytes]]] = {
    "raw": (FormatMismatch, lambda _: noise(MIB)),
    "empty": (ContainerTruncated, lambda _: b""),
    "head-only": (ContainerTruncated, lambda content: content[:4096]),
    "beyond-the-disk": (ImageCorrupt, first(PACKED_GRAIN, -(-DISK // SECTOR))),
    "far-beyond-the-disk": (ImageCorrupt, first(PACKED_GRAIN, 1 << 40)),
    "long": (ImageCorrupt, first(PACKED_GRAIN, 0, 1 << 20)),
    "askew": (Unusual, first(PACKED_GRAIN, 1)),
    "elsewhere": (Unusual, first(PACKED_GRAIN, 128)),
    "bomb": (ImageCorrupt, first(zlib.compress(bytes(64 * MIB)))),
    "one-byte-more": (ImageCorrupt, first(zlib.compress(bytes(65537)))),
    "one-byte-less": (ImageCorrupt, first(zlib.compress(bytes(65535)))),
    "no-deflate": (ImageCorrupt, first(b"\xff" * 100)),
    "one-byte-short": (ImageCorrupt, first(PACKED_GRAIN, 0, len(PACKED_GRAIN) - 1)),
    "wrong-sum": (ImageCorrupt, first(PACKED_GRAIN[:-1] + b"\xff")),
    "no-end": (ContainerTruncated, lambda content: content[:-512]),
    "no-footer": (ContainerTruncated, lambda content: content[:-1536]),
    "cut-in-a-grain": (ContainerTruncated, lambda content: content[: MIB - 100]),
    "foreign-bytes": (Unusual, lambda content: content + bytes(512)),
    "table-differs": (Unusual, changed(ENTRIES, struct.pack("<I", 129))),
    "table-of-zeros": (Unusual, changed(ENTRIES, bytes(2048))),
    "directory-differs": (Unusual, changed(LIST, struct.pack("<I", 129))),
    "directory-without": (Unusual, changed(LIST, bytes(4))),
    "footer-differs": (Unusual, changed(FOOT + 12, struct.pack("<Q", 8))),
    "footer-elsewhere": (Unusual, changed(FOOT + 56, struct.pack("<Q", 128))),
    "footer-of-noise": (ImageCorrupt, changed(FOOT, noise(512))),
    "strange-marker": (Unusual, changed(LAST + 12, struct.pack("<I", 7))),
    "huge-table": (Unusual, changed(ENTRIES - 512, struct.pack("<Q", 1 << 60))),
    "difference": (ImageRefersElsewhere, changed(PARENT, b"12345678")),
    "flat": (Unusual, changed(EXTENT, b'RW 14339 FLAT "/etc/passwd" 0')),
    "two-extents": (Unusual, lambda each: patched(each, each.index(b"ddb"), b"RW 1 SPARSE x ")),
    "not-a-descriptor": (Unusual, changed(512, b"\xff")),
    "other-version": (Unusual, changed(4, struct.pack("<I", 4))),
    "no-markers": (Unusual, changed(8, struct.pack("<I", 0x10001))),
    "large": (ImageTooLarge, changed(12, struct.pack("<Q", 1 << 40))),
    "no-disk": (Unusual, changed(12, bytes(8))),
    "grain-of-3": (Unusual, changed(20, struct.pack("<Q", 3))),
    "large-grains": (Unusual, changed(20, struct.pack("<Q", 1 << 40))),
    "long-descriptor": (Unusual, changed(36, struct.pack("<Q", 1 << 60))),
    "wide-descriptor": (Unusual, lambda each: changed(FOOT + 36, WIDE)(changed(36, WIDE)(each))),
    "far-grains": (Unusual, changed(64, struct.pack("<Q", 1 << 60))),
    "tables-of-7": (Unusual, changed(44, struct.pack("<I", 7))),
}


@pytest.mark.parametrize("name", HOSTILE)
@ensureDeferred
async def test_images_that_lie(threads: Threads, name: str) -> None:
    """Markers and tables have to agree; nothing beyond the disk is written.

    Break: `src/bootvol/imaging/vmdk/tables.py`: `self._open.pop(index) != table` ->
    `self._open.pop(index) is None`.
    Break: `src/bootvol/imaging/vmdk/markers.py`: `if disk >= header.capacity:` -> `if False:`.
    Break: `src/bootvol/imaging/vmdk/markers.py`: `or len(out) > len(target)` -> ``.
    Break: `src/bootvol/imaging/vmdk/header.py`: `length <= _LONGEST_DESCRIPTOR,` -> ``.
    """
    kind, change = HOSTILE[name]
    with pytest.raises(kind) as found:
        await placed(threads, change(Streamed().image(DATA)), {})
    assert found.type is kind


def ends(*parts: tuple[int, bytes] | bytes) -> bytes:
    """Return an image with these grains and metadata behind the first parts."""
    out = bytearray(Streamed().image(DATA)[: 128 * SECTOR])
    for part in parts:
        if isinstance(part, bytes):
            out += part
        else:
            metadata(out, *part)
    return bytes(out)


FULL = bytes(65536 - 1) + b"\1"
ODD: dict[str, bytes] = {
    "twice": ends(grain(0, FULL), grain(0, FULL)),
    "backwards": ends(grain(128, FULL), grain(0, FULL)),
    "table-without-grains": ends((TABLE, struct.pack("<512I", *range(512)))),
    "directory-too-soon": ends(grain(0, FULL), (DIRECTORY, bytes(4))),
    "directory-twice": ends((DIRECTORY, bytes(4)), (DIRECTORY, bytes(4)), grain(0, FULL)),
    "directory-of-zeros-behind": ends(
        grain(0, FULL),
        (TABLE, struct.pack("<I", 128).ljust(2048, b"\0")),
        (DIRECTORY, struct.pack("<I", 130)),
        (DIRECTORY, bytes(4)),
    ),
    "footer-without-directory": ends(
        grain(0, FULL), (FOOTER, Streamed().header(DISK // SECTOR, (1 << 64) - 1)), (END, b"")
    ),
    "end-too-soon": ends((END, b"")),
    "footer-too-soon": ends((FOOTER, Streamed().header(DISK // SECTOR, 129))),
    "table-found-twice": ends(
        grain(0, FULL), (TABLE, struct.pack("<I", 128).ljust(2048, b"\0")), (DIRECTORY, b"\1")
    ),
}


@pytest.mark.parametrize("name", ODD)
@ensureDeferred
async def test_odd_orders_are_left_to_qemu(threads: Threads, name: str) -> None:
    with pytest.raises(Unusual):
        await placed(threads, ODD[name], {})


def _entry(value: int) -> Callable[[bytes], bytes]:
    """Return a function that sets the first entry of the first table of QEMU's image."""

    def change(content: bytes) -> bytes:
        (directory,) = struct.unpack_from("<Q", content, 56)
        (table,) = struct.unpack_from("<I", content, directory * SECTOR)
        return patched(content, table * SECTOR, struct.pack("<I", value))

    return change


AHEAD: dict[str, tuple[type[Exception], Callable[[bytes], bytes]]] = {
    "cut": (ContainerTruncated, lambda content: content[: len(content) // 2]),
    "entry-elsewhere": (Unusual, _entry(127)),
    "entry-missing": (Unusual, _entry(0)),
    "beyond-the-disk": (ImageCorrupt, changed(128 * SECTOR, struct.pack("<Q", 1 << 40))),
    "tables-behind": (Unusual, changed(56, struct.pack("<Q", 1 << 30))),
    "zeros-between": (Unusual, changed(128 * SECTOR, bytes(512))),
}


@pytest.mark.parametrize("name", AHEAD)
@ensureDeferred
async def test_tables_ahead_that_lie(threads: Threads, tmp_path: Path, name: str) -> None:
    """Each grain has to be where the tables tell.

    Break: `src/bootvol/imaging/vmdk/tables.py`: `if self._missing:` -> `if False:`.
    """
    kind, change = AHEAD[name]
    with pytest.raises(kind) as found:
        await placed(threads, change(convert(tmp_path, "vmdk", QEMU, DATA)), {})
    assert found.type is kind


VALUES = st.binary(max_size=8) | st.integers(0, 12).map(lambda n: struct.pack("<Q", 128 * n))


@fuzz(150)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, MIB), VALUES)), st.booleans())
@ensureDeferred
async def test_any_bytes_are_read_or_refused(
    threads: Threads,
    tmp_path: Path,
    images: tuple[bytes, bytes],
    changes: list[tuple[int, int, bytes]],
    ahead: bool,
) -> None:
    """Changed bytes anywhere in an image give the disk that QEMU reads, or an error of an image.

    Break: `src/bootvol/imaging/vmdk/tables.py`: `self._tables[index][entry] != place:` -> `False:`.
    """
    content = bytearray(images[ahead])
    size = len(content)
    areas: list[Sequence[int]] = [
        # The markers of the grains: the first byte of zlib follows.
        [at for at in range(0, size, SECTOR) if content[at + 12] == 0x78],
        # The tables behind the grains.
        range(size - 10 * SECTOR, size, SECTOR),
        range(80),
        range(size - 8),
    ]
    for area, number, value in changes[:4]:
        place = areas[area][number % len(areas[area])]
        content[place : place + len(value)] = value
    try:
        volume = await placed(threads, bytes(content), {})
    except (ImportFailed, Unusual):
        return
    with suppress(subprocess.CalledProcessError):
        same = volume == raw(tmp_path, bytes(content), "vmdk").ljust(SIZE, b"\0")
        assert same


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Return an image with its tables behind, and one with its tables ahead."""
    folder = tmp_path_factory.mktemp("images")
    disk = b"".join(noise(3000, n) + bytes(62536) for n in range(12))
    return Streamed(late=True).image(disk), convert(folder, "vmdk", QEMU, disk)
