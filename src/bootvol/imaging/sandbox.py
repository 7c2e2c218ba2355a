"""Runs programs that read hostile images: confined, and only for as long as needed.

Such a program is confined (:mod:`bootvol.jail`), and has limits on address space and CPU time.  The
program may not write a single byte to any file, and dies with the daemon.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import attrs
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from bootvol.errors import BackendFailed, ConverterMissing, ImageBomb
from bootvol.headroom import few_threads, killed_for_memory
from bootvol.jail import FILES, LISTENER, Bounds, Jail, NotConfined
from bootvol.jail.program import NOT_RUN
from bootvol.processes import Child, spawn
from bootvol.reactors import IReactor
from bootvol.shortage import NoThread
from bootvol.threads import outlast

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
Reader = Callable[[bytes], Coroutine[Deferred[object], object, None]]


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
            raise BackendFailed(
                "The program that reads the image could not start a thread."
            ) from NoThread()
        if self.code == -signal.SIGKILL and self.lacked_memory:
            # No automatic retry: the image may be the cause of the memory use.
            raise BackendFailed("The machine lacked memory for the program that reads the image.")
        if self.code in _SPENT or _NO_MEMORY in self.err:
            raise ImageBomb("Reading the image takes more memory or time than the limit.")


class Program(Child):
    """A running program.

    :param clock: the reactor.
    :param reader: processes the program's output, which is then not kept.  If the reader fails, the
        program is killed.
    """

    def __init__(self, clock: IReactorTime, reader: Reader | None = None) -> None:
        super().__init__(_KEPT)
        self._clock = clock
        self._reader = reader
        self._failure: Failure | None = None
        self._kills = killed_for_memory()
        self._lacked_memory = False

    def outReceived(self, data: bytes) -> None:
        """Process a piece of standard output."""
        if self._reader is None:
            super().outReceived(data)
        elif self._failure is None:
            pipe = self.pipe(1)
            pipe.pauseProducing()
            reading = ensureDeferred(self._reader(data))
            reading.addErrback(self._give_up)
            reading.addCallback(lambda _: pipe.resumeProducing())

    def _give_up(self, failure: Failure) -> None:
        self._failure = failure
        self.kill()

    def processEnded(self, reason: Failure) -> None:
        """Publish the end of the program, after all its output."""
        self._lacked_memory = killed_for_memory() > self._kills
        super().processEnded(reason)

    async def end(self) -> Ended:
        """Wait until the program has ended by itself.

        A cancellation kills the program, and waits for its end.

        :raises Exception: if the reader failed; the reader's exception.
        """
        try:
            code = await self.ended.wait()
        except CancelledError:
            self.kill()
            await outlast(self.ended.wait())
            raise
        if self._failure is not None:
            self._failure.raiseException()
        return Ended(code, self.out, self.err, self._lacked_memory)

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
        limits["NOFILE"] = FILES
        bounds = Bounds(
            reads=list(reads), limits=limits, dies_with_us=True, listens=listener is not None
        )
        try:
            whole = self._jail.command(command, bounds)
        except NotConfined as error:
            raise ConverterMissing(f"No program can read containers safely. {error}") from error
        program = Program(self._reactor, reader)
        try:
            with ExitStack() as stack:
                files = {each: stack.enter_context(_to_read(reads[each])) for each in reads}
                if listener is not None:
                    files[LISTENER] = listener
                pipes = {1: "r", 2: "r"}
                spawn(
                    self._reactor,
                    program,
                    whole,
                    {**pipes, **files},
                    environment=_LEAN,
                    folder="/",
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
