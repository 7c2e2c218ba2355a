"""LVM's commands: how they are run, and what they answer.

A command that has begun is never abandoned: what it changes is known only when it has ended.  The
texts are those of LVM 2.03 in the C locale; its exit code says no more than that it failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from bootvol.devices import check_descriptors, failures
from bootvol.errors import BackendFailed, NoSpace, VolumeInUse
from bootvol.threads import Shared, outlast

#: Seconds that a command may take until it is asked to end, and from then until it is made to.  LVM
#: does not hear the first while devices are suspended, and must not be killed then.
_LIMIT: Final = 60.0
_GRACE: Final = 30.0
#: The most that is kept of what a command says, and of its complaint in an error.
_KEPT: Final = 1024 * 1024
_SHOWN: Final = 200
#: Where Debian has it, which is not in every daemon's PATH.
_SYSTEM: Final = "/usr/sbin:/sbin"

#: How LVM says that there is no room.
_FULL: Final = (
    "insufficient free space",
    "insufficient suitable",
    "not enough free",
    "is above threshold",
    "out of space",
)
_IN_USE: Final = (" in use.", "is used by another device")


def find() -> str | None:
    """Return the path of LVM's program; None if there is none.  Blocks."""
    return shutil.which("lvm", path=f"{_path()}:{_SYSTEM}")


def environment() -> dict[str, str]:
    """Return what a command is run with."""
    path = f"{_path()}:{_SYSTEM}"
    return {"PATH": path, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}


def report_of(command: str, fields: Sequence[str], *words: str) -> list[str]:
    """Return the words of a command that reports ``fields``, sizes in bytes."""
    form = ("--reportformat", "json", "--units", "b", "--nosuffix")
    return [command, *form, "-o", ",".join(fields), *words]


def rows(out: str) -> list[Mapping[str, str]]:
    """Return the rows of a report.

    :raises ValueError: it is none.
    """
    (report,) = json.loads(out)["report"]
    (found,) = report.values()
    return list(found)


def complaint(err: str) -> str:
    """Return the first line of what a command complained of that is no warning."""
    lines = [line.strip() for line in err.splitlines()]
    errors = [line for line in lines if line and not line.startswith("WARNING")]
    return (errors or ["no reason given"])[0][:_SHOWN].rstrip(".")


class Lvm:
    """Runs commands of LVM for one backend.

    :param reactor: provides IReactorProcess and IReactorTime.
    :param binary: the path of LVM's program.
    :param name: of the backend, in errors.
    """

    _log = Logger()

    def __init__(self, reactor: Any, binary: str, name: str) -> None:
        self._reactor = reactor
        self._binary = binary
        self._name = name

    async def report(
        self, command: str, fields: Sequence[str], *words: str
    ) -> list[Mapping[str, str]]:
        """Return the rows that ``lvs`` or ``vgs`` reports.

        :raises BackendFailed: it cannot.
        """
        out = await self.run(*report_of(command, fields, *words))
        try:
            return rows(out)
        except (ValueError, KeyError, AttributeError):
            self._log.error("lvm {command} said: {out}", command=command, out=out)
            raise BackendFailed(f"Backend {self._name}: LVM's report cannot be read.") from None

    async def run(self, *words: str) -> str:
        """Run a command to its end, also when cancelled; return what it says.

        :raises NoSpace: there is no room for what it was to make.
        :raises BackendFailed: it failed, or did not end in time.
        """
        process = _Process(self._reactor)
        doing = f"Backend {self._name}: running LVM failed"
        with failures(doing), open(os.devnull, "rb") as nothing:
            check_descriptors()
            # In no folder of its own: for that the daemon, which may be large, would be forked.
            self._reactor.spawnProcess(
                process,
                self._binary,
                [self._binary, *words],
                env=environment(),
                childFDs={0: nothing.fileno(), 1: "r", 2: "r"},
            )
        code = await outlast(process.ended.wait())
        if code == 0:
            return process.out
        self._log.warn("lvm {words}: {err}", words=" ".join(words), err=process.err.strip())
        raise self._failure(process)

    def _failure(self, process: _Process) -> BackendFailed:
        said = process.err
        if process.late:
            return BackendFailed(f"Backend {self._name}: LVM did not answer in time.")
        if any(text in said.lower() for text in _FULL):
            return NoSpace(f"Backend {self._name} has no room for the volume.")
        if any(text in said for text in _IN_USE):
            return VolumeInUse(f"Backend {self._name}: the volume is in use.")
        return BackendFailed(f"Backend {self._name}: LVM failed: {complaint(said)}.")


class _Process(ProcessProtocol):
    """A command that runs.

    :ivar ended: fires with its exit code when it has ended, None if a signal ended it.
    :ivar late: it did not end in time.
    """

    def __init__(self, reactor: Any) -> None:
        self.ended: Shared[int | None] = Shared()
        self.late = False
        self._out = b""
        self._err = b""
        self._reactor = reactor

    @property
    def out(self) -> str:
        """What it said."""
        return self._out.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        """What it complained of."""
        return self._err.decode("utf-8", "replace")

    def connectionMade(self) -> None:
        """It runs."""
        self._timer = self._reactor.callLater(_LIMIT, self._end)

    def outReceived(self, data: bytes) -> None:
        """It said something; what is beyond all measure is dropped."""
        self._out += data[: _KEPT - len(self._out)]

    def errReceived(self, data: bytes) -> None:
        """It complained."""
        self._err += data[: _KEPT - len(self._err)]

    def processEnded(self, reason: Failure) -> None:
        """It has ended, and all that it said has come."""
        self._timer.cancel()
        ended: Any = reason.value
        self.ended.finish(ended.exitCode)

    def _end(self) -> None:
        transport: Any = self.transport
        self._timer = self._reactor.callLater(_GRACE, self._end)
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess("KILL" if self.late else "TERM")
        self.late = True


def _path() -> str:
    return os.environ.get("PATH", os.defpath)
