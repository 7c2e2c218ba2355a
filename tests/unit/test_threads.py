"""Calls in threads are never abandoned, even if callers are cancelled meanwhile."""

from __future__ import annotations

import ast
import gc
from pathlib import Path
from threading import Event

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import capturedLogs

from bootvol.threads import Shared, Threads, outlast


@ensureDeferred
async def test_results_and_errors(threads: Threads) -> None:
    assert await threads.run(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("times", [1, 3])
def test_a_cancellation_is_raised_after_the_end(fails: bool, times: int) -> None:
    """The same holds for a failing call: a cancelled caller must not mistake the failure for a
    result.
    """
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
    """Each call sees the effects of the calls before, even with several threads."""
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
    """The log stays empty."""
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


@pytest.mark.parametrize("fails", [False, True])
def test_several_wait_for_one_end(fails: bool) -> None:
    """Callers wait before the end, at the end (one of them twice), and afterwards."""
    running: Deferred[int] = Deferred()
    shared = Shared(running)
    said: list[object] = []

    async def wait(name: str, times: int = 1) -> None:
        for _ in range(times):
            try:
                said.append((name, await shared.wait()))
            except OSError as error:
                said.append((name, str(error)))

    before = [Deferred.fromCoroutine(wait("first", 2)), Deferred.fromCoroutine(wait("second"))]
    assert not shared.ended
    running.callback(1) if not fails else running.errback(OSError("broken"))
    assert shared.ended
    after = Deferred.fromCoroutine(wait("third", 2))
    end = "broken" if fails else 1
    assert said == [(name, end) for name in ("first", "first", "second", "third", "third")]
    assert [each.called for each in (*before, after)] == [True] * 3


def test_one_that_stops_waiting_leaves_the_others() -> None:
    shared: Shared[int] = Shared()
    first, second = shared.wait(), shared.wait()
    first.cancel()
    first.addErrback(lambda failure: failure.trap(CancelledError))
    assert not second.called
    shared.finish(2)
    results: list[int] = []
    second.addCallback(results.append)
    assert results == [2]


def test_cancelling_what_is_under_way_reaches_all_who_wait() -> None:
    """A waiting callback may be the one that cancels; this once raised an AssertionError."""
    source: Deferred[int] = Deferred()

    async def read() -> int:
        return await source

    shared = Shared(Deferred.fromCoroutine(read()))
    ended: list[str] = []

    async def reads() -> None:
        try:
            await shared.wait()
        except OSError:
            shared.cancel()
            try:
                await shared.wait()
            except OSError as error:
                ended.append(str(error))

    reading = Deferred.fromCoroutine(reads())
    source.errback(OSError("broken"))
    assert reading.called
    assert ended == ["broken"]


def test_a_failure_that_nobody_waits_for_is_dropped() -> None:
    with capturedLogs() as events:
        shared: Shared[int] = Shared(fail(OSError("broken")))
        del shared
        gc.collect()
    assert not events


def test_no_deferred_that_an_object_keeps_is_awaited() -> None:
    """Two callers could await the same Deferred: :class:`Shared` is for this case."""
    root = Path(__file__).parents[2]
    found = []
    for path in (*(root / "src").rglob("*.py"), *(root / "plugins").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            awaited = node.value if isinstance(node, ast.Await) else None
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "outlast":
                awaited = node.args[0]
            if isinstance(awaited, ast.Attribute):
                found.append(f"{path.relative_to(root)}:{awaited.lineno}")
    assert found == []
