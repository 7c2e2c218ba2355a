"""Two daemons on one PostgreSQL database share the work, and agree on the state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_twisted
from pytest_twisted import ensureDeferred
from sqlalchemy import make_url
from twisted.internet.defer import Deferred, gatherResults

from bootvol.store.database import Database
from bootvol.testing.backends import noise
from tests.daemons import Running, reactor

CONTENT = noise(3 * 1024 * 1024)


@pytest_twisted.async_yield_fixture
async def daemons(
    tmp_path: Path, new_postgresql: Callable[[], str]
) -> AsyncIterator[tuple[Running, Running]]:
    """Two daemons with the same volumes and images, each with a state directory of its own."""
    url = new_postgresql()
    Database(make_url(url).set(drivername="postgresql+psycopg"), reactor).upgrade()
    first, second = (
        Running(tmp_path, state=f'url = "{url}"\ndirectory = "state-{name}"') for name in "ab"
    )
    yield first, second
    await gatherResults([Deferred.fromCoroutine(each.stop()) for each in (first, second)])


@ensureDeferred
async def test_both_show_and_do_the_same(daemons: tuple[Running, Running]) -> None:
    first, second = daemons
    (first.images / "disk.raw").write_bytes(CONTENT)
    made = [await each.create("disk.raw") for each in (first, second) * 3]
    for number in made:
        for each in daemons:
            assert await each.until(number, "available", "error") == "available"
    for file in first.files():
        with file.open("rb") as volume:
            assert volume.read(len(CONTENT)) == CONTENT
    # One daemon deletes a volume made by the other.
    for number, each in zip(made, (second, first) * 3, strict=True):
        assert (await each.call("DELETE", f"os-volumes/{number}")).status == 202
    for number in made:
        await first.until(number, "gone")
    assert first.files() == []


@ensureDeferred
async def test_quota_is_exact_across_daemons(daemons: tuple[Running, Running]) -> None:
    """The quota is exact while two daemons accept creates.

    Break: `src/bootvol/store/volumes.py`: `if connection.dialect.name == "postgresql":` -> `if
    connection.dialect.name == "other":`.
    """
    wanted = {"volume": {"size": 1}}
    asked = [each.call("POST", "os-volumes", wanted) for each in daemons * 20]
    answers = await gatherResults([Deferred.fromCoroutine(each) for each in asked])
    assert sorted(answer.status for answer in answers) == [200] * 10 + [413] * 30


@ensureDeferred
async def test_one_goes_on_with_what_the_other_let_go(daemons: tuple[Running, Running]) -> None:
    first, second = daemons
    (first.images / "disk.raw").write_bytes(CONTENT)
    numbers = [await first.create("disk.raw") for _ in range(6)]
    await first.stop()
    for number in numbers:
        assert await second.until(number, "available", "error") == "available"
