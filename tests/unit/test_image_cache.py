"""Cached images: the conditions for making a volume from one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from sqlalchemy import make_url
from twisted.internet import reactor
from twisted.logger import capturedLogs, formatEvent

from bootvol.backends import Backends
from bootvol.errors import DatabaseUnavailable, NoSpace, VolumeInUse
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


@ensureDeferred
async def test_one_that_cannot_go_keeps_no_other(
    database: Database, threads: Threads, tmp_path: Path
) -> None:
    """Of several doomed cached images, a program has the first one open."""
    backend = MemoryBackend("b", reactor, clones=True)
    copier = Copier(ImportLimits(SIZE, 0, tmp_path), Memory(2, SIZE), threads, loop)
    image_cache = ImageCache(database, Backends([backend], loop), copier, {"b": 0}, CacheUse())
    for n, name in enumerate(("golden", "second", "third")):
        await backend.allocate(name, GIB)
        if n:
            another = attrs.evolve(GOLDEN, name=name, content=name, used_at=float(n))
            await database.write(rows.begin, another, VOLUME.id)
            await database.write(rows.complete, name)
    delete, open_still = backend.delete, ["golden"]

    async def deleted(name: str) -> None:
        if name in open_still:
            raise VolumeInUse
        await delete(name)

    setattr(backend, "delete", deleted)  # noqa: B010 - a method, for mypy
    with capturedLogs() as events:
        assert await image_cache.make_room("b")
        assert sorted(backend.volumes) == ["golden"]
        assert not await image_cache.make_room("b"), "nothing more was removed"
    (told,) = map(formatEvent, events)
    assert told.startswith("golden volume golden on backend b is not removed yet: ")
    open_still.clear()
    await image_cache.tidy("b")
    assert not backend.volumes


@ensureDeferred
async def test_tiny_images_are_few(database: Database, threads: Threads, tmp_path: Path) -> None:
    """The number of cached images is limited, however small the images are.

    Break: `src/bootvol/store/image_cache.py`: `max(row.bytes, LEAST)` -> `row.bytes`.
    """
    backend = MemoryBackend("b", reactor, clones=True)
    copier = Copier(ImportLimits(SIZE, 0, tmp_path), Memory(2, SIZE), threads, loop)
    image_cache = ImageCache(database, Backends([backend], loop), copier, {"b": 1}, CacheUse())
    most = GIB // rows.LEAST
    for n in range(most + 3):
        tiny = attrs.evolve(GOLDEN, name=f"tiny-{n}", content=f"tiny-{n}", size=1, used_at=n + 1.0)
        await backend.allocate(tiny.name, GIB)
        await database.write(rows.begin, tiny, VOLUME.id)
        await database.write(rows.complete, tiny.name)
    await image_cache.tidy("b")
    kept = [each.name for each in await database.read(rows.listed)]
    assert kept == [f"tiny-{n}" for n in reversed(range(3, most + 3))]


@ensureDeferred
async def test_a_database_on_the_full_disk_makes_no_room(
    database: Database, threads: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volume that found the disk full has to give its space back."""
    copier = Copier(ImportLimits(SIZE, 0, tmp_path), Memory(2, SIZE), threads, loop)
    backends = Backends([MemoryBackend("b", reactor)], loop)
    image_cache = ImageCache(database, backends, copier, {}, CacheUse())

    async def full(*_: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(database, "write", full)
    assert not await image_cache.make_room("b")


@ensureDeferred
async def test_one_without_room_gives_its_space_back_at_once(
    database: Database, threads: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may lie on the same disk, and takes nothing before."""
    backend = MemoryBackend("b", reactor)
    copier = Copier(ImportLimits(SIZE, 0, tmp_path), Memory(2, SIZE), threads, loop)
    image_cache = ImageCache(database, Backends([backend], loop), copier, {"b": 1}, CacheUse())
    await backend.allocate(VOLUME.name, GIB)

    async def full(_name: str) -> None:
        raise NoSpace

    monkeypatch.setattr(backend, "open_writer", full)
    claim: Any = SimpleNamespace(in_transaction=database.write)
    with capturedLogs() as events:
        await image_cache.add(VOLUME, TASK.image, "another", SIZE, None, [], claim)
    assert [*backend.volumes] == [VOLUME.name]
    assert formatEvent(events[-1]).endswith("is not made: The storage backend has no space left.")
