"""The volumes of the contract suites, with functions to read and write them."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from typing import Final
from uuid import uuid4

import pytest
from twisted.internet.defer import CancelledError, Deferred

from bootvol.interfaces import IBlockBackend, IVolumeReader

#: Size in bytes: large enough for every case, small enough for any machine.
SIZE: Final = 4 * 1024 * 1024
#: The volumes of the suite.  The names are unique, so the suite can test a backend in use.
VOLUMES: Final = (f"contract-{uuid4()}", f"contract-{uuid4()}")


async def read(backend: IBlockBackend, volume: str, offset: int, length: int) -> bytes:
    """Read from a volume, with a reader of its own."""
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
    """Write to a volume durably, with a writer of its own."""
    writer = await backend.open_writer(volume)
    try:
        await writer.write(offset, memoryview(bytearray(data)))
        await writer.flush()
    finally:
        await writer.close()


async def cancelled(call: Coroutine[Deferred[object], object, object]) -> None:
    """Begin a call, cancel the call at once, and wait until it has ended with CancelledError."""
    begun = Deferred.fromCoroutine(call)
    begun.cancel()
    with pytest.raises(CancelledError):
        await begun


def noise(length: int, seed: int = 0) -> bytes:
    """Return random bytes without zeros.  The same seed gives the same bytes."""
    return random.Random(seed).randbytes(length).replace(b"\0", b"\1")  # noqa: S311
