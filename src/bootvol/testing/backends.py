"""The contract suite of :class:`bootvol.interfaces.IBlockBackend`."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from zope.interface.verify import verifyObject

from bootvol.errors import BackendFailed, ConfigurationError, WrongStore
from bootvol.interfaces import (
    IBlockBackend,
    ICloningBackend,
    IIdentifiedBackend,
    IImageCloningBackend,
    ISharingBackend,
    ISparse,
    IVolumeReader,
    IVolumeWriter,
    PluginContext,
)
from bootvol.testing.contract import Contract
from bootvol.testing.elsewhere import Elsewhere
from bootvol.testing.shared import LostClaims, VolumesInUse
from bootvol.testing.volumes import SIZE, VOLUMES, noise, read, read_from, write

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


async def check_extents(backend: IBlockBackend, volume: str, size: int) -> bool:
    """Hold what a volume's reader tells of zeros against the volume's bytes.

    :param size: of the volume in bytes.
    :returns: whether the reader tells anything.
    """
    reader = await backend.open_reader(volume)
    try:
        if not ISparse.providedBy(reader):
            return False
        verifyObject(ISparse, reader)
        content = await read_from(reader, 0, size)
        block = backend.capabilities.block_size
        for begin, end in ((0, size), (block, size // 2), (size - block, size), (0, block)):
            at = begin
            while at < end:
                found = await ISparse(reader).extents(at, end - at)
                assert found, "at least one extent is told of"
                for extent in found:
                    assert extent.length > 0
                    assert not (extent.zero and any(content[at : at + extent.length]))
                    at += extent.length
    finally:
        await reader.close()
    with pytest.raises(BackendFailed):
        await ISparse(reader).extents(0, size)
    return True


class BlockBackendContract(LostClaims, VolumesInUse, Contract):
    """What every backend must do.  Subclasses provide the fixture ``backend``."""

    @pytest.fixture
    def neighbours(self, tmp_path: Path) -> Path:
        """A folder of files whose blocks a backend can share, if it shares any."""
        return tmp_path

    @pytest.fixture
    def put_image(self) -> Callable[[bytes], str]:
        """What puts an image where the backend can clone it, if it clones any.

        It takes the image's bytes, and returns their location, another one each time.
        """

        def put(content: bytes) -> str:
            raise AssertionError("override the fixture put_image")

        return put

    @ensureDeferred
    async def test_provides_what_it_declares(self, backend: IBlockBackend) -> None:
        verifyObject(IBlockBackend, backend)
        assert backend.name == "under-test"
        block = backend.capabilities.block_size
        assert 0 < block <= 65536
        assert block & (block - 1) == 0, "the block size is a power of two"
        assert backend.capabilities.parallel_writes >= 1
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
            return  # nothing is promised: the core zeroes
        # Through the same space twice: what a deleted volume held must not be seen again.
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
        """Random writes and zeroings, held against a model in memory."""
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
                opened: Deferred[object] = Deferred.fromCoroutine(opening)
                opened.cancel()
                with pytest.raises(CancelledError):
                    await opened
        assert len(list(Path("/proc/self/fd").iterdir())) == open_before
        task = Deferred.fromCoroutine(backend.allocate(_OTHER, SIZE))
        task.cancel()
        with pytest.raises(CancelledError):
            await task
        await backend.delete(_OTHER)
        with pytest.raises(BackendFailed):
            await backend.open_writer(_OTHER)

    @ensureDeferred
    async def test_a_cancelled_write_has_ended(self, backend: IBlockBackend) -> None:
        await backend.allocate(_NAME, SIZE)
        writer = await backend.open_writer(_NAME)
        await writer.zero(0, SIZE)
        data = bytearray(noise(SIZE))
        under_way = Deferred.fromCoroutine(writer.write(0, memoryview(data)))
        under_way.cancel()
        with pytest.raises(CancelledError):
            await under_way
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
    async def test_clones_if_declared(self, backend: IBlockBackend) -> None:
        if not backend.capabilities.clones:
            return  # nothing is promised: the core copies
        verifyObject(ICloningBackend, backend)
        cloning = ICloningBackend(backend)
        block = backend.capabilities.block_size
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, 0, noise(SIZE))
        for size in (SIZE, SIZE // 2, 2 * SIZE):
            await cloning.clone(_NAME, _OTHER, size)
            whole = noise(SIZE)[:size].ljust(size, b"\0")
            assert await read(backend, _OTHER, 0, size) == whole
            await check_extents(backend, _OTHER, size)
            with pytest.raises(BackendFailed):
                await cloning.clone(_NAME, _OTHER, size)
            # Neither sees what is written to the other.
            await write(backend, _OTHER, 0, noise(block, 1))
            await write(backend, _NAME, block, noise(block, 2))
            assert await read(backend, _NAME, 0, block) == noise(SIZE)[:block]
            assert await read(backend, _OTHER, block, block) == whole[block : 2 * block]
            await write(backend, _NAME, block, noise(SIZE)[block : 2 * block])
            await backend.delete(_OTHER)
        # A clone outlives what it was made from.
        await cloning.clone(_NAME, _OTHER, SIZE)
        await backend.delete(_NAME)
        assert await read(backend, _OTHER, 0, SIZE) == noise(SIZE)
        with pytest.raises(BackendFailed):
            await cloning.clone(_NAME, _NAME, SIZE)
        # What is cut off must not come back.
        await backend.delete(_OTHER)
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, 0, noise(SIZE))
        await cloning.clone(_NAME, _OTHER, block)
        await backend.delete(_NAME)
        await cloning.clone(_OTHER, _NAME, SIZE)
        assert await read(backend, _NAME, 0, SIZE) == noise(SIZE)[:block].ljust(SIZE, b"\0")

    @ensureDeferred
    async def test_shares_if_declared(self, backend: IBlockBackend, neighbours: Path) -> None:
        if not backend.capabilities.shares:
            return  # nothing is promised: the core copies
        verifyObject(ISharingBackend, backend)
        sharing = ISharingBackend(backend)
        block = backend.capabilities.block_size
        for content in (noise(SIZE), noise(block + 1), noise(1), b""):
            (neighbours / "file").write_bytes(content)
            with (neighbours / "file").open("r+b") as file:
                assert await sharing.share(file.fileno(), _NAME, SIZE) == len(content)
                whole = content.ljust(SIZE, b"\0")
                assert await read(backend, _NAME, 0, SIZE) == whole
                with pytest.raises(BackendFailed):
                    await sharing.share(file.fileno(), _NAME, SIZE)
                # Neither sees what is written to the other.
                await write(backend, _NAME, 0, noise(block, 1))
                file.write(b"\xee" * SIZE)
                file.flush()
                assert await read(backend, _NAME, 0, SIZE) == noise(block, 1) + whole[block:]
                await backend.delete(_NAME)
                file.seek(0)
                assert file.read() == b"\xee" * SIZE

    @ensureDeferred
    async def test_what_cannot_be_shared_leaves_nothing(
        self, backend: IBlockBackend, neighbours: Path
    ) -> None:
        if not backend.capabilities.shares:
            return
        sharing = ISharingBackend(backend)
        (neighbours / "large").write_bytes(noise(SIZE + 1))
        for elsewhere in (Path("/proc/self/maps"), neighbours / "large"):
            with elsewhere.open("rb") as file:
                assert await sharing.share(file.fileno(), _NAME, SIZE) is None
            with pytest.raises(BackendFailed):
                await backend.open_reader(_NAME)
        (neighbours / "file").write_bytes(noise(SIZE))
        with (neighbours / "file").open("rb") as file:
            task = Deferred.fromCoroutine(sharing.share(file.fileno(), _NAME, SIZE))
            task.cancel()
            with pytest.raises(CancelledError):
                await task
        await backend.delete(_NAME)
        with pytest.raises(BackendFailed):
            await backend.open_reader(_NAME)

    @ensureDeferred
    async def test_clones_images_if_declared(
        self, backend: IBlockBackend, put_image: Callable[[bytes], str]
    ) -> None:
        if not backend.capabilities.clones_images:
            return  # nothing is promised: the core copies
        verifyObject(IImageCloningBackend, backend)
        cloning = IImageCloningBackend(backend)
        block = backend.capabilities.block_size
        for content in (noise(SIZE), noise(block + 1)):
            location = put_image(content)
            assert await cloning.clone_image(location, _NAME, SIZE) == len(content)
            whole = content.ljust(SIZE, b"\0")
            assert await read(backend, _NAME, 0, SIZE) == whole
            with pytest.raises(BackendFailed):
                await cloning.clone_image(location, _NAME, SIZE)
            # The image does not see what is written to the volume.
            await write(backend, _NAME, 0, noise(block, 1))
            assert await cloning.clone_image(location, _OTHER, 2 * SIZE) == len(content)
            assert await read(backend, _OTHER, 0, 2 * SIZE) == whole.ljust(2 * SIZE, b"\0")
            await backend.delete(_NAME)
            await backend.delete(_OTHER)

    @ensureDeferred
    async def test_an_image_that_cannot_be_cloned_leaves_nothing(
        self, backend: IBlockBackend, put_image: Callable[[bytes], str]
    ) -> None:
        if not backend.capabilities.clones_images:
            return
        cloning = IImageCloningBackend(backend)
        large, fits = put_image(noise(SIZE + 1)), put_image(noise(SIZE))
        elsewhere = ("", "file:///etc/passwd", "rbd://", "rbd:///" * 4, f"{fits}/x", f"{fits}x")
        for location in (large, *elsewhere):
            assert await cloning.clone_image(location, _NAME, SIZE) is None
            with pytest.raises(BackendFailed):
                await backend.open_reader(_NAME)
        task = Deferred.fromCoroutine(cloning.clone_image(fits, _NAME, SIZE))
        task.cancel()
        with pytest.raises(CancelledError):
            await task
        await backend.delete(_NAME)
        with pytest.raises(BackendFailed):
            await backend.open_reader(_NAME)

    @ensureDeferred
    async def test_tells_of_zeros_if_provided(self, backend: IBlockBackend) -> None:
        """Never of what is not zero: at first, with holes, over data, at the end, on a clone."""
        await backend.allocate(_NAME, SIZE)
        if not await check_extents(backend, _NAME, SIZE):
            return  # nothing is promised: the core reads all
        block = backend.capabilities.block_size
        quarter = SIZE // 4
        for offset, length in ((quarter + block, block), (SIZE - block, block), (0, quarter)):
            await write(backend, _NAME, offset, noise(length))
            await check_extents(backend, _NAME, SIZE)
        reader, writer = await backend.open_reader(_NAME), await backend.open_writer(_NAME)
        await writer.zero(block, quarter)
        await check_extents(backend, _NAME, SIZE)
        # What is written is no hole any more, also for whoever has looked before.
        await ISparse(reader).extents(0, SIZE)
        await writer.write(2 * quarter, memoryview(bytearray(noise(block))))
        await writer.flush()
        at = 0
        for extent in await ISparse(reader).extents(0, SIZE):
            assert not (extent.zero and at <= 2 * quarter < at + extent.length)
            at += extent.length
        asking = Deferred.fromCoroutine(ISparse(reader).extents(0, SIZE))
        asking.addErrback(lambda failure: failure.trap(CancelledError))
        asking.cancel()
        await asking
        await writer.close()
        await reader.close()
        if backend.capabilities.clones:
            await ICloningBackend(backend).clone(_NAME, _OTHER, 2 * SIZE)
            await write(backend, _OTHER, SIZE, noise(block))
            await check_extents(backend, _OTHER, 2 * SIZE)

    async def test_uses_no_other_store_if_it_can_tell(self, backend: IBlockBackend) -> None:
        if not IIdentifiedBackend.providedBy(backend):
            return  # nothing is promised: the core uses what it finds
        verifyObject(IIdentifiedBackend, backend)
        store = IIdentifiedBackend(backend)
        identity = await store.identity()
        assert 1 <= len(identity) <= 255
        assert identity.isascii()
        assert identity.isprintable()
        assert await store.identity() == identity
        store.expect(identity)
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, 0, noise(SIZE))
        with suppress(ConfigurationError):
            store.expect("another")
        refused = [
            store.identity(),
            backend.allocate(_OTHER, SIZE),
            backend.allocate(_NAME, SIZE),
            backend.open_writer(_NAME),
            backend.open_reader(_NAME),
            backend.connection(_NAME),
            backend.delete(_NAME),
            backend.delete(_OTHER),
        ]
        if backend.capabilities.clones:
            refused.append(ICloningBackend(backend).clone(_NAME, _OTHER, SIZE))
        for call in refused:
            with pytest.raises(WrongStore):
                await call
        # The right one is back: nothing was changed.
        store.expect(identity)
        assert await read(backend, _NAME, 0, SIZE) == noise(SIZE)
        with pytest.raises(BackendFailed):
            await backend.open_reader(_OTHER)

    @ensureDeferred
    async def test_deleting_is_final_and_idempotent(self, backend: IBlockBackend) -> None:
        await backend.allocate(_NAME, SIZE)
        await backend.delete(_NAME)
        await backend.delete(_NAME)
        with pytest.raises(BackendFailed):
            await backend.open_writer(_NAME)
        with pytest.raises(BackendFailed):
            await backend.open_reader(_NAME)
        with pytest.raises(BackendFailed):
            await backend.connection(_NAME)

    @ensureDeferred
    async def test_a_volume_that_never_was(self, backend: IBlockBackend) -> None:
        await backend.delete(_OTHER)
        with pytest.raises(BackendFailed):
            await backend.open_writer(_OTHER)
        with pytest.raises(BackendFailed):
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
            # QEMU reads what it would let a guest have.
            copy = tmp_path / "copy"
            subprocess.run(  # noqa: S603
                [*_CONVERT, found.address, str(copy)], check=True, timeout=60
            )
            assert copy.read_bytes()[3 * block : 4 * block] == noise(block)


def make_block_backend_tests(
    make: Callable[[PluginContext, Path], IBlockBackend],
) -> type[BlockBackendContract]:
    """Return the suite for one backend, to be named in a test module.

    :param make: makes the backend from a context, whose name it must take, and an empty folder;
        called once a test.  As a function of a module it is called in other processes as well.
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
