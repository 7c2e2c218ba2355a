"""The contract suite of :class:`bootvol.interfaces.IBlockBackend`."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from zope.interface.verify import verifyObject

from bootvol.errors import BackendFailed, VolumeMissing
from bootvol.interfaces import (
    IBlockBackend,
    IVolumeReader,
    IVolumeWriter,
    PluginContext,
)
from bootvol.testing.adoption import Adopted
from bootvol.testing.contract import Contract
from bootvol.testing.declared import Declared, check_extents
from bootvol.testing.elsewhere import Elsewhere
from bootvol.testing.shared import LostClaims, VolumesInUse
from bootvol.testing.volumes import SIZE, VOLUMES, cancelled, noise, read, read_from, write

__all__ = [
    "SIZE",
    "VOLUMES",
    "BlockBackendContract",
    "check_extents",
    "make_block_backend_tests",
    "noise",
    "read",
    "read_from",
    "write",
]

#: From Debian's packages qemu-utils and qemu-block-extra.
_CONVERT: Final = ("/usr/bin/qemu-img", "convert", "-f", "raw", "-O", "raw")
_NAME, _OTHER = VOLUMES


class BlockBackendContract(Declared, Adopted, LostClaims, VolumesInUse, Contract):
    """The tests for every backend.  Subclasses provide the fixture ``backend``."""

    @ensureDeferred
    async def test_provides_what_it_declares(self, backend: IBlockBackend) -> None:
        verifyObject(IBlockBackend, backend)
        assert backend.name == "under-test"
        block = backend.capabilities.block_size
        assert 0 < block <= 65536
        assert block & (block - 1) == 0, "the block size is a power of two"
        assert backend.capabilities.parallel_writes >= 1
        assert isinstance(backend.capabilities.local, bool)
        await backend.allocate(_NAME, SIZE)
        writer, reader = await backend.open_writer(_NAME), await backend.open_reader(_NAME)
        verifyObject(IVolumeWriter, writer)
        verifyObject(IVolumeReader, reader)
        await writer.close()
        await reader.close()

    @ensureDeferred
    async def test_new_volume_reads_zero_if_declared(self, backend: IBlockBackend) -> None:
        """A new volume reads as zeros, where the backend declares so.

        Break: `plugins/bootvol_plugins/file.py`:
        `# Only a file can be open as a volume; anything else goes by its name alone.` -> `return`.
        """
        if not backend.capabilities.reads_zero_when_new:
            return  # The backend promises nothing: the core writes zeros.
        # Use the same space twice: the content of a deleted volume must not appear again.
        for _ in range(2):
            await backend.allocate(_NAME, SIZE)
            assert await read(backend, _NAME, 0, SIZE) == bytes(SIZE)
            await write(backend, _NAME, 0, noise(SIZE))
            await backend.delete(_NAME)

    @ensureDeferred
    async def test_has_the_size_that_was_asked_for(self, backend: IBlockBackend) -> None:
        await backend.allocate(_NAME, SIZE)
        block = backend.capabilities.block_size
        await write(backend, _NAME, SIZE - block, noise(block))
        assert await read(backend, _NAME, SIZE - block, block) == noise(block)

    @ensureDeferred
    async def test_allocating_again_changes_nothing(self, backend: IBlockBackend) -> None:
        block = backend.capabilities.block_size
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, block, noise(block))
        await backend.allocate(_NAME, SIZE)
        assert await read(backend, _NAME, block, block) == noise(block)

    @ensureDeferred
    async def test_refuses_a_name_taken_by_another_size(self, backend: IBlockBackend) -> None:
        await backend.allocate(_NAME, SIZE)
        with pytest.raises(BackendFailed):
            await backend.allocate(_NAME, 2 * SIZE)

    @ensureDeferred
    async def test_bytes_are_where_they_were_written(self, backend: IBlockBackend) -> None:
        """Compare random writes and zeroings with a model in memory."""
        await backend.allocate(_NAME, SIZE)
        block = backend.capabilities.block_size
        chance = random.Random(7)  # noqa: S311
        writer = await backend.open_writer(_NAME)
        await writer.zero(0, SIZE)
        model = bytearray(SIZE)
        for step in range(40):
            offset = chance.randrange(SIZE // block) * block
            length = min(chance.randint(1, 64) * block, SIZE - offset)
            if chance.random() < 0.7:
                data = noise(length, step)
                await writer.write(offset, memoryview(bytearray(data)))
            else:
                data = bytes(length)
                await writer.zero(offset, length)
            model[offset : offset + length] = data
        await writer.flush()
        await writer.close()
        assert await read(backend, _NAME, 0, SIZE) == model

    @ensureDeferred
    async def test_zeroes_over_data(self, backend: IBlockBackend) -> None:
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, 0, noise(SIZE))
        writer = await backend.open_writer(_NAME)
        quarter = SIZE // 4
        await writer.zero(quarter, quarter)
        await writer.zero(3 * quarter, quarter)
        await writer.flush()
        await writer.close()
        expected = bytearray(noise(SIZE))
        expected[quarter : 2 * quarter] = expected[3 * quarter :] = bytes(quarter)
        assert await read(backend, _NAME, 0, SIZE) == expected

    @ensureDeferred
    async def test_takes_writes_at_once(self, backend: IBlockBackend) -> None:
        await backend.allocate(_NAME, SIZE)
        writer = await backend.open_writer(_NAME)
        data = memoryview(bytearray(noise(SIZE)))
        piece = SIZE // 16
        await gatherResults(
            [
                Deferred.fromCoroutine(writer.write(start, data[start : start + piece]))
                for start in range(0, SIZE, piece)
            ]
        )
        await writer.flush()
        await writer.close()
        assert await read(backend, _NAME, 0, SIZE) == bytes(data)

    @ensureDeferred
    async def test_volumes_do_not_touch_one_another(self, backend: IBlockBackend) -> None:
        await backend.allocate(_NAME, SIZE)
        await backend.allocate(_OTHER, SIZE)
        block = backend.capabilities.block_size
        await write(backend, _NAME, 0, noise(block, 1))
        await write(backend, _OTHER, 0, noise(block, 2))
        await backend.delete(_OTHER)
        assert await read(backend, _NAME, 0, block) == noise(block, 1)

    @ensureDeferred
    async def test_what_is_cancelled_has_ended_and_leaves_nothing_open(
        self, backend: IBlockBackend
    ) -> None:
        await backend.allocate(_NAME, SIZE)
        open_before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(10):
            for opening in (backend.open_writer(_NAME), backend.open_reader(_NAME)):
                await cancelled(opening)
        assert len(list(Path("/proc/self/fd").iterdir())) == open_before
        await cancelled(backend.allocate(_OTHER, SIZE))
        await backend.delete(_OTHER)
        with pytest.raises(BackendFailed):
            await backend.open_writer(_OTHER)

    @ensureDeferred
    async def test_a_cancelled_write_has_ended(self, backend: IBlockBackend) -> None:
        await backend.allocate(_NAME, SIZE)
        writer = await backend.open_writer(_NAME)
        await writer.zero(0, SIZE)
        data = bytearray(noise(SIZE))
        await cancelled(writer.write(0, memoryview(data)))
        data[:] = b"\xee" * SIZE
        await writer.close()
        found = await read(backend, _NAME, 0, SIZE)
        assert all(now in (0, then) for now, then in zip(found, noise(SIZE), strict=True))

    @ensureDeferred
    async def test_closing_twice_is_closing_once(self, backend: IBlockBackend) -> None:
        await backend.allocate(_NAME, SIZE)
        writer, reader = await backend.open_writer(_NAME), await backend.open_reader(_NAME)
        for handle in (writer, reader):
            await handle.close()
            await handle.close()
        block = backend.capabilities.block_size
        with pytest.raises(BackendFailed):
            await writer.write(0, memoryview(bytearray(block)))
        with pytest.raises(BackendFailed):
            await read_from(reader, 0, block)

    @ensureDeferred
    async def test_deleting_is_final_and_idempotent(self, backend: IBlockBackend) -> None:
        await backend.allocate(_NAME, SIZE)
        await backend.delete(_NAME)
        await backend.delete(_NAME)
        with pytest.raises(BackendFailed):
            await backend.open_writer(_NAME)
        with pytest.raises(BackendFailed):
            await backend.open_reader(_NAME)
        with pytest.raises(VolumeMissing):
            await backend.connection(_NAME)

    @ensureDeferred
    async def test_a_volume_that_never_was(self, backend: IBlockBackend) -> None:
        await backend.delete(_OTHER)
        with pytest.raises(BackendFailed):
            await backend.open_writer(_OTHER)
        with pytest.raises(VolumeMissing):
            await backend.connection(_OTHER)

    @ensureDeferred
    async def test_connection_leads_to_the_bytes(
        self, backend: IBlockBackend, tmp_path: Path
    ) -> None:
        await backend.allocate(_NAME, SIZE)
        block = backend.capabilities.block_size
        await write(backend, _NAME, 3 * block, noise(block))
        found = await backend.connection(_NAME)
        assert found.kind
        assert found.address
        if found.kind in {"file", "block"}:
            with Path(found.address).open("rb") as device:
                device.seek(3 * block)
                assert device.read(block) == noise(block)
        elif found.kind == "rbd":
            # QEMU reads the volume as it would for a guest.
            copy = tmp_path / "copy"
            subprocess.run(  # noqa: S603
                [*_CONVERT, found.address, str(copy)], check=True, timeout=60
            )
            assert copy.read_bytes()[3 * block : 4 * block] == noise(block)


def make_block_backend_tests(
    make: Callable[[PluginContext, Path], IBlockBackend],
) -> type[BlockBackendContract]:
    """Return the contract suite of one backend, for a test module to name.

    :param make: creates the backend from a context and an empty folder; called once per test.  The
        backend must take its name from the context.  A function of a module is called by other
        processes as well.
    """

    class TestBlockBackend(BlockBackendContract):
        @pytest.fixture
        def elsewhere(self, tmp_path: Path) -> Elsewhere | None:
            named = getattr(sys.modules[make.__module__], make.__name__, None) is make
            return Elsewhere(make, tmp_path) if named else None

        @pytest.fixture
        def backend(self, context: PluginContext, tmp_path: Path) -> IBlockBackend:
            return make(context, tmp_path)

    return TestBlockBackend
