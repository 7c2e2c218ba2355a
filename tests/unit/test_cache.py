"""Cached answers: right, dropped in time, and bounded."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred
from sqlalchemy import Connection
from twisted.internet.defer import Deferred

from bootvol.api.cache import Answers
from bootvol.errors import NotFound
from bootvol.store.database import Database


class Rows:
    """A row with its version and the number of its reads."""

    def __init__(self) -> None:
        self.version: int | None = 0
        self.shown = "old"
        self.reads = 0
        self.answers = Answers(lambda: self.version, most=10_000)

    async def read(self) -> Any:
        """Return the content of the row."""
        self.reads += 1
        return self.shown

    async def ask(self, key: str = "key") -> Any:
        """Return the cached answer for a key."""
        return orjson.loads(await self.answers.get(key, self.read))


@ensureDeferred
async def test_what_was_answered_is_not_read_again() -> None:
    rows = Rows()
    assert [await rows.ask() for _ in range(3)] == ["old"] * 3
    assert rows.reads == 1
    assert await rows.ask("another") == "old"
    assert rows.reads == 2


@ensureDeferred
async def test_a_write_makes_every_answer_an_old_one() -> None:
    rows = Rows()
    await rows.ask("a")
    await rows.ask("b")
    rows.version, rows.shown = 1, "new"
    assert await rows.ask("a") == await rows.ask("b") == "new"


@ensureDeferred
async def test_what_was_read_before_a_write_is_not_kept() -> None:
    rows = Rows()
    going_on: Deferred[str] = Deferred()

    async def slow() -> str:
        return await going_on

    first = Deferred.fromCoroutine(rows.answers.get("key", slow))
    rows.version, rows.shown = 1, "new"
    assert await rows.ask("another") == "new"
    going_on.callback("old")
    assert await first == b'"old"'
    assert await rows.ask() == "new"


@ensureDeferred
async def test_without_a_version_nothing_is_kept() -> None:
    rows = Rows()
    rows.version = None
    assert [await rows.ask() for _ in range(3)] == ["old"] * 3
    assert rows.reads == 3


@ensureDeferred
async def test_no_error_is_kept() -> None:
    rows = Rows()

    async def missing() -> None:
        raise NotFound

    with pytest.raises(NotFound):
        await rows.answers.get("key", missing)
    assert await rows.ask() == "old"


@ensureDeferred
async def test_what_is_kept_is_bounded() -> None:
    rows = Rows()
    rows.shown = "x" * 1000
    for number in range(50):
        await rows.ask(str(number))
        await rows.ask("0")
    assert sum(map(len, rows.answers._kept.values())) <= 10_000
    assert rows.reads == 50, "what is asked for stays"
    rows.shown = "x" * 20_000
    assert await rows.ask("large") == rows.shown
    assert await rows.ask("49") == "x" * 1000, "an answer larger than the cache drives none out"


@ensureDeferred
async def test_the_version_grows_with_what_may_be_shown(database: Database) -> None:
    def fails(db: Connection) -> None:
        raise RuntimeError

    database.start()
    before = database.version
    await database.read(lambda db: None)
    await database.write_without_invalidation(lambda db: None)
    assert database.version == before
    await database.write(lambda db: None)
    after = database.version
    with pytest.raises(RuntimeError):
        await database.write(fails)
    if database.is_sqlite:
        assert before is not None
        assert after == before + 1
    else:
        assert after is None, "other daemons write there, too"
    database.stop()
