"""The wrappers pass the suites of the wrapped plugins, and fail as configured."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from bootvol.errors import BackendFailed, NoSpace, SourceFailed
from bootvol.interfaces import PluginContext
from bootvol.model import Caller
from bootvol.testing.backends import make_block_backend_tests, noise, read, write
from bootvol.testing.contract import Contract
from bootvol.testing.faults import Faults, FaultyBackend, FaultySource
from bootvol.testing.memory import MemoryBackend
from bootvol.testing.sources import Subject, make_image_source_tests
from bootvol_plugins.directory_source import DirectorySource

SIZE = 64 * 1024
CONTENT = noise(SIZE)


def _backend(context: PluginContext, faults: Faults) -> FaultyBackend:
    inner = MemoryBackend(context.name, context.reactor)
    return FaultyBackend(inner, faults, context.reactor)


def _subject(context: PluginContext, folder: Path) -> Subject:
    (folder / "disk.raw").write_bytes(CONTENT)
    inner = DirectorySource(context.name, folder, context.threads)
    return Subject(FaultySource(inner, Faults(), context.reactor), ("disk.raw", CONTENT))


TestBackend = make_block_backend_tests(lambda context, _folder: _backend(context, Faults()))
TestSource = make_image_source_tests(_subject)


class TestFaults(Contract):
    @ensureDeferred
    async def test_a_full_backend_has_what_fitted(self, context: PluginContext) -> None:
        backend = _backend(context, Faults(full_at=4096 + 100))
        await backend.allocate("v", SIZE)
        with pytest.raises(NoSpace):
            await write(backend, "v", 0, CONTENT)
        assert await read(backend, "v", 0, SIZE) == CONTENT[:4096].ljust(SIZE, b"\0")

    @ensureDeferred
    async def test_short_writes_say_nothing(self, context: PluginContext) -> None:
        backend = _backend(context, Faults(short_writes=True))
        await backend.allocate("v", SIZE)
        await write(backend, "v", 0, CONTENT)
        block = backend.capabilities.block_size
        assert await read(backend, "v", 0, SIZE) == CONTENT[:-block].ljust(SIZE, b"\0")

    @ensureDeferred
    async def test_an_error_comes_until_it_is_taken_out(self, context: PluginContext) -> None:
        faults = Faults(errors={"flush": BackendFailed("The device is gone.")})
        backend = _backend(context, faults)
        await backend.allocate("v", SIZE)
        with pytest.raises(BackendFailed, match="The device is gone"):
            await write(backend, "v", 0, CONTENT)
        faults.errors.clear()
        await write(backend, "v", 0, CONTENT)
        assert await read(backend, "v", 0, SIZE) == CONTENT

    @ensureDeferred
    async def test_a_slow_flush(self, context: PluginContext) -> None:
        clock = Clock()
        inner = MemoryBackend(context.name, context.reactor)
        backend = FaultyBackend(inner, Faults(delay=5), clock)
        await backend.allocate("v", SIZE)
        writer = await backend.open_writer("v")
        flushed = Deferred.fromCoroutine(writer.flush())
        clock.advance(4.9)
        assert not flushed.called
        clock.advance(0.1)
        await flushed

    @ensureDeferred
    async def test_a_connection_that_breaks(self, context: PluginContext, tmp_path: Path) -> None:
        (tmp_path / "disk.raw").write_bytes(CONTENT)
        inner = DirectorySource(context.name, tmp_path, context.threads)
        source = FaultySource(inner, Faults(breaks_at=1000, longest_read=600), context.reactor)
        image = await source.find(Caller("u", "t"), "disk.raw")
        stream = await source.open(image)
        target = bytearray(SIZE)
        assert await stream.read_into(memoryview(target)) == 600
        assert await stream.read_into(memoryview(target)[600:1000]) == 400
        assert target[:1000] == CONTENT[:1000]
        with pytest.raises(SourceFailed):
            await stream.read_into(memoryview(target))
        await stream.close()
