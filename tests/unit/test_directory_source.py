"""The directory source and its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred

from bootvol.errors import SourceFailed
from bootvol.interfaces import IFileStream, IImageStream
from bootvol.testing.backends import noise
from bootvol.testing.sources import CALLER, read_all
from bootvol.threads import Threads
from bootvol_plugins.directory import DirectorySource

CONTENT = noise(256 * 1024)


async def half_read(folder: Path, threads: Threads) -> IImageStream:
    """Return the stream of an image of which the first part has been read."""
    (folder / "disk").write_bytes(CONTENT)
    source = DirectorySource("images", folder, threads)
    stream = await source.open(await source.find(CALLER, "disk"))
    await stream.read_into(memoryview(bytearray(len(CONTENT) // 2)))
    return stream


@pytest.mark.parametrize("size", [65536, 1024 * 1024])
@pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT + b"1", CONTENT[:-1], b""])
@ensureDeferred
async def test_an_image_that_is_written_to_while_it_is_read(
    tmp_path: Path, threads: Threads, content: bytes, size: int
) -> None:
    stream = await half_read(tmp_path, threads)
    (tmp_path / "disk").write_bytes(content)
    with pytest.raises(SourceFailed, match="was written to while it was read") as failed:
        await read_all(stream, size)
    assert failed.value.retryable


@ensureDeferred
async def test_an_image_that_is_replaced_is_read_to_its_end(
    tmp_path: Path, threads: Threads
) -> None:
    stream = await half_read(tmp_path, threads)
    (tmp_path / "new").write_bytes(CONTENT[::-1])
    (tmp_path / "new").rename(tmp_path / "disk")
    await IFileStream(stream).check()
    assert await read_all(stream, 65536) == CONTENT[len(CONTENT) // 2 :]
