"""Calls in threads are never abandoned, whatever is cancelled meanwhile."""

from __future__ import annotations

import gc
from threading import Event

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs

from bootvol.threads import Threads, outlast


@ensureDeferred
async def test_results_and_errors(threads: Threads) -> None:
    assert await threads.run(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("times", [1, 3])
def test_a_cancellation_is_raised_after_the_end(fails: bool, times: int) -> None:
    """Also when the call fails: who was cancelled must not take that for a reason to go on."""
    running: Deferred[int] = Deferred()
    waiting = Deferred.fromCoroutine(outlast(running))
    ended: list[object] = []
    waiting.addErrback(lambda failure: ended.append(failure.type))
    for _ in range(times):
        waiting.cancel()
    assert ended == []
    if fails:
        running.errback(OSError("broken"))
    else:
        running.callback(1)
    assert ended == [CancelledError]


@ensureDeferred
async def test_what_nobody_takes_is_undone(threads: Threads) -> None:
    go = Event()
    undone: list[str] = []

    def opens() -> str:
        go.wait()
        return "opened"

    opening = Deferred.fromCoroutine(threads.obtain(undone.append, opens))
    opening.cancel()
    go.set()
    with pytest.raises(CancelledError):
        await opening
    assert undone == ["opened"]
    assert await threads.obtain(undone.append, lambda: "kept") == "kept"
    assert undone == ["opened"]


@ensureDeferred
async def test_calls_in_order(threads: Threads) -> None:
    """Each finds the traces of those before it, though more than one thread is there."""
    line = threads.in_order()
    made: list[int] = []

    def call(number: int) -> list[int]:
        made.append(number)
        return list(made)

    results = [line.begin(call, number) for number in range(100)]
    for number, result in enumerate(results):
        assert await result == list(range(number + 1))
    assert await line.begin(call, 100) == list(range(101))
    await line.stop()


@ensureDeferred
async def test_nothing_follows_a_failure(threads: Threads) -> None:
    line = threads.in_order()
    go = Event()
    made: list[str] = []
    line.begin(go.wait)
    failing = line.begin(lambda: 1 // 0)
    line.begin(made.append, "behind it")
    go.set()
    with pytest.raises(ZeroDivisionError):
        await failing
    line.begin(made.append, "after it")
    await line.stop()
    assert made == []


@ensureDeferred
async def test_a_failure_that_nobody_awaits_is_dropped(threads: Threads) -> None:
    """Nothing of it comes into the log."""
    line = threads.in_order()
    begun = Event()

    def fails() -> None:
        begun.set()
        raise ZeroDivisionError

    line.begin(fails)
    await threads.run(begun.wait)
    with capturedLogs() as logged:
        await line.stop()
        del line
        gc.collect()
    assert logged == []


@ensureDeferred
async def test_stopping_waits_for_the_call_under_way_only(threads: Threads) -> None:
    line = threads.in_order()
    begun, go = Event(), Event()
    made: list[str] = []

    def slow() -> None:
        begun.set()
        go.wait()
        made.append("under way")

    line.begin(slow)
    line.begin(made.append, "behind it")
    await threads.run(begun.wait)
    stopping = Deferred.fromCoroutine(line.stop())
    assert not stopping.called
    go.set()
    await stopping
    assert made == ["under way"]
