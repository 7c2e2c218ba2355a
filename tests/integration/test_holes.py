"""Holes are skipped: images, snapshots and volumes of any size take the space of their data."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import attrs
import pytest
from pytest_twisted import ensureDeferred

from bootvol.model import GIB
from bootvol.testing.backends import noise
from tests.daemons import Running
from tests.disks import disk
from tests.images import MIB, qemu_img
from tests.waiting import until

#: Volumes of 1 TiB, and a disk with room for several sparse ones; sizes in GiB.
LARGE, SPACE = 1024, 1200
#: Offsets of the data in a large image, the last one at the end.
PLACES = (0, 3 * GIB + 4096, 700 * GIB + 777, LARGE * GIB - 4 * MIB)
DATA = noise(4 * MIB)
#: Bytes that a daemon reads and writes besides: for example its database, and data of the last
#: stage read along with zeros.
BESIDES = 24 * MIB
READ_BACK = '[imports]\nverify = "read-back"\n'


@attrs.define
class Moved:
    """Bytes read and written by a process within a block."""

    read: int = 0
    written: int = 0


@contextmanager
def counting() -> Iterator[Moved]:
    """Count the bytes of this process's reads and writes."""
    moved = Moved()
    before = _moved()
    yield moved
    after = _moved()
    moved.read, moved.written = after[0] - before[0], after[1] - before[1]


