"""Block devices and real file systems below open devices."""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pytest_twisted import ensureDeferred

from bootvol.devices import OpenDevice, check_unwritten, extents
from bootvol.errors import BackendFailed, NoSpace, VolumeInUse
from bootvol.interfaces import ISparse
from bootvol.testing.backends import noise, read_from
from bootvol.threads import Threads
from tests.disks import block_device, disk, overlay

MIB = 1024 * 1024
BLOCK = 4096


@ensureDeferred
async def test_a_block_device(tmp_path: Path, threads: Threads) -> None:
    with block_device(tmp_path / "disk", 4 * MIB) as device:
        writer = OpenDevice.to_write(threads, os.open(device.path, os.O_RDWR))
        content = noise(2 * MIB)
        for start in range(0, len(content), MIB):
            await writer.write(start, memoryview(bytearray(content[start : start + MIB])))
        await writer.zero(BLOCK, BLOCK)
        await writer.flush()
        with pytest.raises(NoSpace):  # the system's error at a device's end
            await writer.write(4 * MIB, memoryview(bytearray(BLOCK)))
        await writer.close()
        expected = content[:BLOCK] + bytes(BLOCK) + content[2 * BLOCK :] + bytes(2 * MIB)
        reader = OpenDevice.to_read(threads, os.open(device.path, os.O_RDONLY))
        assert await read_from(reader, 0, 4 * MIB) == expected
        await reader.close()


@pytest.mark.parametrize("flushed", [True, False])
@ensureDeferred
async def test_what_is_read_comes_from_the_device(
    tmp_path: Path, threads: Threads, flushed: bool
) -> None:
    with disk(tmp_path / "mounted", 64 * MIB, "ext4") as mounted:
        path = mounted.folder / "volume"
        path.write_bytes(bytes(MIB))
        writer = OpenDevice.to_write(threads, os.open(path, os.O_RDWR))
        # Misaligned memory for direct I/O: the write goes through the page cache.
        await writer.write(0, memoryview(b"\0" + noise(MIB))[1:])
        if flushed:
            await writer.flush()
        await writer.close()
        reader = OpenDevice.to_read(threads, os.open(path, os.O_RDONLY))
        mounted.device.break_after(BLOCK)
        with pytest.raises(BackendFailed, match="Reading the volume failed: Input/output error"):
            await read_from(reader, 0, MIB)
        mounted.device.break_after(0)
        assert await read_from(reader, 0, MIB) == noise(MIB)
        await reader.close()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
@ensureDeferred
async def test_a_file_system_knows_its_zeros(tmp_path: Path, threads: Threads, kind: str) -> None:
    """The zeros are right also before the flush, in preallocated ranges, and at the file's end."""
    with disk(tmp_path / "mounted", 512 * MIB, kind) as mounted:
        path = mounted.folder / "volume"
        size = 100 * MIB + 777
        expected = bytearray(size)
        with path.open("w+b", buffering=0) as file:
            file.truncate(size)
            os.posix_fallocate(file.fileno(), 40 * MIB, 20 * MIB)
            with mmap.mmap(file.fileno(), size) as mapped:
                # In a hole, in the preallocated range, and over the last bytes.
                for place, length in ((9 * MIB + 5, 3), (50 * MIB, MIB), (size - 3, 3)):
                    mapped[place : place + length] = noise(length)
                    expected[place : place + length] = noise(length)
                found = _told(file.fileno(), 0, size)
                _check_told(found, expected)
                assert sum(count for _, count, zero in found if zero) > 90 * MIB
            os.pwrite(file.fileno(), noise(MIB), 70 * MIB)
            expected[70 * MIB : 71 * MIB] = noise(MIB)
            _check_told(_told(file.fileno(), 0, size), expected)
            # The reader itself finds the end of the file.
            file.truncate(80 * MIB)
            assert _told(file.fileno(), 70 * MIB, 20 * MIB)[-1] == (80 * MIB, 10 * MIB, False)
            assert _told(file.fileno(), 90 * MIB, MIB) == [(90 * MIB, MIB, False)]
            file.truncate(0)
            assert _told(file.fileno(), 0, MIB) == [(0, MIB, False)]


def _told(descriptor: int, offset: int, length: int) -> list[tuple[int, int, bool]]:
    """Return the extents of a file: offset, length in bytes, and True for zeros."""
    found, end = [], offset + length
    while offset < end:
        for extent in extents(descriptor, offset, end - offset):
            found.append((offset, extent.length, extent.zero))
            offset += extent.length
    assert offset == end
    return found


