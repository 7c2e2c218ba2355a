"""Runs programs that read hostile images: confined, and only for as long as needed.

Such a program is confined (:mod:`bootvol.jail`), and has limits on address space and CPU time.  The
program may not write a single byte to any file, and dies with the daemon.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from bootvol.devices import check_descriptors
from bootvol.errors import BackendFailed, ConverterMissing, ImageBomb
from bootvol.headroom import few_threads, killed_for_memory
from bootvol.jail import LISTENER, Bounds, Jail, NotConfined
from bootvol.jail.program import NOT_RUN
from bootvol.reactors import IReactor
from bootvol.shortage import NoThread
from bootvol.threads import Shared, outlast

#: The most bytes to keep of a program's output; further output is dropped.
_KEPT: Final = 1024 * 1024
#: Stack size in bytes.  On a slow disk, qemu-img has 64 threads.  With the usual sizes, the stacks
#: and arenas of these threads would fill the address space that the image needs.
_STACK: Final = 1024 * 1024
_LEAN: Final = {"MALLOC_ARENA_MAX": "1"}
#: Exit codes of a program that has used up its limits.
_SPENT: Final = frozenset({-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV})
#: Exit code of QEMU's programs that get no thread.
_NO_THREAD: Final = -signal.SIGABRT
_NO_MEMORY: Final = "allocate memory"


#: Processes a block of a program's output.  No more output is read until the call has ended.
Reader = Callable[[bytes], Coroutine[Any, Any, None]]


@attrs.frozen
class Ended:
    """The end of a program, and its output.

    :ivar code: the exit code, or the negative number of a signal.
    :ivar lacked_memory: whether the system has killed a process for lack of memory meanwhile.
    """

    code: int
    out: str
    err: str
    lacked_memory: bool = False

    @property
    def reason(self) -> str:
        """The last line of standard error."""
        lines = self.err.strip().splitlines() or [f"exit code {self.code}"]
        return lines[-1]

    def check_spent(self) -> None:
        """Check whether the program reached its limits.

        :raises ImageBomb: if the program reached its limits.
        :raises ConverterMissing: if the program never ran.
        :raises BackendFailed: if the system may have lacked a thread or memory for the program.
        """
        if self.code == NOT_RUN:
            raise ConverterMissing(f"The program that reads containers cannot run: {self.reason}.")
        if self.code == _NO_THREAD and few_threads():
            raise BackendFailed("The program that reads the image got no thread.") from NoThread()
        if self.code == -signal.SIGKILL and self.lacked_memory:
            # No automatic retry: the image may be the cause of the memory use.
            raise BackendFailed("The machine lacked memory for the program that reads the image.")
        if self.code in _SPENT or _NO_MEMORY in self.err:
            raise ImageBomb("Reading the image takes more memory or time than it may.")


class Program(ProcessProtocol):
    """A running program.

    :param clock: the reactor.
    :param reader: processes the program's output, which is then not kept.  If the reader fails, the
        program is killed.
    """

    def __init__(self, clock: IReactorTime, reader: Reader | None = None) -> None:
        self._clock = clock
        self._reader = reader
        self._failure: Failure | None = None
        self._out = b""
        self._err = b""
        self._ended: Shared[Ended] = Shared()
        self._kills = killed_for_memory()

    def outReceived(self, data: bytes) -> None:
        """Process a piece of standard output."""
        if self._reader is None:
            self._out += data[: _KEPT - len(self._out)]
        elif self._failure is None:
            transport: Any = self.transport
            pipe = transport.pipes[1]
            pipe.pauseProducing()
            reading = ensureDeferred(self._reader(data))
            reading.addErrback(self._give_up)
            reading.addCallback(lambda _: pipe.resumeProducing())

    def _give_up(self, failure: Failure) -> None:
        self._failure = failure
        self.kill()

    def errReceived(self, data: bytes) -> None:
        """Keep a piece of standard error."""
        self._err += data[: _KEPT - len(self._err)]

    @property
    def said(self) -> str:
        """The standard output so far."""
        return self._out.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        """Publish the end of the program, after all its output."""
        ended: Any = reason.value
        code = ended.exitCode if ended.signal is None else -ended.signal
        out, err = (each.decode("utf-8", "replace") for each in (self._out, self._err))
        lacked_memory = killed_for_memory() > self._kills
        self._ended.finish(self._failure or Ended(code, out, err, lacked_memory))

    async def end(self) -> Ended:
        """Wait until the program has ended by itself.

        A cancellation kills the program, and waits for its end.

        :raises Exception: if the reader failed; the reader's exception.
        """
        try:
            return await self._ended.wait()
        except CancelledError:
            self.kill()
            await outlast(self._ended.wait())
            raise

    async def end_within(self, seconds: float) -> Ended | None:
        """Wait as :meth:`end` does, but kill the program after ``seconds``.

        :returns: the end of the program; None if the program was killed.
        """
        late = self._clock.callLater(seconds, self.kill)
        try:
            ended = await self.end()
        finally:
            in_time = late.active()
            if in_time:
                late.cancel()
        return ended if in_time else None

    def kill(self) -> None:
        """Kill the program now."""
        transport: Any = self.transport
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess("KILL")


class Sandbox:
    """The environment for such programs.

    :param reactor: a provider of IReactorProcess and IReactorTime.
    :param memory: the address space of each program, in bytes.
    :param jail: confines the programs.
    """

    def __init__(self, reactor: IReactor, memory: int, jail: Jail) -> None:
        self._reactor = reactor
        self._memory = memory
        self._jail = jail

    def start(
        self,
        command: Sequence[str],
        seconds: int,
        reads: Mapping[int, int] = {},
        listener: int | None = None,
        reader: Reader | None = None,
    ) -> Program:
        """Start a program.

        :param seconds: CPU time limit in seconds.
        :param reads: descriptors of files to read: by number in the program, the number in this
            process.  The program cannot write, even if the descriptor here is open for writing.
        :param listener: a listening socket of this process, which the program serves.  In the
            program the socket is the descriptor :data:`bootvol.jail.LISTENER`.
        :param reader: see :class:`Program`.
        :raises ConverterMissing: if the system does not allow programs to be confined.
        :raises BackendFailed: if the system cannot start another program.
        """
        limits = {"AS": self._memory, "CPU": seconds, "STACK": _STACK, "FSIZE": 0, "CORE": 0}
        bounds = Bounds(
            reads=list(reads), limits=limits, dies_with_us=True, listens=listener is not None
        )
        try:
            whole = self._jail.command(command, bounds)
        except NotConfined as error:
            raise ConverterMissing(f"No program may read containers. {error}") from error
        program = Program(self._reactor, reader)
        try:
            check_descriptors()
            with ExitStack() as stack:
                nothing = stack.enter_context(open(os.devnull, "rb"))
                files = {each: stack.enter_context(_to_read(reads[each])) for each in reads}
                if listener is not None:
                    files[LISTENER] = listener
                self._reactor.spawnProcess(
                    program,
                    whole[0],
                    whole,
                    env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **_LEAN},
                    path="/",
                    childFDs={0: nothing.fileno(), 1: "r", 2: "r", **files},
                )
        except OSError as error:
            raise BackendFailed(f"No program can be started to read the image: {error}.") from error
        return program

    async def run(
        self,
        command: Sequence[str],
        seconds: int,
        reads: Mapping[int, int] = {},
        reader: Reader | None = None,
    ) -> Ended:
        """Run a program to its end.  A cancellation kills the program.

        The parameters are the same as for :meth:`start`.

        :raises ImageBomb: if the program needs more than its limits.
        :raises ConverterMissing: as :meth:`start`, or if the system has no such program.
        """
        ended = await self.start(command, seconds, reads, reader=reader).end()
        ended.check_spent()
        return ended


@contextmanager
def _to_read(descriptor: int) -> Iterator[int]:
    """Open a file again, for reading only."""
    opened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)
