"""Open devices and files of backends: bytes, alignment, and the system's errors."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from bootvol.devices import OpenDevice, failures
from bootvol.errors import BackendFailed, FileTooLarge, NoSpace
from bootvol.testing.backends import noise, read_from
from bootvol.threads import Threads

SIZE = 1024 * 1024
BLOCK = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of zeros."""
    path = tmp_path / "device"
    path.write_bytes(bytes(SIZE))
    return path


def aligned(content: bytes) -> memoryview:
    """Return the content in memory aligned for direct I/O."""
    memory = mmap.mmap(-1, len(content))
    memory[:] = content
    return memoryview(memory)


def misaligned(content: bytes) -> memoryview:
    """Return the content in memory not aligned for direct I/O."""
    return memoryview(bytearray(b"\0" + content))[1:]


@pytest.mark.parametrize("put", [aligned, misaligned])
@ensureDeferred
async def test_what_is_written_is_read(
    path: Path, threads: Threads, put: Callable[[bytes], memoryview]
) -> None:
    device = OpenDevice.to_write(threads, os.open(path, os.O_RDWR))
    content = noise(8 * BLOCK)
    await device.write(BLOCK, put(content))
    await device.zero(2 * BLOCK, 3 * BLOCK)
    await device.flush()
    expected = content[:BLOCK] + bytes(3 * BLOCK) + content[4 * BLOCK :]
    assert await read_from(device, BLOCK, len(expected)) == expected
    await device.close()
    reader = OpenDevice.to_read(threads, os.open(path, os.O_RDONLY))
    assert await read_from(reader, 0, SIZE) == (bytes(BLOCK) + expected).ljust(SIZE, b"\0")
    await reader.close()


@ensureDeferred
async def test_a_write_behind_a_range_of_zeros_at_the_same_moment_stays(
    path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both make the file longer.

    Break: `src/bootvol/devices.py`: `os.posix_fallocate(descriptor, offset + punched - 1, 1)` ->
    `os.ftruncate(descriptor, offset + punched)`.
    """
    content = noise(BLOCK)

    def punch(descriptor: int, offset: int, length: int) -> bool:
        os.pwrite(descriptor, content, offset + length)
        return True

    monkeypatch.setattr("bootvol.devices._punch", punch)
    device = OpenDevice.to_write(threads, os.open(path, os.O_RDWR))
    await device.zero(SIZE, BLOCK)
    await device.flush()
    await device.close()
    assert path.read_bytes()[SIZE:] == bytes(BLOCK) + content


@ensureDeferred
async def test_zeroing_reaches_its_end_and_no_further(tmp_path: Path, threads: Threads) -> None:
    path = tmp_path / "device"
    path.write_bytes(noise(3 * SIZE))
    device = OpenDevice.to_write(threads, os.open(path, os.O_RDWR))
    await device.zero(BLOCK, 2 * SIZE + BLOCK)
    await device.zero(0, 0)
    await device.close()
    content = noise(3 * SIZE)
    end = 2 * SIZE + 2 * BLOCK
    assert path.read_bytes() == content[:BLOCK] + bytes(end - BLOCK) + content[end:]


@ensureDeferred
async def test_the_name_may_go_meanwhile(path: Path, threads: Threads) -> None:
    descriptor = os.open(path, os.O_RDWR)
    path.rename(path.with_name("elsewhere"))
    path.write_bytes(bytes(SIZE))
    device = OpenDevice.to_write(threads, descriptor)
    await device.write(0, aligned(noise(BLOCK)))
    await device.close()
    assert not any(path.read_bytes())
    assert path.with_name("elsewhere").read_bytes()[:BLOCK] == noise(BLOCK)


@ensureDeferred
async def test_nothing_is_safe_that_is_not_in_its_place(path: Path, threads: Threads) -> None:
    def check(descriptor: int) -> None:
        if not os.path.samestat(path.stat(), os.fstat(descriptor)):
            raise BackendFailed("another")

    device = OpenDevice.to_write(threads, os.open(path, os.O_RDWR), check=check)
    await device.flush()
    path.rename(path.with_name("elsewhere"))
    path.write_bytes(bytes(SIZE))
    with pytest.raises(BackendFailed, match="another"):
        await device.flush()
    await device.close()


@pytest.mark.parametrize("begun", [0, SIZE], ids=["a volume", "a file that grows"])
@ensureDeferred
async def test_a_file_cut_short_loses_no_bytes_unnoticed(
    tmp_path: Path, threads: Threads, begun: int
) -> None:
    """A write behind the new end of a truncated file does not hide the lost bytes.

    Break: `src/bootvol/devices.py`: `if _size_of(descriptor) < self._size:` -> `if False:`.
    """
    path = tmp_path / "device"
    path.write_bytes(bytes(SIZE - begun))
    device = OpenDevice.to_write(threads, os.open(path, os.O_RDWR), "volume-1")
    await device.zero(SIZE - BLOCK, BLOCK)
    await device.write(0, aligned(noise(2 * BLOCK)))
    os.truncate(path, BLOCK)
    for call in (
        device.flush(),
        device.write(SIZE - BLOCK, aligned(noise(BLOCK))),
        device.zero(2 * BLOCK, SIZE - 2 * BLOCK),
        device.flush(),
    ):
        with pytest.raises(BackendFailed, match="volume-1 has lost bytes"):
            await call
    await device.close()


@ensureDeferred
async def test_a_device_that_is_full(threads: Threads) -> None:
    device = OpenDevice.to_write(threads, os.open("/dev/full", os.O_RDWR), "volume-1 on disks")
    with pytest.raises(NoSpace, match=r"Writing volume-1 on disks failed: No space left"):
        await device.write(0, aligned(noise(BLOCK)))
    with pytest.raises(NoSpace, match=r"Zeroing volume-1 on disks failed: No space left"):
        await device.zero(0, BLOCK)
    with pytest.raises(BackendFailed, match=r"Flushing volume-1 on disks failed: Invalid"):
        await device.flush()
    await device.close()


@ensureDeferred
async def test_reading_past_the_end(path: Path, threads: Threads) -> None:
    device = OpenDevice.to_read(threads, os.open(path, os.O_RDONLY), "volume-1")
    with pytest.raises(BackendFailed, match="Reading volume-1 failed: the volume ends"):
        await read_from(device, SIZE - BLOCK, 2 * BLOCK)
    await device.close()
    with pytest.raises(BackendFailed, match="volume-1 cannot be used: the volume is closed"):
        await read_from(device, 0, BLOCK)


@ensureDeferred
async def test_what_cannot_be_read_is_closed(threads: Threads) -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(BackendFailed, match="Reading volume-1 failed"):
            OpenDevice.to_read(threads, reading, "volume-1")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(reading)
    finally:
        os.close(writing)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EFBIG, FileTooLarge),
        (errno.EIO, BackendFailed),
        (errno.EROFS, BackendFailed),
        (errno.ENODEV, BackendFailed),
    ],
)
def test_the_systems_errors_become_the_contracts(number: int, kind: type[BackendFailed]) -> None:
    with pytest.raises(BackendFailed) as raised, failures("Making volume-1 failed"):
        raise OSError(number, os.strerror(number), "/a/path/that/is/nobody's/business")
    assert type(raised.value) is kind
    assert raised.value.message == f"Making volume-1 failed: {os.strerror(number)}."


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(BackendFailed, match="as it was"), failures("Making volume-1 failed"):
        raise BackendFailed("as it was")
