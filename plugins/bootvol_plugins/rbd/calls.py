"""Calls of Ceph's library, each with an end: a result, an error or a timeout.

The library's own timeouts bound one operation each. A call consists of several operations, and
now and then a call never returned at all. So calls run in threads of their own, which nothing has
to wait for, and have a time limit.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from bootvol.errors import BackendFailed, NoSpace
from bootvol.reactors import IReactor
from bootvol.threads import Shared, outlast

T = TypeVar("T")

#: The cluster or the pool's quota is full.
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: More threads than ever work at once, even while 64 imports write. A hanging call keeps its own.
_MOST_THREADS: Final = 512
#: The most idle threads to keep for later calls. New threads for each call made writes a sixth
#: slower.
_MOST_IDLE: Final = 16
_log = Logger()


class Disconnected(Exception):
    """The cluster has shut this client out, as happens to a client that seems dead."""


class GivenUp(Exception):
    """A call has shown no progress for too long. The call may still end, or never end."""


def failed(what: str, code: int) -> BackendFailed | Disconnected:
    """Return the exception for an error of the library.

    :param what: the failed action and its object, as the beginning of a sentence.
    :param code: the error's number in :mod:`errno`.
    """
    if code == errno.ETIMEDOUT:
        return BackendFailed(f"{what}: the cluster does not answer in time, or is full.")
    if code == errno.ESHUTDOWN:
        return Disconnected(f"{what}: the cluster has blocked this client.")
    kind = NoSpace if code in FULL else BackendFailed
    return kind(f"{what}: {os.strerror(code)}.")


@contextmanager
def failures(errors: tuple[type[Exception], ...], what: str) -> Iterator[None]:
    """Translate the library's errors into the contract's.

    :param errors: the base classes of the library's errors.
    :param what: see :func:`failed`.
    """
    try:
        yield
    except errors as error:
        code = getattr(error, "errno", None)
        if code is None:
            raise BackendFailed(f"{what}: {error}.") from error
        raise failed(what, abs(code)) from error


class DetachedThreads:
    """Threads for blocking calls. The process exits without waiting for the threads."""

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[Callable[[], object]]] = []

    def start(self, work: Callable[[], object]) -> None:
        """Make a call in an idle thread, or else in a new one.

        :raises RuntimeError: if the system refuses a new thread.
        """
        try:
            calls = self._idle.pop()
        except IndexError:
            calls = SimpleQueue()
            Thread(target=self._serve, args=(calls,), name="bootvol-rbd", daemon=True).start()
        calls.put(work)

    def _serve(self, calls: SimpleQueue[Callable[[], object]]) -> None:
        while True:
            try:
                calls.get()()
            except BaseException:
                _log.failure("a call of Ceph's library failed without a waiting caller")
            if len(self._idle) >= _MOST_IDLE:
                return
            self._idle.append(calls)


_THREADS: Final = DetachedThreads()


class _Pending(Generic[T]):
    """An awaited result with a timeout, which each sign of progress extends.

    :ivar result: fires with the result.
    """

    def __init__(self, reactor: IReactor, patience: float, what: str) -> None:
        self.result: Shared[T] = Shared()
        self._reactor = reactor
        self._patience = patience
        self._what = what
        self._heard = reactor.seconds()
        self._look = reactor.callLater(patience, self._lose_patience)

    def beat(self, *_: object) -> int:
        """Record progress; return 0, as the library demands. Call from any thread."""
        self._heard = self._reactor.seconds()
        return 0

    def end(self, result: T | Failure) -> bool:
        """Set the result; return False if the timeout came first."""
        if not self._look.active():
            return False
        self._look.cancel()
        self.result.finish(result)
        return True

    def _lose_patience(self) -> None:
        left = self._heard + self._patience - self._reactor.seconds()
        if left > 0:
            self._look = self._reactor.callLater(left, self._lose_patience)
        else:
            _log.error("{what}: Ceph's library does not return", what=self._what)
            error = GivenUp(f"{self._what}: the cluster does not answer.")
            self.result.finish(Failure(error))


class Calls:
    """Runs calls of Ceph's library in threads, and returns their results to the reactor.

    Call all methods from the reactor thread only.

    :param reactor: provides IReactorTime and IReactorFromThreads.
    :param patience: seconds that a call may go on without a sign of progress.
    """

    def __init__(self, reactor: IReactor, patience: float) -> None:
        self._reactor = reactor
        self._patience = patience
        self._threads = 0

    async def run(
        self,
        what: str,
        call: Callable[[Callable[..., int]], T],
        undo: Callable[[T], object] = lambda _: None,
    ) -> T:
        """Run a blocking call in a thread of its own.

        If cancelled, raise the cancellation only after the call's end or timeout.

        :param what: see :func:`failed`.
        :param call: takes a function that records progress, for the library's ``on_progress``.
        :param undo: takes back a result that nobody awaits any more. May block.
        :raises GivenUp: if the call shows no progress for too long.
        :raises BackendFailed: if so many calls hang that no further thread is allowed.
        """
        pending = self._pending(what)

        def deliver(result: T | Failure) -> None:
            if not pending.end(result) and not isinstance(result, Failure):
                _THREADS.start(lambda: undo(result))

        def unwanted(result: T) -> Deferred[object]:
            return Deferred.fromCoroutine(self.run(what, lambda _: undo(result)))

        self._begin(lambda: call(pending.beat), deliver)
        return await outlast(pending.result.wait(), unwanted)

    def _pending(self, what: str) -> _Pending[Any]:
        """Return the result object of a new call.

        :raises BackendFailed: if no further thread is allowed.
        """
        if self._threads >= _MOST_THREADS:
            raise BackendFailed(f"{what}: {self._threads} calls of Ceph's library are under way.")
        return _Pending(self._reactor, self._patience, what)

    def _begin(self, call: Callable[[], T], deliver: Callable[[T | Failure], object]) -> None:
        """Make a blocking call in a thread of its own.

        :param deliver: takes the call's result or failure, in the reactor thread.
        """
        self._threads += 1

        def work() -> None:
            result: T | Failure
            try:
                result = call()
            except BaseException:
                result = Failure()
            self._reactor.callFromThread(ended, result)

        def ended(result: T | Failure) -> None:
            self._threads -= 1
            deliver(result)

        try:
            _THREADS.start(work)
        except RuntimeError:
            # The system refused a thread.
            self._threads -= 1
            raise
