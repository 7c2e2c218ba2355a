"""Blocking calls, off the reactor: bounded pools of threads, and calls that are never abandoned.

A thread cannot be cancelled.  So a coroutine that waits for one hears of its own cancellation only
when the thread has ended: whoever closes a descriptor or gives a buffer back after that hurts
nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Lock, Thread
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from bootvol.shortage import short_of

#: Seconds after which it is tried again to start a thread.
_AGAIN: Final = 0.1

_log = Logger()

P = ParamSpec("P")
T = TypeVar("T")


async def outlast(running: Deferred[T], undo: Callable[[T], Deferred[Any]] | None = None) -> T:
    """Await ``running`` to its end; a cancellation meanwhile is raised only after that.

    :param undo: what is done with a result that nobody will take because of a cancellation.
    :returns: what ``running`` results in.
    """
    results: list[T | Failure] = []
    waiting: Deferred[None] = Deferred()
    cancelled: CancelledError | None = None

    def ended(result: T | Failure) -> None:
        results.append(result)
        if not waiting.called:
            waiting.callback(None)

    running.addBoth(ended)
    while not results:
        if waiting.called:
            waiting = Deferred()
        try:
            await waiting
        except CancelledError as error:
            cancelled = error
    (result,) = results
    if isinstance(result, Failure):
        if cancelled is not None:
            raise cancelled from result.value
        result.raiseException()
    if cancelled is not None:
        if undo is not None:
            await outlast(undo(result))
        raise cancelled
    return result


class StillRunning(Exception):
    """What was waited for has not ended in time; nothing waits for its result any more."""


async def at_most(clock: IReactorTime, seconds: float, running: Deferred[T]) -> T:
    """Await ``running``, but no longer than so many seconds.

    Unlike a cancellation, which a thread cannot hear, this returns in any case.  What ``running``
    results in later is dropped.  A cancellation is passed on to ``running`` and raised at once.

    :returns: what ``running`` results in.
    :raises StillRunning: ``running`` has not ended by then; it goes on.
    """
    waiting: Deferred[T] = Deferred(lambda _: running.cancel())

    def ended(result: T | Failure) -> None:
        if not waiting.called:
            waiting.callback(cast("T", result))

    def late() -> None:
        waiting.errback(StillRunning())

    timer = clock.callLater(seconds, late)
    running.addBoth(ended)
    try:
        return await waiting
    finally:
        if timer.active():
            timer.cancel()


def within(seconds: float, call: Callable[[], T]) -> T:
    """Make a blocking call in a thread of its own, and wait for so many seconds at most.

    Blocks: for what is done before the reactor runs.

    :returns: what the call returns; what the call raises is raised.
    :raises StillRunning: the call has not returned by then.  It goes on, and its result is dropped.
    """
    results: list[T | Failure] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException:
            results.append(Failure())

    # A call that never returns must not keep the process alive.
    thread = Thread(target=work, name="bootvol-within", daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        raise StillRunning
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


class Shared(Generic[T]):
    """The end of something under way, which several may await, each as often as they like.

    A Deferred serves one coroutine alone: what a second one, or the same one once more, finds in a
    Deferred is None, or an AssertionError of Twisted's.  So a Deferred that an object keeps is
    awaited through this class.

    A failure that nobody waits for is dropped.  All methods belong to the reactor's thread.

    :param running: what brings the end; this object's own from now on.  Without one,
        :meth:`finish` brings the end.
    """

    def __init__(self, running: Deferred[T] | None = None) -> None:
        self._running = running
        self._results: list[T | Failure] = []
        self._waiting: list[Deferred[T]] = []
        if running is not None:
            running.addBoth(self.finish)

    @property
    def ended(self) -> bool:
        """Whether the end has come."""
        return bool(self._results)

    def wait(self) -> Deferred[T]:
        """Return a new Deferred for the end.  Cancelling the new Deferred cancels nothing else."""
        if self._results:
            waiting: Deferred[T] = Deferred()
            waiting.callback(self._results[0])
        else:
            waiting = Deferred(self._waiting.remove)
            self._waiting.append(waiting)
        return waiting

    def cancel(self) -> None:
        """Cancel what is under way; the end comes when that has ended."""
        if self._running is not None:
            self._running.cancel()

    def finish(self, result: T | Failure) -> None:
        """Bring the end, once: the result that all get, or the failure that is raised."""
        self._results.append(result)
        # One by one: a coroutine that goes on may cancel another one that waits.
        while self._waiting:
            self._waiting.pop(0).callback(result)


class Threads:
    """A pool of threads with one purpose and an upper bound.

    All methods belong to the reactor's thread.

    :param reactor: brings results back.
    :param name: of the threads, for debuggers.
    :param size: the most threads at once; more calls wait in line.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, size: int) -> None:
        self._reactor = reactor
        self._name = name
        self._short = False
        self._pool = ThreadPool(minthreads=0, maxthreads=size, name=name)
        # A thread whose call never returns must not keep the process alive.
        self._pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]

    def start(self) -> None:
        """Let calls run.  Call it after any fork: threads do not survive one."""
        self._pool.start()

    def stop(self, patience: float | None = None) -> bool:
        """Wait for the calls under way and end the threads.  Blocks.

        :param patience: seconds to wait at most; None waits for as long as the calls take.
        :returns: whether all threads have ended.  Those that have not are left to end with their
            calls, or with the process.
        """
        if patience is None:
            self._pool.stop()
            return True
        stopping = Thread(target=self._pool.stop, name=f"{self._name}-stop", daemon=True)
        stopping.start()
        stopping.join(patience)
        return not stopping.is_alive()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread, and return or raise what it does.

        Cancelled, it raises that only when the call has ended.
        """
        return await outlast(self._defer(call, *args, **kwargs))

    async def obtain(
        self, undo: Callable[[T], object], call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As :meth:`run`, for a call that opens something.

        :param undo: blocks too; closes what was opened, if by then nobody wants it any more.
        """
        return await outlast(
            self._defer(call, *args, **kwargs), lambda opened: self._defer(undo, opened)
        )

    def in_order(self) -> InOrder:
        """Return what makes calls in these threads, never two of its own at once."""
        return InOrder(self._reactor, self)

    def _defer(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        try:
            running = deferToThreadPool(self._reactor, self._pool, call, *args, **kwargs)
        except RuntimeError as error:
            if short_of(error) is None:
                raise
            # The pool keeps the thread that was not started, and would wait for its end.
            self._pool.threads = [each for each in self._pool.threads if each.ident is not None]
            # The call may be what gives something back, so it is not given up.
            if not self._short:
                self._short = True
                _log.error("no thread can be started for {name}; calls wait", name=self._name)
            waiting: Any = deferLater(cast("IReactorTime", self._reactor), _AGAIN, lambda: None)
            waiting.addCallback(lambda _: self._defer(call, *args, **kwargs))
            return cast("Deferred[T]", waiting)
        if self._short:
            self._short = False
            _log.info("threads can be started for {name} again", name=self._name)
        return running


class InOrder:
    """Calls in a thread, one after the other, without a look at the reactor in between.

    Were each begun when the reactor has heard of the end of the one before, the thread would idle
    meanwhile: for a tenth to a third of the time where a call takes a millisecond.

    When a call raises, those behind it are not made; their results never come.

    :meth:`begin` and :meth:`stop` belong to the reactor's thread.
    """

    def __init__(self, reactor: IReactorFromThreads, threads: Threads) -> None:
        self._reactor = reactor
        self._threads = threads
        self._lock = Lock()
        self._calls: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()
        self._busy = False
        self._work_ended: Shared[None] | None = None
        self._failed: Deferred[Any] | None = None

    def begin(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Make a blocking call when those before it have ended; results in what it does."""
        result: Deferred[T] = Deferred()
        with self._lock:
            self._calls.append((partial(call, *args, **kwargs), result))
            busy, self._busy = self._busy, True
        if not busy:
            self._work_ended = Shared(Deferred.fromCoroutine(self._threads.run(self._work)))
        return result

    async def stop(self) -> None:
        """Make no more calls, and return when the one under way has ended."""
        with self._lock:
            self._busy = True
            self._calls.clear()
        if self._work_ended is not None:
            await outlast(self._work_ended.wait())
        if self._failed is not None:
            # Who awaits it has heard of it by now; else it is nobody's concern any more.
            self._failed.addErrback(lambda _failure: None)

    # --- in the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while (next_one := self._next()) is not None:
            call, result = next_one
            try:
                value = call()
            except Exception:
                # Still busy, and so for ever: nothing follows.
                self._failed = result
                self._reactor.callFromThread(result.errback, Failure())
                return
            self._reactor.callFromThread(result.callback, value)

    def _next(self) -> tuple[Callable[[], Any], Deferred[Any]] | None:
        with self._lock:
            if self._calls:
                return self._calls.popleft()
            self._busy = False
            return None
