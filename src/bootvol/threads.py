"""Blocking calls, off the reactor: bounded pools of threads, and calls that are never abandoned.

A thread cannot be cancelled.  So a coroutine that waits for one hears of its own cancellation only
when the thread has ended: whoever closes a descriptor or gives a buffer back after that hurts
nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

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


class Threads:
    """A pool of threads with one purpose and an upper bound.

    All methods belong to the reactor's thread.

    :param reactor: brings results back.
    :param name: of the threads, for debuggers.
    :param size: the most threads at once; more calls wait in line.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str, size: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=size, name=name)

    def start(self) -> None:
        """Let calls run.  Call it after any fork: threads do not survive one."""
        self._pool.start()

    def stop(self) -> None:
        """Wait for the calls under way and end the threads."""
        self._pool.stop()

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

    def _defer(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return cast(
            "Deferred[T]", deferToThreadPool(self._reactor, self._pool, call, *args, **kwargs)
        )
