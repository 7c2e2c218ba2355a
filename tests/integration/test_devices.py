"""Block devices and real file systems beneath what backends hold open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from bootvol.devices import OpenDevice
from bootvol.errors import BackendFailed, NoSpace
from bootvol.testing.backends import noise, read_from
from bootvol.threads import Threads
from tests.disks import block_device, disk

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
        with pytest.raises(NoSpace):  # what the system says at a device's end
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
        # Memory that does not suit direct I/O: through the page cache.
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
