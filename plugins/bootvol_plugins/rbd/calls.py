"""Calls of Ceph's library, each of which ends: with a result, with an error, or with our patience.

The library's own timeouts bound one operation each; a call is several, and now and then one has
been seen not to return at all.  So calls have threads of their own, which nobody has to wait for,
and a limit.
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
from bootvol.threads import Shared, outlast

T = TypeVar("T")

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: More than ever work at once, also where 64 imports write; what hangs keeps its thread.
_MOST_THREADS: Final = 512
#: So many threads wait for the next call: a new thread for each made writes a sixth slower.
_MOST_IDLE: Final = 16
_log = Logger()


class Disconnected(Exception):
    """The cluster has shut this client out, as a daemon does to one that it takes for dead."""


class GivenUp(Exception):
    """A call has given no sign of life for too long: it may go on, or never end."""


def failed(what: str, code: int) -> BackendFailed | Disconnected:
    """Return what to raise for an error of the library.

    :param what: what failed and where, as the beginning of a sentence.
    :param code: the error's number, as :mod:`errno` has it.
    """
    if code == errno.ETIMEDOUT:
        return BackendFailed(f"{what}: the cluster does not answer in time, or is full.")
    if code == errno.ESHUTDOWN:
        return Disconnected(f"{what}: the cluster has shut this client out.")
    kind = NoSpace if code in _FULL else BackendFailed
    return kind(f"{what}: {os.strerror(code)}.")


@contextmanager
def failures(errors: tuple[type[Exception], ...], what: str) -> Iterator[None]:
    """Turn the library's errors into the contract's.

    :param errors: the roots of the library's errors.
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
    """Threads that blocking calls are made in.  The end of the process does not wait for them."""

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[Callable[[], object]]] = []

    def start(self, work: Callable[[], object]) -> None:
        """Make a call in a thread that is idle, or else in a new one.

        :raises RuntimeError: if the system gives no thread.
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
                _log.failure("a call of Ceph's library failed that nobody waits for")
            if len(self._idle) >= _MOST_IDLE:
                return
            self._idle.append(calls)


_THREADS: Final = DetachedThreads()


class _Pending(Generic[T]):
    """What is waited for, until it comes or there was no sign of life for too long.

    :ivar result: fires with it.
    """

    def __init__(self, reactor: Any, patience: float, what: str) -> None:
        self.result: Shared[T] = Shared()
        self._reactor = reactor
        self._patience = patience
        self._what = what
        self._heard = reactor.seconds()
        self._look = reactor.callLater(patience, self._lose_patience)

    def beat(self, *_: object) -> int:
        """Take a sign of life, from any thread.  The library demands a number back."""
        self._heard = self._reactor.seconds()
        return 0

    def end(self, result: T | Failure) -> bool:
        """Take the result, if it is still waited for; return whether it is."""
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
    """Brings what the library does in its threads, and in ours, back to the reactor.

    All methods belong to the reactor's thread.

    :param reactor: provides IReactorTime and IReactorFromThreads.
    :param patience: seconds that a call may give no sign of life.
    """

    def __init__(self, reactor: Any, patience: float) -> None:
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

        Cancelled, it raises that only when the call has ended, or its time.

        :param what: see :func:`failed`.
        :param call: gets a function to be called as a sign of life: an ``on_progress`` of the
            library.
        :param undo: blocks too; takes back a result that nobody waits for any more.
        :raises GivenUp: there was no sign of life for too long.
        :raises BackendFailed: so many calls hang that there is no thread for another.
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
        """Return what a thread is about to be begun for, if there may be one more."""
        if self._threads >= _MOST_THREADS:
            raise BackendFailed(f"{what}: {self._threads} calls of Ceph's library are under way.")
        return _Pending(self._reactor, self._patience, what)

    def _begin(self, call: Callable[[], T], deliver: Callable[[T | Failure], object]) -> None:
        """Make a blocking call in a thread of its own.

        :param deliver: gets what it returns or raises, in the reactor's thread.
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
            # There is no thread.
            self._threads -= 1
            raise
