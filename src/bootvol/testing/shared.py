"""Sections of the backend suite about concurrent use of the same volumes."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from bootvol.errors import BackendFailed, VolumeInUse
from bootvol.interfaces import (
    IBlockBackend,
    ICloningBackend,
    ICountingBackend,
    IGuardedBackend,
)
from bootvol.model import ConnectionInfo
from bootvol.testing.elsewhere import Elsewhere
from bootvol.testing.volumes import SIZE, VOLUMES, noise, read, write

_NAME, _OTHER = VOLUMES
#: From Debian's package qemu-utils.  qemu-nbd has a volume open just as a guest has.
_NBD: Final = "/usr/bin/qemu-nbd"
#: The server's first bytes, after it has opened all (NetworkBlockDevice project, doc/proto.md).
_GREETING: Final = b"NBDMAGIC"
#: Seconds that qemu-nbd may take to start.
_PATIENCE: Final = 60.0
#: The kinds of connections that QEMU can open.
OPENED: Final = frozenset({"file", "block", "rbd"})


class LostClaims:
    """A suspended daemon does no harm when it continues after the loss of its claim.

    The core takes the written bytes over under another name; see docs/decisions/0007.
    """

    @pytest.fixture
    def elsewhere(self) -> Elsewhere | None:
        """Provide the same backend for another process; None if no other process can have one."""
        return None

    @ensureDeferred
    async def test_a_late_writer_changes_no_other_volume(self, backend: IBlockBackend) -> None:
        block = backend.capabilities.block_size
        await backend.allocate(_NAME, SIZE)
        writer = await backend.open_writer(_NAME)
        await writer.write(0, memoryview(bytearray(noise(SIZE))))
        await writer.flush()
        await _take_over(backend)
        assert await read(backend, _OTHER, 0, SIZE) == noise(SIZE)
        await write(backend, _OTHER, 0, noise(block, 1))
        await writer.write(0, memoryview(bytearray(noise(SIZE, 2))))
        await writer.flush()
        await writer.close()
        await backend.delete(_NAME)
        expected = noise(block, 1) + noise(SIZE)[block:]
        assert await read(backend, _OTHER, 0, SIZE) == expected

    @ensureDeferred
    async def test_the_writer_of_a_lost_claim_is_harmless(
        self, backend: IBlockBackend, elsewhere: Elsewhere | None
    ) -> None:
        if elsewhere is None:
            pytest.skip("how another process makes the backend is not known")
        other = await deferToThread(elsewhere.start, _NAME)
        try:
            assert await deferToThread(other.await_step) == "written"
            other.stop()
            try:
                await _take_over(backend)
            except BackendFailed:
                # In this case the core starts over.
                await backend.delete(_OTHER)
                await backend.allocate(_OTHER, SIZE)
                await write(backend, _OTHER, 0, noise(SIZE))
            assert await read(backend, _OTHER, 0, SIZE) == noise(SIZE)
            # By now a guest uses the volume.
            await write(backend, _OTHER, 0, noise(SIZE, 1))
            other.go_on()
            assert await deferToThread(other.await_step) == "late"
            assert await read(backend, _OTHER, 0, SIZE) == noise(SIZE, 1)
        finally:
            await deferToThread(other.end)
        await backend.delete(_NAME)
        assert await read(backend, _OTHER, 0, SIZE) == noise(SIZE, 1)
        with pytest.raises(BackendFailed):
            await backend.open_reader(_NAME)


async def _take_over(backend: IBlockBackend) -> None:
    """Copy or clone a volume during writes by another process, as the core does."""
    if backend.capabilities.clones:
        await ICloningBackend(backend).clone(_NAME, _OTHER, SIZE)
        return
    await backend.allocate(_OTHER, SIZE)
    await write(backend, _OTHER, 0, await read(backend, _NAME, 0, SIZE))


class VolumesInUse:
    """An open volume is neither deleted nor given away."""

    @ensureDeferred
    async def test_what_somebody_has_open_is_told_and_not_deleted(
        self, backend: IBlockBackend, tmp_path: Path
    ) -> None:
        await backend.allocate(_NAME, SIZE)
        await write(backend, _NAME, 0, noise(SIZE))
        if not IGuardedBackend.providedBy(backend):
            return  # The backend promises nothing: the core does not ask.
        verifyObject(IGuardedBackend, backend)
        guarded = IGuardedBackend(backend)
        # A reader of the core itself does not count.
        reader = await backend.open_reader(_NAME)
        await guarded.check_unused(_NAME)
        await reader.close()
        connection = await backend.connection(_NAME)
        if connection.kind not in OPENED:
            return  # No other program can open the volume.
        with opened(connection, tmp_path):
            with pytest.raises(VolumeInUse):
                await guarded.check_unused(_NAME)
            with pytest.raises(VolumeInUse):
                await backend.delete(_NAME)
            assert await read(backend, _NAME, 0, SIZE) == noise(SIZE)
        await guarded.check_unused(_NAME)
        await backend.delete(_NAME)
        with pytest.raises(BackendFailed):
            await guarded.check_unused(_NAME)

    @ensureDeferred
    async def test_no_opener_hides_from_a_backend_that_counts(self, backend: IBlockBackend) -> None:
        if not ICountingBackend.providedBy(backend):
            return  # The backend promises nothing: the core asks IGuardedBackend.
        verifyObject(ICountingBackend, backend)
        counting = ICountingBackend(backend)
        await backend.allocate(_NAME, SIZE)
        await counting.check_closed(_NAME)
        address = (await backend.connection(_NAME)).address
        ours, theirs = socket.socketpair()
        with ours, theirs:
            # No process has a descriptor: a message has.
            with open(address, "r+b") as file:
                socket.send_fds(ours, [b"x"], [file.fileno()])
            with pytest.raises(VolumeInUse):
                await counting.check_closed(_NAME)
        await counting.check_closed(_NAME)
        await backend.delete(_NAME)
        with pytest.raises(BackendFailed):
            await counting.check_closed(_NAME)


@contextmanager
def opened(connection: ConnectionInfo, folder: Path) -> Iterator[None]:
    """Have QEMU keep a volume open until the end of the block."""
    path = folder / "nbd"
    command = [_NBD, "--persistent", "--format=raw", f"--socket={path}", connection.address]
    process = subprocess.Popen(command)  # noqa: S603 - a list, of the suite's own words
    try:
        end = time.monotonic() + _PATIENCE
        while not path.exists():
            assert process.poll() is None, "qemu-nbd does not serve the volume"
            assert time.monotonic() < end
            time.sleep(0.05)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_PATIENCE)
            client.connect(str(path))
            assert client.recv(len(_GREETING)) == _GREETING
        yield
    finally:
        process.terminate()
        process.wait()
