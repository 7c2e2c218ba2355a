"""The processes that serve exports, which outlive the daemon."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from bootvol.devices import check_descriptors
from bootvol.errors import ExportFailed
from bootvol.jail import LISTENER, Bounds, Jail, NotConfined, room
from bootvol.threads import Shared

#: The most that is kept of what a process complains of, in bytes; what goes beyond is dropped.
_KEPT: Final = 4096
#: The descriptors that the file and a folder of credentials are in the process.
FILE, CREDENTIALS = 4, 5


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
    found = os.fstat(files[FILE])
    # Of its own session, so that no terminal ends it; no memory of it (a guest's data) on the disk.
    bounds = Bounds(
        reads=[each for each in files if each not in (LISTENER, FILE)],
        writes=[FILE],
        owns=[FILE],
        limits={"CORE": 0},
        grows=room(found.st_size) if stat.S_ISREG(found.st_mode) else 0,
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
