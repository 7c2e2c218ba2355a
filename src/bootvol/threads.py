"""Blocking calls, off the reactor: bounded pools, and groups of calls that can be waited out."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A pool of threads with one purpose and an upper bound.

    All methods but what runs inside :meth:`run` belong to the reactor's thread.

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

    def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Run a blocking call in a thread.

        Cancelling the result gives up waiting; the call itself runs on to its end.  Where that
        matters (a descriptor that must stay open), use a :meth:`group`.
        """
        return cast(
            "Deferred[T]", deferToThreadPool(self._reactor, self._pool, call, *args, **kwargs)
        )

    def group(self) -> CallGroup:
        """Return a new, empty group of calls."""
        return CallGroup(self, self._reactor)


class CallGroup:
    """The calls on one resource.  Close the resource after :meth:`idle`, and no call is hurt."""

    def __init__(self, threads: Threads, reactor: IReactorFromThreads) -> None:
        self._threads = threads
        self._reactor = reactor
        self._running = 0
        self._waiting: list[Deferred[None]] = []

    def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """As :meth:`Threads.run`; :meth:`idle` waits for it even if the result is cancelled."""
        self._running += 1

        def counted() -> T:
            try:
                return call(*args, **kwargs)
            finally:
                self._reactor.callFromThread(self._ended)

        return self._threads.run(counted)

    def idle(self) -> Deferred[None]:
        """Return a Deferred that fires when no call of the group is running or waiting."""
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        self._release()
        return done

    def _ended(self) -> None:
        self._running -= 1
        self._release()

    def _release(self) -> None:
        if self._running:
            return
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)
