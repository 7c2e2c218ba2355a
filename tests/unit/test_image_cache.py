"""Cached images: the conditions for making a volume from one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest_twisted
from pytest_twisted import ensureDeferred
from sqlalchemy import make_url
from twisted.internet import reactor

from bootvol.backends import Backends
from bootvol.imaging.buffers import Memory
from bootvol.lifecycle import Status
from bootvol.model import GIB, CachedImage, CacheUse, Checkpoint, Image, Import, Volume
from bootvol.store import image_cache as rows
from bootvol.store.database import Database
from bootvol.testing.backends import noise, read, write
from bootvol.testing.memory import MemoryBackend
from bootvol.threads import Threads
from bootvol.worker.copier import Copier, ImportLimits
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.progress import Progress

loop: Any = reactor
SIZE = 65536
NOW = datetime(2026, 1, 1, tzinfo=UTC)
VOLUME = Volume(1, "v", "t", "u", 1, Status.DOWNLOADING, NOW, "nova", "b", "i")
GOLDEN = CachedImage("golden", "b", "i", "content", SIZE, None, 0, 0.0)
TASK = Import(1, Image("i", "s", "n"), checkpoint=Checkpoint(SIZE, "digest", "validator"))


@pytest_twisted.async_yield_fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database with the cached image."""
    database = Database(make_url(f"sqlite:///{tmp_path / 'x.db'}"), loop)
    database.upgrade()
    database.start()
    await database.write(rows.begin, GOLDEN, VOLUME.id)
    await database.write(rows.complete, GOLDEN.name)
    yield database
    database.stop()


@ensureDeferred
async def test_a_checkpoint_is_forgotten_before_it_is_wrong(
    database: Database, threads: Threads, tmp_path: Path
) -> None:
    """A checkpoint left in the row might vouch for the bytes of the clone."""
    backend = MemoryBackend("b", reactor, clones=True)
    copier = Copier(ImportLimits(SIZE, 0, tmp_path), Memory(2, SIZE), threads, loop)
    image_cache = ImageCache(database, Backends([backend], loop), copier, {}, CacheUse())
    await backend.allocate("golden", GIB)
    await write(backend, "golden", 0, noise(SIZE))
    await backend.allocate("v", GIB)
    await write(backend, "v", 0, noise(SIZE, 1))
    progress = Progress(0.0)
    progress.start(TASK)
    kept: list[Any] = []

    async def heartbeat() -> None:
        assert await read(backend, "v", 0, SIZE) == noise(SIZE, 1), "nothing is changed yet"
        kept.append(progress.columns(1.0)["durable_bytes"])

    assert await image_cache.fill(VOLUME, "content", progress, heartbeat)
    assert kept == [None]
    assert await read(backend, "v", 0, SIZE) == noise(SIZE)
    assert progress.bytes_done == SIZE
