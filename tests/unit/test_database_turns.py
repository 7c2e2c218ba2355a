"""The queue for the database: tenants take turns, and the daemon's own work waits for few."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context

from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from bootvol.fair_share import Turns
from bootvol.store.asker import ASKER
from bootvol.worker.lanes import Lane
from bootvol.worker.shares import Limit, Rules, Shares
from tests.daemons import pause

ASKERS = ("a", "b", "c", None)


@settings(max_examples=60)
@given(size=st.integers(1, 5), tenants=st.lists(st.sampled_from("abc"), max_size=40))
def test_a_newcomer_waits_for_one_turn_of_each_other_tenant(size: int, tenants: list[str]) -> None:
    """A new tenant waits for one call of each other tenant, not for all their calls.

    Break: `src/bootvol/fair_share.py`: `self._lines[asker] = line` ->
    `self._lines = {asker: line, **self._lines}`
    """
    turns, begun = Turns(size), []

    def ask(asker: str) -> None:
        turns.acquire(asker).addCallback(lambda _: begun.append(asker))

    for tenant in tenants:
        ask(tenant)
    ask("newcomer")
    ended = 0
    while "newcomer" not in begun:
        turns.release(begun[ended])
        ended += 1
    # One more call had begun before.
    assert ended <= len(set(tenants)) + 1


@settings(max_examples=60)
@given(size=st.integers(1, 5), data=st.data())
def test_places_are_used_and_no_tenant_holds_the_last(size: int, data: st.DataObject) -> None:
    """No place is lost, and none stays empty: after any sequence of arrivals, ends and
    cancellations.

    Break: `src/bootvol/fair_share.py`: `self._held[asker] < self._most` -> `True`
    """
    turns = Turns(size)
    held: list[str | None] = []
    waiting: list[tuple[str | None, Deferred[None]]] = []

    def ask(asker: str | None) -> None:
        turn = turns.acquire(asker)
        waiting.append((asker, turn))
        turn.addCallbacks(lambda _: begin(asker, turn), lambda gone: gone.trap(CancelledError))

    def begin(asker: str | None, turn: Deferred[None]) -> None:
        held.append(asker)
        waiting[:] = [each for each in waiting if each[1] is not turn]

    for _ in range(data.draw(st.integers(0, 40))):
        doing = data.draw(st.sampled_from(("ask", "end", "leave")))
        if doing == "ask":
            ask(data.draw(st.sampled_from(ASKERS)))
        elif doing == "end" and held:
            turns.release(held.pop(data.draw(st.integers(0, len(held) - 1))))
        elif doing == "leave" and waiting:
            waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))[1].cancel()
        waiting = [each for each in waiting if not each[1].called]
        for tenant in "abc":
            assert held.count(tenant) <= max(1, size - 1)
        assert len(held) <= size
        if len(held) < size:
            # If a place is free, every waiting tenant already holds its maximum.
            assert all(held.count(asker) == size - 1 for asker, _ in waiting)
            assert None not in [asker for asker, _ in waiting]


@ensureDeferred
async def test_work_that_a_tenants_call_wakes_is_the_daemons_own() -> None:
    """A lane woken by a tenant's call looks for work as the daemon.

    Break: `src/bootvol/worker/lanes.py`: `as_daemon(Deferred.fromCoroutine, self._look())` ->
    `Deferred.fromCoroutine(self._look())`
    """
    askers: list[str | None] = []

    async def claim(_shares: Shares) -> tuple[None, tuple[()]]:
        await succeed(None)
        askers.append(ASKER.get())
        return None, ()

    rules = Rules(lambda _: [Limit((None,), 1)])
    lane = Lane(rules, claim, lambda: None, lambda: True, Clock())

    def call(wake: Callable[[], None]) -> None:
        ASKER.set("tenant")
        wake()

    copy_context().run(call, lane.wake)
    await lane.idle()
    await pause(0)
    assert askers == [None]
