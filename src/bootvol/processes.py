"""Processes that outlive the daemon.  The daemon recognizes such processes after a restart.

The number and the time of birth together identify a process: another process may have the same
number by now.  A pidfd, which always belongs to one process, serves to await and to kill a process.
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

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from bootvol.reactors import IReactor


@attrs.frozen
class Process:
    """A process, distinct from all other processes with the same number.

    :ivar born: the id of the boot, and the clock ticks from the boot to the start of the process.
    """

    pid: int
    born: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Return the process that has a number now; None if no process has the number."""
        born = _born(pid)
        return None if born is None else cls(pid, born)

    def runs(self) -> bool:
        """Return whether the process runs: whether any of its threads may still have files open."""
        with self._pidfd() as pidfd:
            if pidfd is None:
                return False
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            return not poll.poll(0)

    async def end(self, reactor: IReactor, seconds: float) -> None:
        """Kill the process, and wait until the process and its open files are gone.  Idempotent.

        :param seconds: timeout in seconds: the system ends no process in the middle of I/O.
        :raises TimeoutError: if the process has not ended in time.
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
        """Open a pidfd of the process until the block ends; None if nothing is left of the process.

        The state of a zombie does not prove the end: a process is a zombie as soon as its first
        thread has ended, while other threads may have files open.  A pidfd is readable only when
        all threads have ended.
        """
        pidfd = None
        if _born(self.pid) == self.born:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(self.pid)
        try:
            # Check again: only after the open, the owner of the number is certain.
            yield pidfd if _born(self.pid) == self.born else None
        finally:
            if pidfd is not None:
                os.close(pidfd)


def readable(reactor: IReactor, descriptor: int, seconds: float) -> Deferred[bool]:
    """Wait until a descriptor is readable.  A pidfd is readable when its process has ended.

    :param seconds: timeout in seconds.
    :returns: a Deferred that fires with True when readable, and with False after the timeout.
    """
    waiting: Deferred[bool] = Deferred(lambda _: reactor.removeReader(reader))
    reader = _Reader(reactor, descriptor, waiting)
    reactor.addReader(reader)
    return waiting.addTimeout(seconds, reactor, lambda _, __: False)


@implementer(IReadDescriptor)
class _Reader:
    def __init__(self, reactor: IReactor, descriptor: int, waiting: Deferred[bool]) -> None:
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
        # The other end is gone, with nothing left to read.  The reactor has removed this reader.
        self._waiting.callback(True)


def _born(pid: int) -> str | None:
    """Return the birth of the process with a number; None if no such process runs."""
    try:
        # proc(5) lists the fields.  The second field, a name in brackets, may contain any text.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{fields[19]}"
