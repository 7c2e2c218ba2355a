"""Shortages of the process: descriptors, memory, threads.

Such a shortage passes, and says nothing about the volume, backend or source of the failed task.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from socket import EAI_MEMORY, gaierror
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bootvol.clocks import sleep

#: The missing resource, by the system's error number (errno(3)).
_SHORT: Final = {
    errno.EMFILE: "open files: it has as many as it may (RLIMIT_NOFILE)",
    errno.ENFILE: "open files: the machine has as many as it can",
    errno.ENOMEM: "memory",
    errno.ENOBUFS: "memory for sockets",
}
_NO_THREAD: Final = "can't start new thread"
_THREADS: Final = "threads or processes"
#: Functions of Python and of Twisted that start a process.  EAGAIN means a shortage only there.
_FORKS: Final = frozenset({"_fork", "_execute_child", "_fork_exec"})
#: Seconds until a retry after a shortage.
_PAUSE: Final = 2.0
#: Seconds without a new shortage until the last one counts as over.
_OVER: Final = 15.0


class NoThread(Exception):
    """A program that the daemon started got no thread from the system."""


def short_of(error: BaseException | None) -> str | None:
    """Return the name of the resource that the process lacked when an error occurred.

    :param error: the error.  Its causes and contexts are searched as well.
    :returns: a text for people; None if the process lacked nothing.
    """
    return next((what for each in _causes(error) if (what := _what(each))), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting.append(each.__cause__ or (None if each.__suppress_context__ else each.__context__))
        # Some errors of Twisted contain others: ResponseNeverReceived, for example.
        reasons: object = getattr(each, "reasons", None)
        if isinstance(reasons, list):
            waiting += [one.value for one in reasons if isinstance(one, Failure)]


def _what(error: BaseException) -> str | None:
    if isinstance(error, MemoryError) or (
        isinstance(error, gaierror) and error.errno == EAI_MEMORY
    ):
        return "memory"
    if isinstance(error, NoThread):
        return _THREADS
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return _THREADS
    # Twisted's ConnectError keeps the system's error number in ``osError``.
    number = error.errno if isinstance(error, OSError) else getattr(error, "osError", None)
    if number == errno.EAGAIN and _FORKS.intersection(_functions(error)):
        return _THREADS
    return _SHORT.get(number) if isinstance(number, int) else None


def _functions(error: BaseException) -> Iterator[str]:
    frame = error.__traceback__
    while frame is not None:
        yield frame.tb_frame.f_code.co_name
        frame = frame.tb_next


class Shortage:
    """The pause of work during a shortage.

    The log gets one line when a shortage begins, and one when the shortage ends.

    :param clock: the reactor.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._over: IDelayedCall | None = None

    async def wait(self, what: str) -> None:
        """Wait before a retry.  Log a new shortage.

        :param what: the result of :func:`short_of`.
        """
        if self._over is None or not self._over.active():
            self._log.error("the daemon is short of {what}; work waits", what=what)
            self._over = self._clock.callLater(_OVER, self._tell)
        else:
            self._over.reset(_OVER)
        await sleep(self._clock, _PAUSE)

    def stop(self) -> None:
        """Write no further log line."""
        if self._over is not None and self._over.active():
            self._over.cancel()

    def _tell(self) -> None:
        self._log.info("the daemon has enough of everything again; work continues")
