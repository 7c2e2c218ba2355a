"""Blocking calls outside the reactor, in bounded pools of threads, and never abandoned.

A thread cannot be cancelled.  So a coroutine that waits for a thread is told of its own
cancellation only after the thread has ended.  After that, closing a descriptor or reusing a buffer
is safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Lock, Thread
from typing import Final, Generic, ParamSpec, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from bootvol.clocks import sleep
from bootvol.reactors import IReactor
from bootvol.shortage import short_of

#: Seconds until the next try to start a thread.
_AGAIN: Final = 0.1

_log = Logger()

P = ParamSpec("P")
T = TypeVar("T")


async def outlast(running: Deferred[T], undo: Callable[[T], Deferred[object]] | None = None) -> T:
    """Await ``running`` to its end.  A cancellation meanwhile is raised only after that.

    :param undo: undoes the result of ``running`` if a cancellation drops the result.
    :returns: the result of ``running``.
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
    """The call has not ended in time.  Its result will be dropped."""


async def at_most(clock: IReactorTime, seconds: float, running: Deferred[T]) -> T:
    """Await ``running``, but no longer than ``seconds``.

    A thread ignores a cancellation, but this function returns in any case.  Later results of
    ``running`` are dropped.  A cancellation is passed on to ``running`` and raised at once.

    :returns: the result of ``running``.
    :raises StillRunning: if ``running`` has not ended in time.  ``running`` goes on.
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
    """Make a blocking call in a thread of its own, and wait at most ``seconds``.

    Blocks: use this function only before the reactor runs.

    :returns: the result of the call.  An exception of the call is raised.
    :raises StillRunning: if the call has not returned in time.  The call goes on, and its result is
        dropped.
    """
    results: list[T | Failure] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException:
            results.append(Failure())

    # A daemon thread: a call that never returns must not keep the process alive.
    thread = Thread(target=work, name="bootvol-within", daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        raise StillRunning
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


class Shared(Generic[T]):
    """The end of a running call, which any number of coroutines may await, any number of times.

    A Deferred serves only one coroutine.  A second await of the same Deferred gets None, or an
    AssertionError from Twisted.  So an object that keeps a Deferred wraps the Deferred in this
    class.

    A failure without a waiter is dropped.  Call all methods from the reactor thread only.

    :param running: Deferred of the running call, owned by this object from now on.  Without a
        Deferred, a call of :meth:`finish` sets the result.
    """

    def __init__(self, running: Deferred[T] | None = None) -> None:
        self._running = running
        self._results: list[T | Failure] = []
        self._waiting: list[Deferred[T]] = []
        if running is not None:
            running.addBoth(self.finish)

    @property
    def ended(self) -> bool:
        """True once the call has ended."""
        return bool(self._results)

    def wait(self) -> Deferred[T]:
        """Return a new Deferred for the result.  Cancelling this Deferred cancels nothing else."""
        if self._results:
            waiting: Deferred[T] = Deferred()
            waiting.callback(self._results[0])
        else:
            waiting = Deferred(self._waiting.remove)
            self._waiting.append(waiting)
        return waiting

    def cancel(self) -> None:
        """Cancel the running call.  Waiters get the result when the call has ended."""
        if self._running is not None:
            self._running.cancel()

    def finish(self, result: T | Failure) -> None:
        """Set the result or failure for all waiters.  Call once."""
        self._results.append(result)
        # One by one: a resumed coroutine may cancel another waiting one.
        while self._waiting:
            self._waiting.pop(0).callback(result)


class Threads:
    """A bounded pool of threads for one purpose.

    Call all methods from the reactor thread only.

    :param reactor: delivers the results.
    :param name: name of the threads, for debuggers.
    :param size: maximum number of threads.  Further calls wait in a queue.
    """

    def __init__(self, reactor: IReactor, name: str, size: int) -> None:
        self._reactor = reactor
        self._name = name
        self._short = False
        self._pool = ThreadPool(minthreads=0, maxthreads=size, name=name)
        # Daemon threads: a call that never returns must not keep the process alive.
        self._pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]

    def start(self) -> None:
        """Start the pool.  Call this method after any fork: threads do not survive a fork."""
        self._pool.start()

    def stop(self, patience: float | None = None) -> bool:
        """Wait for the running calls, and end the threads.  Blocks.

        :param patience: longest wait in seconds; None for no limit.
        :returns: whether all threads have ended.  The remaining threads end with their calls, or
            with the process.
        """
        if patience is None:
            self._pool.stop()
            return True
        stopping = Thread(target=self._pool.stop, name=f"{self._name}-stop", daemon=True)
        stopping.start()
        stopping.join(patience)
        return not stopping.is_alive()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread.  Return or raise the result of the call.

        A cancelled coroutine raises CancelledError only after the call has ended.
        """
        return await outlast(self._defer(call, *args, **kwargs))

    async def obtain(
        self, undo: Callable[[T], object], call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a call that opens something, as :meth:`run` does.

        :param undo: closes the opened object if the coroutine was cancelled meanwhile; also blocks.
        """
        return await outlast(
            self._defer(call, *args, **kwargs), lambda opened: self._defer(undo, opened)
        )

    def in_order(self) -> InOrder:
        """Return an object that runs calls in these threads, one at a time."""
        return InOrder(self._reactor, self)

    def _defer(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        try:
            running = deferToThreadPool(self._reactor, self._pool, call, *args, **kwargs)
        except RuntimeError as error:
            if short_of(error) is None:
                raise
            # The pool has kept the thread that did not start, and ``stop`` would wait for its end.
            self._pool.threads = [each for each in self._pool.threads if each.ident is not None]
            # The call may release a resource, so retry and do not give up.
            if not self._short:
                self._short = True
                _log.error("no thread can be started for {name}; calls wait", name=self._name)
            return sleep(self._reactor, _AGAIN).addCallback(
                lambda _: self._defer(call, *args, **kwargs)
            )
        if self._short:
            self._short = False
            _log.info("threads can be started for {name} again", name=self._name)
        return running


class InOrder:
    """A queue of calls in a thread.  The thread does not wait for the reactor between two calls.

    If the reactor began each call after the end of the one before, the thread would be idle
    meanwhile: for a tenth to a third of the time with calls of a millisecond.

    If a call raises, the calls behind it are not made, and their Deferreds never fire.

    Call :meth:`begin` and :meth:`stop` from the reactor thread only.
    """

    def __init__(self, reactor: IReactorFromThreads, threads: Threads) -> None:
        self._reactor = reactor
        self._threads = threads
        self._lock = Lock()
        #: Make one call each, and return whether the next one may run.
        self._calls: deque[Callable[[], bool]] = deque()
        self._busy = False
        self._work_ended: Shared[None] | None = None
        self._drop_failure: Callable[[], object] | None = None

    def begin(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Queue a blocking call.  The Deferred fires with the result of the call."""
        result: Deferred[T] = Deferred()
        with self._lock:
            self._calls.append(partial(self._make, partial(call, *args, **kwargs), result))
            busy, self._busy = self._busy, True
        if not busy:
            self._work_ended = Shared(Deferred.fromCoroutine(self._threads.run(self._work)))
        return result

    async def stop(self) -> None:
        """Drop the queued calls, and wait for the running one to end."""
        with self._lock:
            self._busy = True
            self._calls.clear()
        if self._work_ended is not None:
            await outlast(self._work_ended.wait())
        if self._drop_failure is not None:
            # A waiter has received the failure by now.
            self._drop_failure()

    # --- in the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while (call := self._next()) is not None:
            # After a failure stay busy for ever: no further call may run.
            if not call():
                return

    def _make(self, call: Callable[[], T], result: Deferred[T]) -> bool:
        try:
            value = call()
        except Exception:
            self._drop_failure = partial(result.addErrback, lambda _failure: None)
            self._reactor.callFromThread(result.errback, Failure())
            return False
        self._reactor.callFromThread(result.callback, value)
        return True

    def _next(self) -> Callable[[], bool] | None:
        with self._lock:
            if self._calls:
                return self._calls.popleft()
            self._busy = False
            return None
