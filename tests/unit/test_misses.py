"""Missing lists of digests are not requested again and again."""

from __future__ import annotations

from typing import Any

from hyperlink import DecodedURL
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from bootvol.errors import ImageNotFound
from bootvol.threads import Threads
from bootvol_plugins.http.lists import AUTO, Lists
from bootvol_plugins.http.urls import parse

IMAGE = parse("http://images.example/a/disk.img")


def looking(clock: Clock, threads: Threads) -> tuple[Lists, list[str]]:
    """Return a search for lists without any list to find, and the requested URLs."""
    asked: list[str] = []

    async def fetch(url: DecodedURL) -> Any:
        asked.append(url.to_text())
        raise ImageNotFound(url.to_text())

    return Lists(AUTO, None, fetch, lambda _url: True, clock, threads, 1.0, 1.0), asked


@ensureDeferred
async def test_for_a_while(threads: Threads) -> None:
    clock = Clock()
    lists, asked = looking(clock, threads)
    assert await lists.digest_of(IMAGE) is None
    every = asked[:]
    assert every
    clock.advance(290.0)
    assert await lists.digest_of(IMAGE) is None
    assert asked == every
    clock.advance(20.0)
    asked.clear()
    assert await lists.digest_of(IMAGE) is None
    assert asked == every


@ensureDeferred
async def test_another_image_of_the_directory(threads: Threads) -> None:
    lists, asked = looking(Clock(), threads)
    await lists.digest_of(IMAGE)
    asked.clear()
    await lists.digest_of(parse("http://images.example/a/b.img"))
    assert asked
    assert all("/a/b.img" in each for each in asked)


@ensureDeferred
async def test_no_more_is_kept_than_so_much(threads: Threads) -> None:
    lists, asked = looking(Clock(), threads)
    for number in range(1000):
        await lists.digest_of(parse(f"http://images.example/{number}/disk.img"))
    asked.clear()
    await lists.digest_of(parse("http://images.example/999/disk.img"))
    assert asked == []
    await lists.digest_of(parse("http://images.example/0/disk.img"))
    assert asked
