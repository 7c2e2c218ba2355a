"""Processes that outlive the daemon, and how it knows them again.

A process is known by its number together with when it was born: a number alone may be another
process's by now.  It is awaited and killed by way of a pidfd, which stays that of the one process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@attrs.frozen
class Process:
    """A process, told from every other one that ever has its number.

    :ivar born: the boot, and the clock ticks from it to the start of the process.
    """

    pid: int
    born: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the process that has a number now, if one does."""
        born = _born(pid)
        return None if born is None else cls(pid, born)

    def runs(self) -> bool:
        """Tell whether it has not ended: whether any thread of it may still have files open."""
        with self._pidfd() as pidfd:
            if pidfd is None:
                return False
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            return not poll.poll(0)

    async def end(self, reactor: Any, seconds: float) -> None:
        """Kill it, and wait until it is gone with all that it had open.  Idempotent.

        :param seconds: how long it may take: the system lets no process go in the midst of I/O.
        :raises TimeoutError: it is still there.
        """
        with self._pidfd() as pidfd:
            if pidfd is None:
                return
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if not await readable(reactor, pidfd, seconds):
                raise TimeoutError(errno.ETIMEDOUT, f"process {self.pid} does not end")

    @contextmanager
    def _pidfd(self) -> Iterator[int | None]:
        """Open it until the block ends; None if nothing is left of it.

        A zombie is no sign of that: it is one as soon as its first thread has ended, while others
        may have files open.  A pidfd is readable only when they all have ended.
        """
        pidfd = None
        if _born(self.pid) == self.born:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(self.pid)
        try:
            # Only now is it certain whose number that is.
            yield pidfd if _born(self.pid) == self.born else None
        finally:
            if pidfd is not None:
                os.close(pidfd)


def readable(reactor: Any, descriptor: int, seconds: float) -> Deferred[bool]:
    """Wait until there is something to read: of a pidfd, the end of its process.

    :returns: fires with True then, with False when so many seconds have gone by.
    """
    waiting: Deferred[bool] = Deferred(lambda _: reactor.removeReader(reader))
    reader = _Reader(reactor, descriptor, waiting)
    reactor.addReader(reader)
    return waiting.addTimeout(seconds, reactor, lambda _, __: False)


@implementer(IReadDescriptor)
class _Reader:
    def __init__(self, reactor: Any, descriptor: int, waiting: Deferred[bool]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._waiting = waiting

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "processes"

    def doRead(self) -> None:
        self._reactor.removeReader(self)
        self._waiting.callback(True)

    def connectionLost(self, reason: Failure) -> None:
        # The other end has gone, with nothing left to read; the reactor has removed this already.
        self._waiting.callback(True)


def _born(pid: int) -> str | None:
    """Return when the process that has a number was born; None if there is none that runs."""
    try:
        # The fields are in proc(5); the second one, a name in brackets, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{fields[19]}"
