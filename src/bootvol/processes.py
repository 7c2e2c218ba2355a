"""Processes that the daemon starts, and processes that outlive the daemon.

:func:`spawn` starts a :class:`Child`.  A child that outlives the daemon is a :class:`Process` after
a restart: the number and the time of birth together identify a process, since another process may
have the same number by now.  A pidfd, which always belongs to one process, serves to await and to
kill a process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar, cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport, IPushProducer, IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from bootvol.reactors import IReactor
from bootvol.shortage import NoThread
from bootvol.threads import Shared

#: Descriptors for the start of a process: both ends of its pipes, and one to list the descriptors.
_OF_A_PROCESS: Final = 16
#: Most bytes kept of each output of a child by default.
_KEPT: Final = 1024 * 1024

#: QEMU's message when the system gives no thread (util/qemu-thread-posix.c).
_NO_THREAD: Final = "qemu_thread_create: Resource temporarily unavailable"
#: Clock ticks in a second of CPU time.
_TICKS: Final = os.sysconf("SC_CLK_TCK")

ChildT = TypeVar("ChildT", bound="Child")


class Child(ProcessProtocol):
    """A process that the daemon has started by :func:`spawn`.

    :param kept: most bytes to keep of the standard output, and of the standard error.  Further
        bytes are dropped.
    :ivar ended: fires when the process has ended and all its output has come: with the exit code,
        or with the negative number of a signal.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self.ended: Shared[int] = Shared()
        self._kept = kept
        self._out = b""
        self._err = b""

    @property
    def process(self) -> IProcessTransport:
        """The process, once started."""
        return cast("IProcessTransport", self.transport)

    @property
    def pid(self) -> int | None:
        """The process id; None if the process has ended."""
        number: int | None = self.process.pid
        return number

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of all threads of the process so far; 0 for a process that has ended."""
        try:
            status = Path(f"/proc/{self.pid}/stat").read_text(errors="replace")
        except OSError:
            return 0.0
        # proc_pid_stat(5): the fields 14 and 15, counted from the name in brackets, the field 2.
        fields = status.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def out(self) -> str:
        """The kept standard output so far."""
        return self._out.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        """The kept standard error so far."""
        return self._err.decode("utf-8", "replace")

    def outReceived(self, data: bytes) -> None:
        """Keep standard output, up to the limit."""
        self._out += data[: self._kept - len(self._out)]

    def errReceived(self, data: bytes) -> None:
        """Keep standard error, up to the limit."""
        self._err += data[: self._kept - len(self._err)]

    def processEnded(self, reason: Failure) -> None:
        """Publish the end of the process.  All its output has come by now."""
        self.ended.finish(_code(reason))

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal to the process, unless the process has ended."""
        with contextlib.suppress(ProcessExitedAlready):
            self.process.signalProcess(signal)

    def pipe(self, descriptor: int) -> IPushProducer:
        """Return the pipe from a descriptor of the process, to pause its output."""
        # Twisted's processes have this attribute, which its interface lacks.
        pipes: Mapping[int, IPushProducer] = self.process.pipes  # type: ignore[attr-defined]
        return pipes[descriptor]

    def ignore(self, *descriptors: int) -> None:
        """Close the pipes of the process's descriptors here.  Later output is lost."""
        for each in descriptors:
            self.process.closeChildFD(each)


def spawn(
    reactor: IReactor,
    child: ChildT,
    command: Sequence[str],
    files: Mapping[int, int | str] = {},
    *,
    environment: Mapping[str, str] = {},
    folder: str | None = None,
) -> ChildT:
    """Start a process.

    :param command: the path of a program, and its arguments.
    :param files: descriptors in the process: each mapped to a descriptor of the daemon, or to the
        letter of a pipe, as for ``spawnProcess``.  Missing ones of the first three become
        ``/dev/null``.
    :param environment: variables beside the daemon's ``PATH`` and the C locale.
    :param folder: working directory; None for the daemon's.  For another one, Twisted forks the
        daemon, which takes longer the larger the daemon is.
    :returns: the child.
    :raises OSError: if the system cannot start another process.
    """
    _check_descriptors()
    with open(os.devnull, "r+b") as nothing:
        reactor.spawnProcess(
            child,
            command[0],
            command,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **environment},
            path=folder,
            childFDs={**dict.fromkeys(range(3), nothing.fileno()), **files},
        )
    return child


def _check_descriptors() -> None:
    """Check for enough descriptors to start a process.

    A new process without enough descriptors ends with exit code 1 and gives no reason.

    :raises OSError: if too few descriptors are free (EMFILE or ENFILE).
    """
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(_OF_A_PROCESS))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _code(reason: Failure) -> int:
    """Return the exit code of an ended process, or the negative number of a signal."""
    ended = reason.value
    assert isinstance(ended, ProcessDone | ProcessTerminated)  # noqa: S101 - Twisted's two ends
    return -ended.signal if ended.signal is not None else int(ended.exitCode)


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


def shortage_in(said: str) -> NoThread | None:
    """Return an error to raise from, if a QEMU program complains that it got no thread.

    With this error as the cause, the work of the program is retried and does not fail.

    :param said: the program's complaint.
    """
    return NoThread(said) if _NO_THREAD in said else None
