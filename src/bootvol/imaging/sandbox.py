"""Runs programs that read hostile images: locked up, and no longer than they are wanted.

Such a program gets a bounded address space and CPU time, no network and no rights beyond those of
its user, and may not write a single byte to any file; it dies with the daemon.  Where the daemon
is root, it is nobody.  The tools that see to this are util-linux's.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from bootvol.devices import check_descriptors
from bootvol.errors import BackendFailed, ConverterMissing, ImageBomb
from bootvol.threads import Shared, outlast

#: The most that is kept of what a program says, in bytes; what goes beyond is dropped.
_KEPT: Final = 1024 * 1024
#: Ways to have no network: the second one needs no privilege, but not every system allows it.
_NETLESS: Final = (("unshare", "--net"), ("unshare", "--user", "--net"))
#: Of no rights: what it is given it has open; and of no user either, if the daemon is root.
_POWERLESS: Final = ("setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--inh-caps=-all")
_NOBODY: Final = ("--bounding-set=-all", "--reuid=65534", "--regid=65534", "--clear-groups")
#: Where the disk is slow, qemu-img has 64 threads, of which each would take a stack (in bytes) and
#: an arena of the usual size from the address space that is there for the image.
_STACK: Final = 1024 * 1024
_LEAN: Final = {"MALLOC_ARENA_MAX": "1"}
#: How a program ends that has used up what it was allowed.
_SPENT: Final = frozenset({-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV})
#: How those end that are to run a program, when they cannot.
_NOT_RUN: Final = frozenset({126, 127})
_NO_MEMORY: Final = "allocate memory"


@attrs.frozen
class Ended:
    """How a program ended, and what it said.

    :ivar code: its exit code, or the number of a signal, negative.
    """

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """The last line of what it complained of."""
        lines = self.err.strip().splitlines() or [f"exit code {self.code}"]
        return lines[-1]

    def check_spent(self) -> None:
        """See whether it ran into its limits.

        :raises ImageBomb: it did.
        :raises ConverterMissing: it never ran.
        """
        if self.code in _NOT_RUN:
            raise ConverterMissing("The program that reads containers cannot be run.")
        if self.code in _SPENT or _NO_MEMORY in self.err:
            raise ImageBomb("Reading the image takes more memory or time than it may.")


class Program(ProcessProtocol):
    """A program that runs.

    :param clock: the reactor.
    :param on_line: is given each line that it writes, which is then not kept.
    """

    def __init__(self, clock: IReactorTime, on_line: Callable[[bytes], None] | None = None) -> None:
        self._clock = clock
        self._on_line = on_line
        self._rest = b""
        self._out = b""
        self._err = b""
        self._ended: Shared[Ended] = Shared()

    def outReceived(self, data: bytes) -> None:
        """It wrote something."""
        if self._on_line is None:
            self._out += data[: _KEPT - len(self._out)]
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line)
        self._rest = self._rest[-_KEPT:]

    def errReceived(self, data: bytes) -> None:
        """It complained."""
        self._err += data[: _KEPT - len(self._err)]

    def processEnded(self, reason: Failure) -> None:
        """It has ended, and all that it said has come."""
        ended: Any = reason.value
        code = ended.exitCode if ended.signal is None else -ended.signal
        out, err = (each.decode("utf-8", "replace") for each in (self._out, self._err))
        self._ended.finish(Ended(code, out, err))

    async def end(self) -> Ended:
        """Wait until it has ended by itself; cancelled, it is killed, and has ended too."""
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
    """

    def __init__(self, reactor: Any, memory: int) -> None:
        self._reactor = reactor
        self._memory = memory
        self._netless: Sequence[str] | None = None

    async def start(
        self,
        command: Sequence[str],
        files: Mapping[int, int],
        seconds: int,
        on_line: Callable[[bytes], None] | None = None,
    ) -> Program:
        """Start a program.

        :param files: its descriptors beyond the usual ones, each with the one here that it is.
        :param seconds: of CPU time.
        :raises ConverterMissing: the system has no such program, or does not let it be locked up.
        :raises BackendFailed: the system has no room for another program.
        """
        if self._netless is None:
            self._netless = await self._find_netless()
        return self._spawn(self._netless, command, files, seconds, on_line)

    async def run(
        self,
        command: Sequence[str],
        files: Mapping[int, int],
        seconds: int,
        on_line: Callable[[bytes], None] | None = None,
    ) -> Ended:
        """Run a program to its end; cancelled, it is killed.  The parameters are as above.

        :raises ImageBomb: it needs more than it may have.
        :raises ConverterMissing: as :meth:`start`.
        """
        program = await self.start(command, files, seconds, on_line)
        ended = await program.end()
        ended.check_spent()
        return ended

    async def _find_netless(self) -> Sequence[str]:
        for way in _NETLESS:
            ended = await self._spawn(way, ["qemu-img", "--version"], {}, 10, None).end()
            if ended.code == 0:
                return way
        raise ConverterMissing(f"The program that reads containers cannot run: {ended.reason}.")

    def _spawn(
        self,
        netless: Sequence[str],
        command: Sequence[str],
        files: Mapping[int, int],
        seconds: int,
        on_line: Callable[[bytes], None] | None,
    ) -> Program:
        limits = [f"--as={self._memory}", f"--cpu={seconds}", f"--stack={_STACK}"]
        whole = ["prlimit", *limits, "--fsize=0", "--core=0", *netless, *_POWERLESS]
        whole += _NOBODY if os.geteuid() == 0 else ()
        # It would not hear of a parent that died before it asked to be told.
        whole += ["sh", "-c", '[ "$PPID" = "$0" ] || exit 1; exec "$@"', str(os.getpid()), *command]
        program = Program(self._reactor, on_line)
        try:
            check_descriptors()
            with open(os.devnull, "rb") as nothing:
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
