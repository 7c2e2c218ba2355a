"""Sections of the backend suite about declared abilities and optional interfaces."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from bootvol.errors import BackendFailed, ConfigurationError, VolumeCutOff, WrongStore
from bootvol.interfaces import (
    IAdoptingBackend,
    IBlockBackend,
    ICloningBackend,
    IGrowingBackend,
    IIdentifiedBackend,
    IImageCloningBackend,
    IMeasuredBackend,
    IRoutingBackend,
    ISharingBackend,
    ISparse,
)
from bootvol.model import LocalRoute
from bootvol.testing.volumes import SIZE, VOLUMES, cancelled, noise, read, read_from, write

_NAME, _OTHER = VOLUMES


async def check_extents(backend: IBlockBackend, volume: str, size: int) -> bool:
    """Compare the extents from a volume's reader with the volume's bytes.

    :param size: size of the volume in bytes.
    :returns: whether the reader reports extents.
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


class Declared:
    """Tests of a backend's capabilities and optional interfaces."""

    @pytest.fixture
    def neighbours(self, tmp_path: Path) -> Path:
        """Provide a folder with files that the backend can share, if sharing is declared."""
        return tmp_path

    @pytest.fixture
    def put_image(self) -> Callable[[bytes], str]:
        """Provide a function to store images that the backend can clone, if cloning is declared.

        The function takes the image's bytes and returns their location.  Each call returns a new
        location.
        """

        def put(content: bytes) -> str:
            raise AssertionError("override the fixture put_image")

        return put

    @ensureDeferred
    async def test_clones_if_declared(self, backend: IBlockBackend) -> None:
        if not backend.capabilities.clones:
            return  # The backend promises nothing: the core copies.
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
            # Writes to one do not show in the other.
            await write(backend, _OTHER, 0, noise(block, 1))
            await write(backend, _NAME, block, noise(block, 2))
            assert await read(backend, _NAME, 0, block) == noise(SIZE)[:block]
            assert await read(backend, _OTHER, block, block) == whole[block : 2 * block]
            await write(backend, _NAME, block, noise(SIZE)[block : 2 * block])
            await backend.delete(_OTHER)
        # A clone outlives its source.
        await cloning.clone(_NAME, _OTHER, SIZE)
        await backend.delete(_NAME)
        assert await read(backend, _OTHER, 0, SIZE) == noise(SIZE)
        with pytest.raises(BackendFailed):
            await cloning.clone(_NAME, _NAME, SIZE)
        # A source that has lost bytes must not become a clone with zeros in their place.
        with pytest.raises(VolumeCutOff):
            await cloning.clone(_OTHER, _NAME, 2 * SIZE, held=2 * SIZE)
        await backend.delete(_NAME)
        # Bytes that were cut off must not come back.
        await backend.delete(_OTHER)
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, 0, noise(SIZE))
        await cloning.clone(_NAME, _OTHER, block)
        await backend.delete(_NAME)
        await cloning.clone(_OTHER, _NAME, SIZE)
        assert await read(backend, _NAME, 0, SIZE) == noise(SIZE)[:block].ljust(SIZE, b"\0")

    @ensureDeferred
    async def test_grows_if_provided(self, backend: IBlockBackend) -> None:
        """A late call of a daemon without its claim cuts nothing off."""
        if not IGrowingBackend.providedBy(backend):
            return  # The backend promises nothing: the core refuses larger sizes.
        verifyObject(IGrowingBackend, backend)
        growing = IGrowingBackend(backend)
        with pytest.raises(BackendFailed):
            await growing.grow(_NAME, 2 * SIZE)
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, 0, noise(SIZE))
        for size in (2 * SIZE, 2 * SIZE, 3 * SIZE, 2 * SIZE):
            await growing.grow(_NAME, size)
        assert await read(backend, _NAME, 0, 3 * SIZE) == noise(SIZE).ljust(3 * SIZE, b"\0")
        # The new part is as good as the old one.
        await write(backend, _NAME, 2 * SIZE, noise(SIZE, 1))
        assert await read(backend, _NAME, 2 * SIZE, SIZE) == noise(SIZE, 1)
        assert await read(backend, _NAME, 0, SIZE) == noise(SIZE)
        if backend.capabilities.clones:
            await ICloningBackend(backend).clone(_NAME, _OTHER, 3 * SIZE)
            await growing.grow(_OTHER, 4 * SIZE)
            assert not any(await read(backend, _OTHER, 3 * SIZE, SIZE))
            assert await read(backend, _OTHER, 2 * SIZE, SIZE) == noise(SIZE, 1)
            await backend.delete(_OTHER)
        await backend.delete(_NAME)

    @ensureDeferred
    async def test_tells_its_room_if_provided(self, backend: IBlockBackend) -> None:
        if not IMeasuredBackend.providedBy(backend):
            return  # The backend promises nothing: operators see no figures.
        verifyObject(IMeasuredBackend, backend)
        room = await IMeasuredBackend(backend).room()
        if room is not None:
            assert 0 <= room.free <= room.total
            assert room.total >= SIZE

    @ensureDeferred
    async def test_names_a_route_if_provided(self, backend: IBlockBackend) -> None:
        """A host opens the volume on the route, and bootvol has no part in that."""
        if not IRoutingBackend.providedBy(backend):
            return  # The backend promises nothing: the core refuses attachments of other systems.
        verifyObject(IRoutingBackend, backend)
        routing = IRoutingBackend(backend)
        with pytest.raises(BackendFailed):
            await routing.route(_NAME)
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, 0, noise(SIZE))
        route = await routing.route(_NAME)
        assert route == await routing.route(_NAME)
        if isinstance(route, LocalRoute):
            block = backend.capabilities.block_size
            with open(route.path, "r+b", buffering=0) as opened:
                assert opened.read(SIZE) == noise(SIZE)
                opened.seek(block)
                opened.write(noise(block, 1))
                os.fsync(opened.fileno())
            assert await read(backend, _NAME, block, block) == noise(block, 1)
        else:
            assert route.monitors
            assert route.place.endswith(f"/{_NAME}")
            assert all(host and 0 < port < 65536 for host, port in route.monitors)
            UUID(route.secret)
        await backend.delete(_NAME)

    @ensureDeferred
    async def test_shares_if_declared(self, backend: IBlockBackend, neighbours: Path) -> None:
        if not backend.capabilities.shares:
            return  # The backend promises nothing: the core copies.
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
                # Writes to one do not show in the other.
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
            await cancelled(sharing.share(file.fileno(), _NAME, SIZE))
        await backend.delete(_NAME)
        with pytest.raises(BackendFailed):
            await backend.open_reader(_NAME)

    @ensureDeferred
    async def test_clones_images_if_declared(
        self, backend: IBlockBackend, put_image: Callable[[bytes], str]
    ) -> None:
        if not backend.capabilities.clones_images:
            return  # The backend promises nothing: the core copies.
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
            # Writes to the volume do not show in the image.
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
        await cancelled(cloning.clone_image(fits, _NAME, SIZE))
        await backend.delete(_NAME)
        with pytest.raises(BackendFailed):
            await backend.open_reader(_NAME)

    @ensureDeferred
    async def test_tells_of_zeros_if_provided(self, backend: IBlockBackend) -> None:
        """Reported zeros read as zeros: at first, with holes, over data, at the end, on a clone."""
        await backend.allocate(_NAME, SIZE)
        if not await check_extents(backend, _NAME, SIZE):
            return  # The backend promises nothing: the core reads everything.
        block = backend.capabilities.block_size
        quarter = SIZE // 4
        for offset, length in ((quarter + block, block), (SIZE - block, block), (0, quarter)):
            await write(backend, _NAME, offset, noise(length))
            await check_extents(backend, _NAME, SIZE)
        reader, writer = await backend.open_reader(_NAME), await backend.open_writer(_NAME)
        await writer.zero(block, quarter)
        await check_extents(backend, _NAME, SIZE)
        # Written bytes are no hole any more, even for a reader that asked before.
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

    @ensureDeferred
    async def test_uses_no_other_store_if_it_can_tell(self, backend: IBlockBackend) -> None:
        if not IIdentifiedBackend.providedBy(backend):
            return  # The backend promises nothing: the core uses the store that it finds.
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
        refused: list[Awaitable[object]] = [
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
        if IAdoptingBackend.providedBy(backend):
            adopting = IAdoptingBackend(backend)
            refused += [adopting.adopt(_OTHER, _OTHER, SIZE), adopting.give_up(_NAME, _OTHER)]
        for call in refused:
            with pytest.raises(WrongStore):
                await call
        # The right store is back: no call has changed it.
        store.expect(identity)
        assert await read(backend, _NAME, 0, SIZE) == noise(SIZE)
        with pytest.raises(BackendFailed):
            await backend.open_reader(_OTHER)
