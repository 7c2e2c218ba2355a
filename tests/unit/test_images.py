"""Failing or hanging sources beside healthy ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from bootvol.errors import (
    BootvolError,
    ImageNotFound,
    InvalidImageRef,
    SourceFailed,
    SourceGone,
)
from bootvol.model import Caller, Image
from bootvol.service.images import Images
from bootvol.testing.sources import CALLER
from tests.daemons import pause, reactor

#: The number of callers who may wait for a source.
MOST = 9
BROKEN = SourceFailed("the disk is broken")


class Source:
    """A source with images known by their ids.

    :ivar answer: decides the outcome of a question; None answers at once.
    """

    def __init__(self, name: str, *ids: str) -> None:
        self.name = name
        self.ids = ids
        self.answer: Callable[[], Any] | None = None
        self.asked = 0

    async def images(self, caller: Caller) -> Sequence[Image]:
        """See bootvol.interfaces.IImageSource."""
        await self._decide()
        return [Image(each, self.name, each) for each in self.ids]

    async def find(self, caller: Caller, reference: str) -> Image:
        """See bootvol.interfaces.IImageSource."""
        await self._decide()
        if reference not in self.ids:
            raise ImageNotFound(reference)
        return Image(reference, self.name, reference)

    async def _decide(self) -> None:
        self.asked += 1
        if self.answer is not None:
            await self.answer()


def raising(error: Exception) -> Callable[[], Any]:
    """Return a function for ``Source.answer`` that fails."""

    async def answer() -> None:
        raise error

    return answer


class Bench:
    """Two sources with one common id."""

    def __init__(self) -> None:
        self.first, self.second = Source("first", "1", "both"), Source("second", "2", "both")
        self.clock = Clock()
        sources: Any = {"first": self.first, "second": self.second}
        clock: Any = self.clock
        self.images = Images(sources, clock, MOST)

    def listed(self) -> list[tuple[str, str]] | BootvolError | None:
        """List the images; return ids and sources, the failure, or None while the call waits."""
        found = outcome(self.images.listed(CALLER))
        return [(each.id, each.source) for each in found] if isinstance(found, list) else found

    def found(self, reference: str) -> Any:
        """Find an image; return its source, the failure, or None while the call waits."""
        found = outcome(self.images.find(CALLER, reference))
        return found.source if isinstance(found, Image) else found


def outcome(asked: Any) -> Any:
    """Return the outcome of a coroutine so far."""
    results: list[Any] = []
    Deferred.fromCoroutine(asked).addCallbacks(
        results.append, lambda failure: results.append(failure.value)
    )
    return results[0] if results else None


@pytest.fixture
def bench() -> Bench:
    """Two healthy sources."""
    return Bench()


ALL = [("1", "first"), ("both", "first"), ("2", "second")]


@pytest.mark.parametrize("defect", [BROKEN, RuntimeError("secret"), OSError(5, "secret")])
def test_a_source_that_fails_stops_no_other(bench: Bench, defect: Exception) -> None:
    assert bench.listed() == ALL
    bench.first.answer = raising(defect)
    with capturedLogs() as logs:
        assert bench.listed() == [("2", "second"), ("both", "second")]
        assert bench.found("2") == "second"
    assert {each["log_level"].name for each in logs} & {"error", "critical"}
    # An image that may be in the broken source is not reported as missing.
    unknown = bench.found("3")
    assert isinstance(unknown, SourceFailed)
    assert "secret" not in unknown.message


def test_a_failure_is_told_once_and_so_is_its_end(bench: Bench) -> None:
    bench.first.answer = raising(BROKEN)
    with capturedLogs() as logs:
        for _ in range(5):
            bench.listed()
        bench.first.answer = None
        for _ in range(5):
            bench.listed()
    told = [each["log_format"] for each in logs]
    assert told == ["source {name} fails: {why}", "source {name} answers again"]


def test_an_image_of_the_same_id_is_not_taken_instead(bench: Bench) -> None:
    bench.listed()
    bench.first.answer = raising(BROKEN)
    assert bench.found("both") is BROKEN
    bench.first.answer = None
    assert bench.found("both") == "first"


def test_all_that_list_anything_fail(bench: Bench) -> None:
    bench.first.answer = raising(BROKEN)
    bench.second.ids = ()
    assert bench.listed() is BROKEN


def test_what_says_that_a_reference_is_wrong_is_heard(bench: Bench) -> None:
    bench.first.answer = raising(InvalidImageRef())
    assert isinstance(bench.found("2"), InvalidImageRef)


def test_a_source_that_hangs_stops_no_other(bench: Bench) -> None:
    hanging: Deferred[None] = Deferred()
    bench.first.answer = lambda: hanging
    listing = Deferred.fromCoroutine(bench.images.listed(CALLER))
    bench.clock.advance(9)
    assert not listing.called
    bench.clock.advance(2)
    results: list[Any] = []
    listing.addCallback(results.append)
    assert [each.id for each in results[0]] == ["2", "both"]
    finding = Deferred.fromCoroutine(bench.images.find(CALLER, "2"))
    bench.clock.advance(31)
    assert finding.called
    # While the source hangs, nobody asks the source or waits again.
    assert bench.first.asked == 2
    assert bench.listed() == [("2", "second"), ("both", "second")]
    assert bench.found("2") == "second"
    assert isinstance(bench.found("1"), SourceFailed)
    assert bench.first.asked == 2
    bench.first.answer = None
    hanging.callback(None)
    assert bench.listed() == ALL


def test_a_list_that_takes_long_says_nothing_of_single_images(bench: Bench) -> None:
    long: Deferred[None] = Deferred()
    bench.first.answer = lambda: long
    listing = Deferred.fromCoroutine(bench.images.listed(CALLER))
    bench.first.answer = None
    bench.clock.advance(11)
    assert listing.called
    assert bench.found("1") == "first"
    # A second list would only slow down the first one.
    assert bench.listed() == [("2", "second"), ("both", "second")]
    long.callback(None)
    assert bench.listed() == ALL


def test_a_url_that_takes_long_says_nothing_of_others(bench: Bench) -> None:
    url, hanging = "https://example.org/1", Deferred[None]()
    bench.first.ids = (url, "1")
    bench.first.answer = lambda: hanging
    finding = Deferred.fromCoroutine(bench.images.find(CALLER, url))
    bench.clock.advance(31)
    # The last part of the URL is an id, too.
    finding.addErrback(lambda failure: None)
    bench.clock.advance(31)
    assert finding.called
    bench.first.answer = None
    hanging.callback(None)
    assert bench.found("1") == "first"


def test_a_source_that_is_gone_is_named(bench: Bench) -> None:
    with pytest.raises(SourceGone, match="third is not in the configuration"):
        bench.images.source("third")


@ensureDeferred
async def test_callers_are_shown_many_images_one_in_a_turn() -> None:
    source: Any = Source("one", *(f"{number:04}" for number in range(1001)))
    images = Images({"one": source}, reactor, MOST)
    asked = [Deferred.fromCoroutine(images.listed(CALLER)) for _ in range(3)]
    shown = sum(each.called for each in asked)
    assert shown <= 1
    while shown < len(asked):
        await pause(0)
        before, shown = shown, sum(each.called for each in asked)
        assert shown - before <= 1


@ensureDeferred
async def test_tenants_take_turns_at_lists_of_images() -> None:
    """However many callers of one tenant wait for a list, another tenant's list is among the next
    two.

    Break: `src/bootvol/service/images.py`: `await self._pace.turn(caller.tenant)` -> `await
    self._pace.turn("")`.
    """
    source: Any = Source("one", *(f"{number:04}" for number in range(1001)))
    images = Images({"one": source}, reactor, MOST)
    asked = [Deferred.fromCoroutine(images.listed(CALLER)) for _ in range(MOST // 2)]
    other = Deferred.fromCoroutine(images.listed(attrs.evolve(CALLER, tenant="other")))
    while not other.called:
        await pause(0)
    assert sum(each.called for each in asked) <= 2
    await gatherResults(asked)


@ensureDeferred
async def test_a_tenant_gets_few_lists_at_once() -> None:
    """Each list takes memory until the answer is made.

    Break: `src/bootvol/service/images.py`: `DeferredSemaphore(_LISTS)` -> `DeferredSemaphore(100)`
    Break: `src/bootvol/service/images.py`: `self._lists.setdefault(caller.tenant,` ->
    `self._lists.setdefault("",`
    """
    source: Any = Source("one", "1")
    answers: Deferred[None] = Deferred()

    async def answer() -> None:
        waiting: Deferred[None] = Deferred()
        answers.addCallback(lambda _: waiting.callback(None))
        await waiting

    source.answer = answer
    images = Images({"one": source}, reactor, MOST)
    asked = [Deferred.fromCoroutine(images.listed(CALLER)) for _ in range(4)]
    assert source.asked == 2
    asked.append(Deferred.fromCoroutine(images.listed(attrs.evolve(CALLER, tenant="other"))))
    assert source.asked == 3, "another tenant does not wait"
    answers.callback(None)
    assert [[each.id for each in found] for found in await gatherResults(asked)] == [["1"]] * 5


def test_a_tenant_whose_lists_take_long_keeps_no_other_from_the_source(bench: Bench) -> None:
    """The tenant's own calls may be the reason.

    Break: `src/bootvol/service/images.py`: `asked = (name, kind, caller.tenant)` -> `asked = (name,
    kind, "")`
    """
    bench.first.answer = Deferred
    other = attrs.evolve(CALLER, tenant="other")
    Deferred.fromCoroutine(bench.images.listed(CALLER))
    bench.clock.advance(10)
    for caller, times in (CALLER, 1), (other, 2):
        Deferred.fromCoroutine(bench.images.listed(caller))
        assert bench.first.asked == times
