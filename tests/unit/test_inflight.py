"""Concurrency limits: places for calls, in any order of requests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.defer import CancelledError, Deferred

from bootvol.errors import TooManyCalls
from bootvol.service.inflight import CallLimits, InFlight

MOST = 12
KEYS = range(6)


class Places(RuleBasedStateMachine):
    """Keys that take places and give them back."""

    def __init__(self) -> None:
        super().__init__()
        self.room = InFlight(MOST)
        self.held: list[tuple[int, AbstractContextManager[None]]] = []

    def of(self, key: int) -> int:
        """Return the expected number of places of a key."""
        return sum(holder == key for holder, _ in self.held)

    @rule(key=st.sampled_from(KEYS))
    def take(self, key: int) -> None:
        """Request a place: granted exactly if the key holds fewer places than are free."""
        free, place = self.room.free, self.room.place(key)
        try:
            place.__enter__()
        except TooManyCalls:
            assert self.of(key) >= free
        else:
            assert self.of(key) < free
            self.held.append((key, place))

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """End a call."""
        if self.held:
            number = data.draw(st.integers(0, len(self.held) - 1))
            self.held.pop(number)[1].__exit__(None, None, None)

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every place is either free or held."""
        assert self.room.free == MOST - len(self.held) >= 0
        assert all(self.room.held_by(key) == self.of(key) for key in KEYS)

    def teardown(self) -> None:
        """End all calls: all places are free."""
        for _, place in self.held:
            place.__exit__(None, None, None)
        assert self.room.free == MOST


TestPlaces = Places.TestCase
TestPlaces.settings = settings(max_examples=40, stateful_step_count=30)


def take_all(room: InFlight, key: object) -> list[Deferred[None]]:
    """Take as many places as possible."""
    taken: list[Deferred[None]] = []
    try:
        while True:
            taken.append(room.through(key, Deferred()))
    except TooManyCalls:
        return taken


@given(most=st.integers(1, 500))
def test_one_key_alone_leaves_half(most: int) -> None:
    """One key never takes more than half of the places.

    Break: `src/bootvol/service/inflight.py`: `self._held[key] >= self._free` -> `self._free <= 0`
    """
    room = InFlight(most)
    assert len(take_all(room, "greedy")) == (most + 1) // 2


@settings(max_examples=50)
@given(most=st.integers(8, 60), keys=st.integers(1, 7))
def test_keys_that_keep_asking_come_to_equal_parts(most: int, keys: int) -> None:
    """Keys with constant demand reach equal shares, and one share stays free.

    Break: `src/bootvol/service/inflight.py`: `self._held[key] >= self._free` -> `self._free <= 0`
    """
    room = InFlight(most)
    running = {key: take_all(room, key) for key in range(keys)}
    for _ in range(3 * most):
        longest = max(running.values(), key=len)
        longest.pop(0).callback(None)
        for key in range(keys):
            running[key] += take_all(room, key)
    held = [len(each) for each in running.values()]
    assert max(held) - min(held) <= 1
    assert room.free >= most // (keys + 1)
    assert take_all(room, "newcomer")


def test_a_call_that_has_ended_needs_no_place() -> None:
    room = InFlight(1)
    waiting = room.through("a", Deferred[int]())
    known: Deferred[int] = Deferred()
    known.callback(7)
    results: list[object] = []
    room.through("b", known).addCallback(results.append)
    assert results == [7]
    waiting.callback(0)
    assert room.free == 1


@pytest.mark.parametrize(
    "end", [lambda call: call.callback(None), lambda call: call.errback(ValueError())]
)
def test_a_place_is_held_to_the_end_of_the_call(end: Callable[[Deferred[None]], None]) -> None:
    room = InFlight(2)
    call: Deferred[None] = Deferred()

    async def asked() -> None:
        await call

    held = room.hold("a", asked)
    held.addErrback(lambda failure: failure.trap(ValueError))
    assert room.free == 1
    end(call)
    assert room.free == 2


def test_a_call_without_a_place_is_not_made_or_cancelled() -> None:
    room = InFlight(1)
    room.through("a", Deferred())
    made: list[int] = []

    async def asked() -> None:
        made.append(1)

    with pytest.raises(TooManyCalls):
        room.hold("b", asked)
    assert not made
    ended: list[object] = []
    running: Deferred[None] = Deferred(lambda _: ended.append("cancelled"))
    running.addErrback(lambda failure: ended.append(failure.check(CancelledError)))
    with pytest.raises(TooManyCalls):
        room.through("b", running)
    assert ended == ["cancelled", CancelledError]


@given(connections=st.integers(1, 10_000))
def test_new_clients_find_connections(connections: int) -> None:
    bounds = CallLimits.of(connections)
    assert min(bounds.strangers, bounds.tenants, bounds.dependency) >= 1
    if connections >= 8:
        assert bounds.strangers + bounds.tenants <= connections - connections // 8
