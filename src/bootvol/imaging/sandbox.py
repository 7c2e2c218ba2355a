"""Runs programs that read hostile images: locked up, and no longer than they are wanted.

Such a program is confined (:mod:`bootvol.jail`), gets a bounded address space and CPU time, and may
not write a single byte to any file; it dies with the daemon.
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
from bootvol.shortage import NoThread
from bootvol.threads import Shared, outlast

#: The most that is kept of what a program says, in bytes; what goes beyond is dropped.
_KEPT: Final = 1024 * 1024
#: Where the disk is slow, qemu-img has 64 threads, of which each would take a stack (in bytes) and
#: an arena of the usual size from the address space that is there for the image.
_STACK: Final = 1024 * 1024
_LEAN: Final = {"MALLOC_ARENA_MAX": "1"}
#: How a program ends that has used up what it was allowed.
_SPENT: Final = frozenset({-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV})
#: How QEMU's programs end that get no thread.
_NO_THREAD: Final = -signal.SIGABRT
_NO_MEMORY: Final = "allocate memory"


#: Takes in a block of what a program writes; until that is done, no more is read of the program.
Reader = Callable[[bytes], Coroutine[Any, Any, None]]


@attrs.frozen
class Ended:
    """How a program ended, and what it said.

    :ivar code: its exit code, or the number of a signal, negative.
    :ivar lacked_memory: whether the system has killed a process for lack of memory meanwhile.
    """

    code: int
    out: str
    err: str
    lacked_memory: bool = False

    @property
    def reason(self) -> str:
        """The last line of what it complained of."""
        lines = self.err.strip().splitlines() or [f"exit code {self.code}"]
        return lines[-1]

    def check_spent(self) -> None:
        """See whether it ran into its limits.

        :raises ImageBomb: it did.
        :raises ConverterMissing: it never ran.
        :raises BackendFailed: the system may have given it no thread, or have lacked memory.
        """
        if self.code == NOT_RUN:
            raise ConverterMissing(f"The program that reads containers cannot run: {self.reason}.")
        if self.code == _NO_THREAD and few_threads():
            raise BackendFailed("The program that reads the image got no thread.") from NoThread()
        if self.code == -signal.SIGKILL and self.lacked_memory:
            # Not tried again by itself: it may be the image that takes so much.
            raise BackendFailed("The machine lacked memory for the program that reads the image.")
        if self.code in _SPENT or _NO_MEMORY in self.err:
            raise ImageBomb("Reading the image takes more memory or time than it may.")


class Program(ProcessProtocol):
    """A program that runs.

    :param clock: the reactor.
    :param reader: takes in what the program writes, which is then not kept.  Where that fails, the
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
        """It wrote something."""
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
        """It complained."""
        self._err += data[: _KEPT - len(self._err)]

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self._out.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        """It has ended, and all that it said has come."""
        ended: Any = reason.value
        code = ended.exitCode if ended.signal is None else -ended.signal
        out, err = (each.decode("utf-8", "replace") for each in (self._out, self._err))
        lacked_memory = killed_for_memory() > self._kills
        self._ended.finish(self._failure or Ended(code, out, err, lacked_memory))

    async def end(self) -> Ended:
        """Wait until it has ended by itself; cancelled, it is killed, and has ended too.

        :raises Exception: what the reader raised.
        """
        try:
            return await self._ended.wait()
        except CancelledError:
            self.kill()
            await outlast(self._ended.wait())
            raise

    async def end_within(self, seconds: float) -> Ended | None:
        """As :meth:`end`, but after so many seconds it is killed; then None is returned."""
        late = self._clock.callLater(seconds, self.kill)
        try:
            ended = await self.end()
        finally:
            in_time = late.active()
            if in_time:
                late.cancel()
        return ended if in_time else None

    def kill(self) -> None:
        """End it now."""
        transport: Any = self.transport
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess("KILL")


class Sandbox:
    """Where such programs run.

    :param reactor: provides IReactorProcess and IReactorTime.
    :param memory: the address space of each, in bytes.
    :param jail: confines them.
    """

    def __init__(self, reactor: Any, memory: int, jail: Jail) -> None:
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

        :param seconds: of CPU time.
        :param reads: the descriptors of files that it reads, each with the one here that it is;
            whatever that one was opened for, the program cannot write.
        :param listener: a listening socket here that it serves, at :data:`bootvol.jail.LISTENER`.
        :raises ConverterMissing: the system does not let programs be confined.
        :raises BackendFailed: the system has no room for another program.
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
        """Run a program to its end; cancelled, it is killed.  The parameters are as above.

        :raises ImageBomb: it needs more than it may have.
        :raises ConverterMissing: as :meth:`start`, or the system has no such program.
        """
        ended = await self.start(command, seconds, reads, reader=reader).end()
        ended.check_spent()
        return ended


@contextmanager
def _to_read(descriptor: int) -> Iterator[int]:
    """Open a file once more, for reading only."""
    opened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)
