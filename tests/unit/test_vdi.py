"""The disk in a vdi image, decoded while the image arrives: QEMU is the reference."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred

from bootvol.errors import ContainerTruncated, ImageTooLarge, ImportFailed
from bootvol.imaging.pieces.guide import TablesChanged
from bootvol.imaging.pieces.pieces import Unusual
from bootvol.imaging.vdi.blocks import read_map
from bootvol.model import Image
from bootvol.testing.backends import noise
from bootvol.threads import Threads
from tests.fuzzing import fuzz
from tests.images import MIB, convert, patched, qemu_img, qemu_io
from tests.placing import DISK, SECTOR, SIZE, placed_by, raw
from tests.unit.test_imaging import BACKENDS

IMAGE = Image("images", "disk", "disk", "vdi")
#: Places in an image: fields of the header, and the map.
SIGNATURE, VERSION, MAP_AT, DATA_AT, DISK_SIZE = 0x40, 0x44, 0x154, 0x158, 0x170
BLOCK, EXTRA, COUNT, PARENT, MAP = 0x178, 0x17C, 0x180, 0x1A8, 0x200
DATA = noise(2 * MIB) + bytes(3 * MIB) + noise(DISK - 5 * MIB, 3)


async def placed(
    threads: Threads,
    content: bytes,
    kind: dict[str, Any],
    breaks: tuple[int, ...] = (),
    streamed: bytes | None = None,
) -> bytes:
    """Return the volume after an import of ``content``: see :func:`tests.placing.placed_by`."""
    return await placed_by(read_map, threads, content, kind, IMAGE, breaks, streamed)


PLACES = st.integers(0, DISK // SECTOR - 1).map(lambda each: each * SECTOR)
LENGTHS = st.integers(1, MIB // SECTOR).map(lambda each: each * SECTOR)
COMMANDS = st.builds(
    lambda place, length, pattern: f"write -P {pattern} {place} {min(length, DISK - place)}",
    PLACES,
    LENGTHS,
    st.integers(0, 255),
)


@fuzz(20)
@given(
    st.lists(COMMANDS, max_size=8),
    st.sampled_from(["on", "off"]),
    st.sampled_from(BACKENDS),
    st.randoms(use_true_random=False),
)
@ensureDeferred
async def test_any_history_of_writes(
    threads: Threads,
    tmp_path: Path,
    commands: list[str],
    static: str,
    kind: dict[str, Any],
    chance: random.Random,
) -> None:
    """Writes in any order scatter the blocks; breaks of the source come anywhere."""
    image = tmp_path / "disk.vdi"
    qemu_img("create", "-f", "vdi", "-o", f"static={static}", image, str(DISK))
    qemu_io(image, commands, "vdi")
    content = image.read_bytes()
    breaks = tuple(sorted(chance.sample(range(len(content)), 3)))
    volume = await placed(threads, content, kind, breaks)
    same = volume == raw(tmp_path, content, "vdi").ljust(SIZE, b"\0")
    assert same


def number(offset: int, value: int, kind: str = "<I") -> Callable[[bytes], bytes]:
    """Return a function that changes a number in an image."""
    return lambda content: patched(content, offset, struct.pack(kind, value))


HOSTILE: dict[str, tuple[type[Exception], Callable[[bytes], bytes]]] = {
    "cut": (ContainerTruncated, lambda content: content[:-MIB]),
    "head-only": (ContainerTruncated, lambda content: content[:600]),
    "short-head": (ContainerTruncated, lambda content: content[:300]),
    "cut-map": (ContainerTruncated, lambda content: content[:530]),
    "block-beyond": (ContainerTruncated, number(MAP, 1 << 31)),
    "blocks-shared": (Unusual, number(MAP + 4, 0)),
    "blocks-in-the-map": (Unusual, number(DATA_AT, 512)),
    "map-beyond": (ContainerTruncated, number(MAP_AT, 0xFFFF_FE00)),
    "map-in-the-header": (ContainerTruncated, number(MAP_AT, 0)),
    "map-askew": (Unusual, number(MAP_AT, 100)),
    "data-askew": (Unusual, number(DATA_AT, 100)),
    "other-version": (Unusual, number(VERSION, 1)),
    "other-signature": (Unusual, number(SIGNATURE, 1)),
    "other-blocks": (Unusual, number(BLOCK, 4096)),
    "extra-bytes": (Unusual, number(EXTRA, 512)),
    "few-blocks": (Unusual, number(COUNT, 1)),
    "many-blocks": (Unusual, number(COUNT, 1 << 31)),
    "parent": (Unusual, number(PARENT, 1)),
    "grandparent": (Unusual, number(PARENT + 16, 1)),
    "empty": (Unusual, number(DISK_SIZE, 0, "<Q")),
    "odd-size": (Unusual, number(DISK_SIZE, DISK - 100, "<Q")),
    "large": (ImageTooLarge, lambda each: number(COUNT, 9)(number(DISK_SIZE, 9 * MIB, "<Q")(each))),
    "huge": (Unusual, number(DISK_SIZE, 1 << 62, "<Q")),
}


@pytest.mark.parametrize("name", HOSTILE)
@ensureDeferred
async def test_tables_that_lie(threads: Threads, tmp_path: Path, name: str) -> None:
    """Blocks beyond the file's end, and blocks in other parts of the file, are not read.

    Break: `src/bootvol/imaging/vdi/blocks.py`: `elif place + length > size:` -> `elif False:`.
    """
    kind, change = HOSTILE[name]
    with pytest.raises(kind) as found:
        await placed(threads, change(convert(tmp_path, "vdi", disk=DATA)), {})
    assert found.type is kind


@ensureDeferred
async def test_an_image_that_changes_after_its_map_was_read(
    threads: Threads, tmp_path: Path
) -> None:
    """The digest covers the arriving file alone, so the map in the file must be the known one.

    Break: `src/bootvol/imaging/vdi/blocks.py`: `, Table.of(at, table)` -> `,`.
    """
    content = convert(tmp_path, "vdi", disk=DATA)
    first, second = content[MAP : MAP + 4], content[MAP + 4 : MAP + 8]
    with pytest.raises(TablesChanged):
        await placed(threads, content, {}, streamed=patched(content, MAP, second + first))


@fuzz(80)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, MIB), st.binary(max_size=8)), max_size=4))
@ensureDeferred
async def test_any_bytes_are_read_or_refused(
    threads: Threads, tmp_path: Path, image: bytes, changes: list[tuple[bool, int, bytes]]
) -> None:
    """Changed bytes anywhere in an image give the disk that QEMU reads, or an error of an image."""
    content = bytearray(image)
    for in_tables, at, value in changes:
        place = MAP_AT + at % 0xC0 if in_tables else at % (len(image) - 8)
        content[place : place + len(value)] = value
    try:
        volume = await placed(threads, bytes(content), {})
    except (ImportFailed, Unusual):
        return
    with suppress(subprocess.CalledProcessError):
        same = volume == raw(tmp_path, bytes(content), "vdi").ljust(SIZE, b"\0")
        assert same


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return an image of four blocks, one of them a hole."""
    disk = noise(MIB) + bytes(MIB) + b"text" * (MIB // 4) + b"end!" * 128
    return convert(tmp_path_factory.mktemp("image"), "vdi", disk=disk)
