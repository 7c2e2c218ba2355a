"""Tenants share the places of the downloads into images, whatever their servers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import directlyProvides

from bootvol.clocks import sleep
from bootvol.errors import SourceFailed
from bootvol.imaging.bandwidth import Bandwidth
from bootvol.interfaces import IImageSource, IImageStore
from bootvol.model import Image, ImageFetch, ImageRecord
from bootvol.threads import Threads
from bootvol.worker.image_downloads import MOST, ImageDownloads
from bootvol.worker.image_fetches import Fetcher
from bootvol.worker.lanes import TURN

LEAST = 64 * 1024


class Slow:
    """A stream without an end, at some rate.

    :param rate: bytes in a second; 0 for a stream that hangs.
    """

    size = validator = None
    offset = 0

    def __init__(self, clock: Clock, rate: int) -> None:
        self._clock, self._rate = clock, rate

    async def read_into(self, target: memoryview) -> int:
        """See bootvol.interfaces.IImageStream."""
        if self._rate == 0:
            await Deferred[None]()
        await sleep(self._clock, len(target) / self._rate)
        return len(target)

    async def close(self) -> None:
        """See bootvol.interfaces.IImageStream."""


class Upload:
    """An upload that forgets its bytes."""

    async def write(self, data: memoryview) -> None:
        """See bootvol.interfaces.IImageUpload."""

    async def abort(self) -> None:
        """See bootvol.interfaces.IImageUpload."""


class Store:
    """A store, and the source of its downloads.

    :ivar asked: the images that the source was asked for.
    """

    def __init__(self, open_stream: Callable[[], Slow]) -> None:
        self.found: list[ImageRecord] = []
        self.asked: list[str] = []
        self._open_stream = open_stream
        directlyProvides(self, IImageStore)

    def add(self, tenant: str, name: str) -> None:
        """Add the request for a download."""
        now = float(len(self.found))
        fetch = ImageFetch(name, "u", "r", now, now, Image(id=name, source="web", name=name))
        record = ImageRecord(name, tenant, now, now, disk_format="raw", fetch=fetch)
        self.found.append(record)

    async def records(self) -> list[ImageRecord]:
        """See bootvol.interfaces.IImageStore."""
        return self.found

    async def upload(self, image_id: str, size: int | None) -> Upload:
        """See bootvol.interfaces.IImageStore."""
        return Upload()

    async def open(self, image: Image, offset: int, validator: str | None) -> Slow:
        """See bootvol.interfaces.IImageSource."""
        self.asked.append(image.id)
        return self._open_stream()


class Inline:
    """Threads that call at once."""

    async def run(self, call: Callable[..., Any], *args: object) -> Any:
        """See bootvol.threads.Threads."""
        return call(*args)


def pauses(_: Clock) -> Slow:
    """Ask for a long pause."""
    error = SourceFailed("busy")
    error.retry_after = 10 * TURN
    raise error


def at_rate(rate: int) -> Callable[[Clock], Slow]:
    """Return a function that opens a stream."""
    return lambda clock: Slow(clock, rate)


@pytest.mark.parametrize(
    "server",
    [pauses, at_rate(0), at_rate(LEAST // 8), at_rate(2 * LEAST)],
    ids=["pauses", "hangs", "is slow", "sends without end"],
)
def test_no_tenants_keep_another_out(server: Callable[[Clock], Slow]) -> None:
    """Three tenants have many requests.  The request of another tenant begins nevertheless.

    Break: `src/bootvol/worker/image_fetches.py`: `yielding = YieldingStream(counted, received.download.lane_place, self.clock)` -> `yielding = counted`
    Break: `src/bootvol/worker/image_downloads.py`: `gives_way=True` -> `gives_way=False`
    """  # noqa: E501
    clock = Clock()
    store = Store(lambda: server(clock))
    for tenant in "abc":
        for number in range(MOST):
            store.add(tenant, f"{tenant}{number}")
    fetcher = Fetcher(
        lambda _: cast("IImageSource", store),
        Bandwidth(None, {}, clock),
        cast("Threads", Inline()),
        clock,
        retries=5,
    )
    downloads = ImageDownloads(
        {"store": cast("IImageSource", store)}, fetcher, clock, clock.seconds, LEAST
    )
    downloads.startService()
    clock.advance(1)
    assert len({each[0] for each in store.asked}) == 3
    store.add("d", "theirs")
    for _ in range(int(2 * TURN)):
        clock.advance(1)
    assert "theirs" in store.asked
    stopped = downloads.stopService()
    assert stopped.called
