"""Runs LVM's commands and reads their output.

A started command is never abandoned: its changes are known only after its end. The expected texts
are those of LVM 2.03 in the C locale. LVM's exit code tells only that a command failed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from bootvol.devices import failures
from bootvol.errors import BackendFailed, NoSpace, VolumeInUse
from bootvol.processes import Child, spawn
from bootvol.reactors import IReactor
from bootvol.threads import outlast

#: Seconds until a command gets SIGTERM, and from then until SIGKILL. LVM ignores SIGTERM while
#: devices are suspended, and must not be killed then.
_LIMIT: Final = 60.0
_GRACE: Final = 30.0
#: Bytes kept of a command's output, and characters shown of its complaint in an error.
_KEPT: Final = 1024 * 1024
_SHOWN: Final = 200
#: Debian's folders of LVM, which the PATH of a daemon may lack.
_SYSTEM: Final = "/usr/sbin:/sbin"

#: LVM's texts for a lack of room, in lower case.
_FULL: Final = (
    "insufficient free space",
    "insufficient suitable",
    "not enough free",
    "is above threshold",
    "out of space",
)
_IN_USE: Final = (" in use.", "is used by another device")


def find() -> str | None:
    """Return the path of LVM's program; None if LVM is not installed. Blocks."""
    return shutil.which("lvm", path=f"{_path()}:{_SYSTEM}")


def environment() -> dict[str, str]:
    """Return the environment variables for a command."""
    path = f"{_path()}:{_SYSTEM}"
    return {"PATH": path, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}


def report_of(command: str, fields: Sequence[str], *words: str) -> list[str]:
    """Return the command line of a report on ``fields``, with sizes in bytes."""
    form = ("--reportformat", "json", "--units", "b", "--nosuffix")
    return [command, *form, "-o", ",".join(fields), *words]


def rows(out: str) -> list[Mapping[str, str]]:
    """Return the rows of a report.

    :raises ValueError: if ``out`` is not a report.
    """
    (report,) = json.loads(out)["report"]
    (found,) = report.values()
    return list(found)


def complaint(err: str) -> str:
    """Return the first line of a command's error output that is not a warning."""
    lines = [line.strip() for line in err.splitlines()]
    errors = [line for line in lines if line and not line.startswith("WARNING")]
    return (errors or ["no reason given"])[0][:_SHOWN].rstrip(".")


class Lvm:
    """Runs commands of LVM for one backend.

    :param reactor: provides IReactorProcess and IReactorTime.
    :param binary: the path of LVM's program.
    :param name: the backend's name, for errors.
    """

    _log = Logger()

    def __init__(self, reactor: IReactor, binary: str, name: str) -> None:
        self._reactor = reactor
        self._binary = binary
        self._name = name

    async def report(
        self, command: str, fields: Sequence[str], *words: str
    ) -> list[Mapping[str, str]]:
        """Return the rows of a report of ``lvs`` or ``vgs``.

        :raises BackendFailed: if the command fails, or its report cannot be read.
        """
        out = await self.run(*report_of(command, fields, *words))
        try:
            return rows(out)
        except (ValueError, KeyError, AttributeError):
            self._log.error("lvm {command} said: {out}", command=command, out=out)
            raise BackendFailed(f"Backend {self._name}: LVM's report cannot be read.") from None

    async def run(self, *words: str) -> str:
        """Run a command to its end, even when cancelled; return its output.

        :raises NoSpace: if the volume group or pool has no room for the new volume.
        :raises VolumeInUse: if another program uses the volume.
        :raises BackendFailed: if the command fails, or does not end in time.
        """
        command = [self._binary, *words]
        pipes = {1: "r", 2: "r"}
        with failures(f"Backend {self._name}: running LVM failed"):
            process = spawn(
                self._reactor,
                _Command(self._reactor),
                command,
                pipes,
                environment=environment(),
            )
        code = await outlast(process.ended.wait())
        if code == 0:
            return process.out
        self._log.warn("lvm {words}: {err}", words=" ".join(words), err=process.err.strip())
        raise self._failure(process)

    def _failure(self, process: _Command) -> BackendFailed:
        said = process.err
        if process.late:
            return BackendFailed(f"Backend {self._name}: LVM did not answer in time.")
        if any(text in said.lower() for text in _FULL):
            return NoSpace(f"Backend {self._name} has no room left.")
        if any(text in said for text in _IN_USE):
            return VolumeInUse(f"Backend {self._name}: the volume is in use.")
        return BackendFailed(f"Backend {self._name}: LVM failed: {complaint(said)}.")


class _Command(Child):
    """A running command.

    :ivar late: True if the command did not end in time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(_KEPT)
        self.late = False
        self._clock = clock

    def connectionMade(self) -> None:
        """Start the timer of the command."""
        self._timer = self._clock.callLater(_LIMIT, self._end)

    def processEnded(self, reason: Failure) -> None:
        """Report the end of the command. All its output has arrived by now."""
        self._timer.cancel()
        super().processEnded(reason)

    def _end(self) -> None:
        self._timer = self._clock.callLater(_GRACE, self._end)
        self.kill("KILL" if self.late else "TERM")
        self.late = True


def _path() -> str:
    return os.environ.get("PATH", os.defpath)
