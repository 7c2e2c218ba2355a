"""Images of volumes: an upload whose beginning fails does not keep the volume."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from sqlalchemy import Connection as Db
from sqlalchemy import make_url, select
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import directlyProvides

from bootvol.errors import DatabaseUnavailable, Forbidden, SourceFailed
from bootvol.interfaces import IImageTaker
from bootvol.lifecycle import Kind, Status
from bootvol.model import Caller, ImageRecord, NewVolumeImage, Volume, VolumeUpload
from bootvol.reactors import installed
from bootvol.service.images import Images
from bootvol.service.volume_uploads import VolumeUploads
from bootvol.store import schema, volume_uploads, volumes
from bootvol.store.database import Database

CALLER: Final = Caller("u", "t", token="secret")
DATE: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Taker:
    """A source of which the test gives the answers."""

    def __init__(self) -> None:
        self.answer: Deferred[None] = Deferred()
        directlyProvides(self, IImageTaker)

    async def take(self, caller: Caller, record: ImageRecord) -> None:
        """See :meth:`bootvol.interfaces.IImageTaker.take`."""
        await self.answer


class World:
    """The service, with its database.

    :ivar woken: fires when the worker is woken.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = Clock()
        self.taker = Taker()
        self.callers: dict[str, Caller] = {}
        self.woken: Deferred[None] = Deferred()
        sources: Any = {"glance": self.taker}
        images = Images(sources, self.clock, 9)
        self.uploads = VolumeUploads(
            database, images, sources, self.callers, "d", self, lambda: 1.0, self.clock
        )

    def wake(self) -> None:
        """See :class:`bootvol.service.volumes.Work`."""
        self.woken.callback(None)

    def stop_making(self, kind: Kind, number: int) -> None:
        """See :class:`bootvol.service.volumes.Work`."""

    async def state(self) -> tuple[Status, str | None, VolumeUpload | None]:
        """Return the status of the volume, its claim, and its upload."""

        def found(db: Db) -> tuple[Status, str | None, VolumeUpload | None]:
            row = db.execute(select(schema.volumes.c.status, schema.volumes.c.worker)).one()
            return Status(row.status), row.worker, volume_uploads.get(db, 1)

        return await self.database.read(found)

    async def begin(self) -> None:
        """Ask for an image of the volume."""
        await self.uploads.upload(CALLER, 1, NewVolumeImage("img"))


@pytest_twisted.async_yield_fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A service with an available volume."""
    database = Database(make_url(f"sqlite:///{tmp_path / 'x.db'}"), installed())
    database.upgrade()
    database.start()
    volume = Volume(0, "v", "t", "u", 1, Status.AVAILABLE, DATE, "nova", "b")
    await database.write(volumes.add, volume)
    yield World(database)
    database.stop()


async def _until_paused(world: World) -> None:
    while not world.clock.getDelayedCalls():
        await world.database.read(lambda db: None)


@ensureDeferred
async def test_a_claim_ends_though_the_database_fails_for_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break: `src/bootvol/service/volume_uploads.py`: `await sleep(self._clock, _PAUSE)` ->
    `return`."""
    write, failures = world.database.write_without_invalidation, [DatabaseUnavailable()] * 2

    async def failing(*args: object) -> object:
        if failures:
            raise failures.pop()
        return await write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(world.database, "write_without_invalidation", failing)
    world.taker.answer.callback(None)
    await world.begin()
    for _ in range(2):
        assert not world.woken.called
        assert (await world.state())[1] is not None
        world.clock.advance(1)
    await world.woken
    status, worker, upload = await world.state()
    assert (status, worker) == (Status.UPLOADING, None)
    assert upload is not None
    assert not upload.is_given_up


@ensureDeferred
async def test_an_upload_that_begins_though_its_caller_got_an_error_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = world.database.write

    async def silent(*args: object) -> object:
        await write(*args)  # type: ignore[arg-type]
        raise DatabaseUnavailable

    monkeypatch.setattr(world.database, "write", silent)
    with pytest.raises(DatabaseUnavailable):
        await world.begin()
    await world.woken
    status, worker, upload = await world.state()
    assert (status, worker) == (Status.UPLOADING, None)
    assert upload is not None
    assert upload.is_given_up


@ensureDeferred
async def test_a_late_image_is_removed_by_a_worker(world: World) -> None:
    """The claim keeps the worker away until the source's last word.

    Break: `src/bootvol/service/volume_uploads.py`: `if adding is not None:` -> `if False:`.
    """
    begun = Deferred.fromCoroutine(world.begin())
    await _until_paused(world)
    world.clock.advance(31)
    with pytest.raises(SourceFailed):
        await begun
    assert not world.woken.called
    assert (await world.state())[1] is not None
    world.taker.answer.callback(None)
    await world.woken
    status, worker, upload = await world.state()
    assert (status, worker) == (Status.UPLOADING, None)
    assert upload is not None
    assert upload.is_given_up
    # The worker removes the image by the rights of the caller.
    assert world.callers == {upload.image.id: CALLER}


@ensureDeferred
async def test_a_refused_image_leaves_the_volume_at_once(world: World) -> None:
    world.taker.answer.errback(Forbidden("no"))
    with pytest.raises(Forbidden):
        await world.begin()
    assert await world.state() == (Status.AVAILABLE, None, None)
    assert world.callers == {}
