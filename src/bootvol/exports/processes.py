"""The processes that serve exports.  They outlive the daemon."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Final

from twisted.logger import Logger
from twisted.python.failure import Failure

from bootvol.errors import ExportFailed
from bootvol.errors.base import readable
from bootvol.jail import LISTENER, Bounds, Jail, NotConfined, memory_limits, room
from bootvol.processes import Child, spawn
from bootvol.reactors import IReactor

#: Bytes of a process's complaints that are kept.  Further bytes are dropped.
_KEPT: Final = 4096
#: Memory of a server in bytes: requests of 32 MiB each, 16 of a client at once, and 64 threads.
_MEMORY: Final = 4 * 1024 * 1024 * 1024
#: The descriptors of the file and of a folder of credentials in the process.
FILE, CREDENTIALS = 4, 5


class NbdServer(Child):
    """A process of the daemon that waits for :meth:`let_go_on`, and then serves by itself.

    Until the process serves, its complaints come by a pipe, not into a file.  So the complaints are
    bounded however long the process runs.  Nothing happens when nobody reads them any more.

    :param name: name of the export in the log.
    :ivar complaint: the first complaint of a process that has ended, or else the way of its end.
    """

    _log = Logger()

    def __init__(self, name: str) -> None:
        super().__init__(_KEPT)
        self._name = name
        self.complaint = ""

    def let_go_on(self) -> None:
        """Let the process begin its work."""
        self.process.write(b"\n")
        self.process.closeStdin()

    def leave(self) -> None:
        """Hear no more of the process than its end.

        From now on the process complains only of its clients.  And each pipe would take one of the
        files that the daemon may have open.
        """
        self.ignore(1, 2)

    def processEnded(self, reason: Failure) -> None:
        """Report the end of the process, by itself or not."""
        lines = self.err.strip().splitlines()
        self.complaint = lines[0] if lines else reason.getErrorMessage()
        self._log.info(
            "the server of export {name} has ended: {first}",
            name=self._name,
            first=readable(self.complaint),
        )
        super().processEnded(reason)


def start(
    reactor: IReactor,
    name: str,
    command: Sequence[str],
    files: Mapping[int, int],
    jail: Jail,
) -> NbdServer:
    """Start a process that outlives the daemon, and reaches only its own file.

    The process waits for :meth:`NbdServer.let_go_on`, so that no process runs without a record.  If
    the daemon dies before this call, the process reads the end of the pipe, and ends.  Where the
    daemon is root, the file belongs to the process's user from then on.

    :param files: descriptors in the process, mapped to the daemon's:
        :data:`bootvol.jail.LISTENER`, :data:`FILE`, and those of credentials.
    :raises ExportFailed: if the process cannot be confined.
    """
    found = os.fstat(files[FILE])
    # A session of its own, so that no terminal ends the process.  No core dump, since the memory
    # holds a guest's data.
    bounds = Bounds(
        reads=[each for each in files if each not in (LISTENER, FILE)],
        writes=[FILE],
        owns=[FILE],
        limits={"CORE": 0, **memory_limits(_MEMORY)},
        grows=room(found.st_size) if stat.S_ISREG(found.st_mode) else 0,
        waits=True,
        listens=True,
        aio=any(each == "--aio=native" for each in command),
    )
    try:
        whole = jail.command(command, bounds)
    except NotConfined as error:
        raise ExportFailed(f"The volume cannot be exported. {error}") from error
    pipes = {0: "w", 1: "r", 2: "r"}
    return spawn(reactor, NbdServer(name), whole, {**pipes, **files}, folder="/")
