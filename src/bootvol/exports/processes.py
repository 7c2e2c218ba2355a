"""Processes that outlive the daemon, and how it knows them again.

A process is known by its number together with when it was born: a number alone may be another
process's by now.  It is awaited and killed by way of a pidfd, which stays that of the one process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from bootvol.devices import check_descriptors
from bootvol.errors import ExportFailed
from bootvol.jail import LISTENER, Bounds, Jail, NotConfined
from bootvol.threads import Shared

#: The most that is kept of what a process complains of, in bytes; what goes beyond is dropped.
_KEPT: Final = 4096
#: The descriptors that the file and a folder of credentials are in the process.
FILE, CREDENTIALS = 4, 5


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
        :raises ExportFailed: it is still there.
        """
        with self._pidfd() as pidfd:
            if pidfd is None:
                return
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if not await readable(reactor, pidfd, seconds):
                raise ExportFailed(f"Process {self.pid} does not end.")

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


class Server(ProcessProtocol):
    """A process that the daemon started: it waits to be let go on, and then serves by itself.

    Its complaints come by a pipe, not to a file, until it serves: so they are bounded however long
    it runs, and nothing happens when nobody reads them any more.

    :param name: what the log calls it.
    :ivar ended: fires when it has ended, with what it complained of first, or how it ended.
    """

    _log = Logger()

    def __init__(self, name: str) -> None:
        self.ended: Shared[str] = Shared()
        self._name = name
        self._err = b""

    @property
    def pid(self) -> int:
        """The number of the process."""
        pid: int = self._transport.pid
        return pid

    @property
    def _transport(self) -> Any:
        return self.transport

    def let_go_on(self) -> None:
        """Let it do what it is there for."""
        self._transport.write(b"\n")
        self._transport.closeStdin()

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(ProcessExitedAlready):
            self._transport.signalProcess("KILL")

    def leave(self) -> None:
        """Hear no more of it than its end.

        From now on it complains of its clients alone; and each pipe would take one of the files
        that the daemon may have open.
        """
        for descriptor in 1, 2:
            self._transport.closeChildFD(descriptor)

    def errReceived(self, data: bytes) -> None:
        """It complained."""
        self._err += data[: _KEPT - len(self._err)]

    def processEnded(self, reason: Failure) -> None:
        """It has ended, by itself or not."""
        lines = self._err.decode("utf-8", "replace").strip().splitlines()
        first = lines[0] if lines else reason.getErrorMessage()
        self._log.info(
            "the server of export {name} has ended: {first}", name=self._name, first=first
        )
        self.ended.finish(first)


def start(
    reactor: Any,
    name: str,
    command: Sequence[str],
    files: Mapping[int, int],
    jail: Jail,
) -> Server:
    """Start a process that outlives the daemon, and reaches its file alone.

    It waits for :meth:`Server.let_go_on`, so that nothing runs that nobody has written down: when
    the daemon dies before that, it reads the end of the pipe.  Where the daemon is root, the file
    belongs to its user from then on.

    :param files: its descriptors: :data:`bootvol.jail.LISTENER`, :data:`FILE`, and those of
        credentials, each with the one here that it is.
    :raises ExportFailed: it cannot be confined.
    """
    # Of its own session, so that no terminal ends it; no memory of it (a guest's data) on the disk.
    bounds = Bounds(
        reads=[each for each in files if each not in (LISTENER, FILE)],
        writes=[FILE],
        owns=[FILE],
        limits={"CORE": 0},
        waits=True,
        listens=True,
    )
    try:
        whole = jail.command(command, bounds)
    except NotConfined as error:
        raise ExportFailed(f"The volume cannot be exported. {error}") from error
    server = Server(name)
    check_descriptors()
    reactor.spawnProcess(
        server,
        whole[0],
        whole,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        path="/",
        childFDs={0: "w", 1: "r", 2: "r", **files},
    )
    return server


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
        return "exports"

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