def _check_told(found: list[tuple[int, int, bool]], expected: bytearray) -> None:
    for at, length, zero in found:
        assert not (zero and any(expected[at : at + length]))


@ensureDeferred
async def test_a_map_of_many_pieces_is_told_in_parts(tmp_path: Path) -> None:
    expected = bytearray(16 * MIB)
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.truncate(len(expected))
        for place in range(0, len(expected), 2 * BLOCK):
            os.pwrite(file.fileno(), b"x", place)
            expected[place] = 1
        assert len(extents(file.fileno(), 0, len(expected))) <= 1025
        found = _told(file.fileno(), 0, len(expected))
        assert len(found) == len(expected) // BLOCK
        _check_told(found, expected)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
@ensureDeferred
async def test_zeroing_gives_space_back(tmp_path: Path, threads: Threads, kind: str) -> None:
    with disk(tmp_path / "mounted", 512 * MIB, kind) as mounted:
        path = mounted.folder / "volume"
        expected = bytearray(noise(16 * MIB))
        path.write_bytes(expected)
        device = OpenDevice.to_write(threads, os.open(path, os.O_RDWR))
        for start, end in ((MIB + BLOCK, 13 * MIB), (14 * MIB + 512, 15 * MIB + 7 * 512)):
            await device.zero(start, end - start)
            expected[start:end] = bytes(end - start)
        await device.flush()
        assert path.stat().st_blocks * 512 < 5 * MIB
        assert await read_from(device, 0, 16 * MIB) == expected
        # Beyond the end, as a write there does.
        await device.zero(15 * MIB, 2 * MIB)
        await device.close()
        expected[15 * MIB :] = bytes(2 * MIB)
        assert path.read_bytes() == expected


@ensureDeferred
async def test_a_device_does_not_tell(tmp_path: Path, threads: Threads) -> None:
    with block_device(tmp_path / "disk", 4 * MIB) as device, device.path.open("rb") as opened:
        assert _told(opened.fileno(), MIB, 3 * MIB) == [(MIB, 3 * MIB, False)]
        reader = OpenDevice.to_read(threads, os.open(device.path, os.O_RDONLY))
        assert not ISparse.providedBy(reader)
        await reader.close()


@contextmanager
def folder_on(kind: str, folder: Path) -> Iterator[Path]:
    """Provide a folder on a kind of file system."""
    with ExitStack() as stack:
        if kind == "tmpfs":
            yield Path(stack.enter_context(TemporaryDirectory(dir="/dev/shm")))
        elif kind == "overlay":
            # The parts are on another disk: an overlay does not lie on an overlay.
            with_parts = stack.enter_context(disk(folder / "disk", 64 * MIB, "ext4")).folder
            yield stack.enter_context(overlay(with_parts / "parts"))
        else:
            yield stack.enter_context(disk(folder / "disk", 512 * MIB, kind)).folder


@contextmanager
def kept_open(path: Path) -> Iterator[None]:
    with path.open("r+b"):
        yield


@contextmanager
def kept_in_memory(path: Path) -> Iterator[None]:
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), BLOCK)
    with mapped:
        yield


@contextmanager
def kept_on_its_way(path: Path) -> Iterator[None]:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        with path.open("r+b") as file:
            socket.send_fds(ours, [b"x"], [file.fileno()])
        yield


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"])
@pytest.mark.parametrize("keeps", [kept_open, kept_in_memory, kept_on_its_way])
def test_whoever_can_write_to_a_file_is_noticed(
    tmp_path: Path, kind: str, keeps: Callable[[Path], AbstractContextManager[None]]
) -> None:
    """A program keeps a file without any lock, in whatever way.

    Break: `src/bootvol/file_systems.py`: `return kind & 0xFFFFFFFF in _LOCAL` -> `return False`
    Break: `src/bootvol/devices.py`: `if error.errno == errno.EAGAIN:` -> `if False:`
    """
    with folder_on(kind, tmp_path) as folder:
        path = folder / "volume"
        path.write_bytes(bytes(BLOCK))
        with path.open("rb") as file:
            check_unwritten(file.fileno(), "the volume")
            with keeps(path), pytest.raises(VolumeInUse):
                check_unwritten(file.fileno(), "the volume")
            check_unwritten(file.fileno(), "the volume")