def _moved() -> tuple[int, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    counts = dict(line.split(": ") for line in lines)
    return int(counts["rchar"]), int(counts["wchar"])


def data_in(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield offset and content of a file's data, by the file system's map."""
    with path.open("rb") as file:
        at = 0
        size = os.fstat(file.fileno()).st_size
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            yield at, os.pread(file.fileno(), end - at, at)
            at = end


def check_large(path: Path) -> None:
    """Check that a file has the large image, and takes only the space of the image's data."""
    assert path.stat().st_size == LARGE * GIB
    assert path.stat().st_blocks * 512 < (len(PLACES) + 2) * len(DATA)
    with path.open("rb") as file:
        for place in PLACES:
            assert os.pread(file.fileno(), len(DATA), place) == DATA
    for at, content in data_in(path):
        expected = bytearray(len(content))
        for place in PLACES:
            start, end = max(at, place), min(at + len(content), place + len(DATA))
            if start < end:
                expected[start - at : end - at] = DATA[start - place : end - place]
        assert content == expected


@pytest.fixture(params=["ext4"])
def large(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, with a large image in the folder of images."""
    with disk(tmp_path / "disk", SPACE * GIB, request.param) as mounted:
        images = mounted.folder / "images"
        images.mkdir()
        with (images / "large").open("xb") as file:
            for place in PLACES:
                file.seek(place)
                file.write(DATA)
        yield mounted.folder


# On ext4, everything is copied; on xfs nothing is copied, but everything is read back.
@pytest.mark.parametrize(
    ("large", "more"), [("ext4", ""), ("ext4", READ_BACK), ("xfs", READ_BACK)], indirect=["large"]
)
@ensureDeferred
async def test_a_tebibyte_takes_what_its_data_takes(large: Path, more: str) -> None:
    running = Running(large, more + "[quota]\ngigabytes = -1\n")
    data = len(PLACES) * len(DATA)
    try:
        with counting() as moved:
            volume = await running.create("large", size=LARGE)
            assert await running.until(volume, "available", "error") == "available"
        progress = await running.progress(volume)
        assert (progress["bytesDone"], progress["bytesTotal"]) == (LARGE * GIB, LARGE * GIB)
        assert moved.read < (2 if more else 1) * data + BESIDES
        assert moved.written < data + BESIDES
        with counting() as moved:
            snapshot = await running.snapshot(volume)
            await running.until(snapshot, "available", kind="snapshot")
        assert max(moved.read, moved.written) < data + BESIDES
        with counting() as moved:
            wanted = {"volume": {"size": LARGE, "snapshot_id": snapshot}}
            answer = await running.call("POST", "os-volumes", wanted)
            made = answer.json["volume"]["id"]
            assert await running.until(made, "available", "error") == "available"
        assert max(moved.read, moved.written) < data + BESIDES
        files = running.files()
        assert len(files) == 3
        for file in files:
            check_large(file)
    finally:
        await running.stop()


def durable(folder: Path) -> int:
    """Return the durable bytes of the only import."""
    with closing(sqlite3.connect(f"file:{folder / 'bootvol.db'}?mode=ro", uri=True)) as database:
        (found,) = database.execute("SELECT durable_bytes FROM imports").fetchone()
    return found or 0


@ensureDeferred
async def test_an_import_goes_on_behind_a_hole(large: Path) -> None:
    """After a restart, bootvol reads back the data, not the hundreds of GiB of holes before it."""
    end, first = 900 * GIB, len(DATA)
    with (large / "images" / "far").open("xb") as file:
        file.write(DATA)
        file.seek(end)
        for _ in range(50):
            file.write(DATA)
        file.truncate(LARGE * GIB)
    slow = Running(large, "[quota]\ngigabytes = -1\n[imports]\nbandwidth_mib = 50\n")
    try:
        volume = await slow.create("far", size=LARGE)
        await until(lambda: durable(large), lambda found: found > end)
        progress = await slow.progress(volume)
        assert 0 < progress["bytesPerSecond"] < GIB
        assert progress["etaSeconds"] > 60
    finally:
        await slow.stop()
    assert durable(large) < end + 50 * first
    running = Running(large, "[quota]\ngigabytes = -1\n")
    try:
        with counting() as moved:
            assert await running.until(volume, "available", "error") == "available"
        written = first + 50 * first
        assert moved.read < written + 2 * BESIDES + MIB
        # The source was not read from the start.
        assert moved.written < written - 60 * MIB + BESIDES
        (path,) = running.files()
        assert [at for at, _ in data_in(path)] == [0, end]
        for at, content in data_in(path):
            assert content == DATA * (50 if at else 1)
    finally:
        await running.stop()


def pattern(path: Path, seed: int, size: int) -> bytes:
    """Make a file of data, zeros and holes; return its content."""
    chance = random.Random(seed)
    content = bytearray(size)
    with path.open("xb") as file:
        at = 0
        while at < size:
            length = min(
                chance.choice((1, 4096, 65536, MIB, 5 * MIB)) * chance.randint(1, 3), size - at
            )
            kind = chance.choice(("data", "zeros", "hole", "hole"))
            if kind == "data":
                start = chance.randrange(MIB)
                content[at : at + length] = (DATA * 4)[start : start + length]
            if kind != "hole":
                file.seek(at)
                file.write(content[at : at + length])
            at += length
        file.truncate(size)
    return bytes(content)


FORMATS = {
    "raw": None,
    "qcow2": ("qcow2",),
    "qcow2-preallocated": ("qcow2", "-o", "preallocation=metadata"),
    "qcow2-packed": ("qcow2", "-c"),
    "vmdk": ("vmdk",),
    "vhd": ("vpc", "-o", "force_size"),
    "vhd-fixed": ("vpc", "-o", "subformat=fixed,force_size"),
    "vhdx": ("vhdx",),
    "vdi": ("vdi",),
}


@ensureDeferred
async def test_any_pattern_in_any_format(tmp_path: Path) -> None:
    running = Running(tmp_path, READ_BACK)
    try:
        wanted: dict[int, bytes] = {}
        for seed, (name, kind) in enumerate(FORMATS.items()):
            image = running.images / name
            if kind is None:
                content = pattern(image, seed, 48 * MIB + 777)
            else:
                content = pattern(tmp_path / "plain", seed, 48 * MIB + 512 * seed)
                qemu_img("convert", "-f", "raw", "-O", *kind, tmp_path / "plain", image)
                (tmp_path / "plain").unlink()
            wanted[await running.create(name)] = content
        for number in wanted:
            settled = await running.until(number, "available", "error")
            assert settled == "available", await running.progress(number)
        held = []
        for file in running.files():
            with file.open("rb") as volume:
                held.append(volume.read(50 * MIB))
        expected = [content.ljust(50 * MIB, b"\0") for content in wanted.values()]
        assert sorted(held) == sorted(expected)
    finally:
        await running.stop()


@pytest.mark.parametrize("option", ["preallocation=off", "preallocation=metadata"])
@ensureDeferred
async def test_a_container_takes_what_its_data_takes(tmp_path: Path, option: str) -> None:
    """A preallocated container takes no more, though its file has the disk's full size."""
    running = Running(tmp_path)
    try:
        (tmp_path / "plain").write_bytes(DATA)
        image = running.images / "disk"
        os.truncate(tmp_path / "plain", 16 * GIB)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", option, tmp_path / "plain", image)
        with counting() as moved:
            number = await running.create("disk", size=16)
            assert await running.until(number, "available", "error") == "available"
        assert max(moved.read, moved.written) < len(DATA) + 2 * BESIDES
        (file,) = running.files()
        assert file.stat().st_blocks * 512 < 2 * len(DATA)
        with file.open("rb") as volume:
            assert volume.read(len(DATA) + MIB) == DATA + bytes(MIB)
    finally:
        await running.stop()
