"""The volumes of the contract suites, and how they are read and written."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from typing import Any, Final
from uuid import uuid4

import pytest
from twisted.internet.defer import CancelledError, Deferred

from bootvol.interfaces import IBlockBackend, IVolumeReader

#: Large enough for every case, small enough for any machine; bytes.
SIZE: Final = 4 * 1024 * 1024
#: The volumes that the suite makes: nobody else has such, so that it can be held against a backend
#: in use.
VOLUMES: Final = (f"contract-{uuid4()}", f"contract-{uuid4()}")


async def read(backend: IBlockBackend, volume: str, offset: int, length: int) -> bytes:
    """Open a volume, read from it, and close it."""
    reader = await backend.open_reader(volume)
    try:
        return await read_from(reader, offset, length)
    finally:
        await reader.close()


async def read_from(reader: IVolumeReader, offset: int, length: int) -> bytes:
    """Read from an open volume."""
    target = memoryview(bytearray(length))
    await reader.read_into(offset, target)
    return bytes(target)


async def write(backend: IBlockBackend, volume: str, offset: int, data: bytes) -> None:
    """Open a volume, write to it durably, and close it."""
    writer = await backend.open_writer(volume)
    try:
        await writer.write(offset, memoryview(bytearray(data)))
        await writer.flush()
    finally:
        await writer.close()


async def cancelled(call: Coroutine[Any, Any, object]) -> None:
    """Begin a call, cancel it at once, and wait until it has ended in that."""
    begun = Deferred.fromCoroutine(call)
    begun.cancel()
    with pytest.raises(CancelledError):
        await begun


def noise(length: int, seed: int = 0) -> bytes:
    """Return bytes without a zero among them; the same for the same seed."""
    return random.Random(seed).randbytes(length).replace(b"\0", b"\1")  # noqa: S311
