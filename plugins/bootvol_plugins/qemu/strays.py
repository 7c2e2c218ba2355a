"""Processes of QEMU that no folder knows: somebody removed the folder or its files by hand.

Such a process is found in proc(5).  The words ``-name SERVER`` of its command name the server, and
no two servers ever have the same name.  The working directory is the server's folder.  The system
marks a removed working directory.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Final

import attrs

from bootvol.errors import HypervisorFailed
from bootvol.jail import Jail
from bootvol.processes import Process
from bootvol.reactors import IReactor
from bootvol.threads import Threads
from bootvol_plugins.qemu.folders import running

_PROC: Final = Path("/proc")
#: Longest time in seconds for a killed process to end.
_KILL: Final = 30.0
#: The mark of a removed directory (d_path in the kernel's documentation of file systems).
_REMOVED: Final = " (deleted)"


class Place(Enum):
    """The place of a process's folder."""

    HERE = "here"
    """In the directory of servers, but the files of the process are gone."""
    REMOVED = "removed"
    """The folder was in the directory of servers, and was removed."""
    ELSEWHERE = "elsewhere"
    """Outside of the directory of servers, or unreadable for the daemon."""


@attrs.frozen
class Stray:
    """A process of QEMU that no folder knows.

    :ivar server: name of the server.
    :ivar folder: the working directory, as the system writes the path; empty if unreadable.
    """

    process: Process
    server: str
    place: Place
    folder: str


@attrs.frozen
class Strays:
    """Finds and ends the processes that no folder knows.

    :ivar directory: the directory of servers.
    :ivar jail: knows the users of QEMU's processes.
    """

    directory: Path
    jail: Jail
    threads: Threads
    reactor: IReactor

    async def end(self, server: str) -> None:
        """End the processes of a server in the directory that no folder knows.  Idempotent.

        Another daemon may own a process elsewhere: see :meth:`refuse`.

        :raises TimeoutError: if a process does not end.
        """
        while found := await self._of(server, Place.HERE, Place.REMOVED):
            for each in found:
                await each.process.end(self.reactor, _KILL)

    async def clear(self, server: str) -> None:
        """End what :meth:`end` ends, and check that nothing else runs: see :meth:`refuse`."""
        await self.end(server)
        await self.refuse(server)

    async def refuse(self, server: str) -> None:
        """Check that no process of a server runs without a folder that knows the process.

        A process that is just starting counts, too, unless the caller has locked the folder.

        :raises HypervisorFailed: if such a process runs.
        """
        for each in await self._of(server, *Place):
            raise HypervisorFailed(
                f"Process {each.process.pid} runs server {each.server} in "
                f"{each.folder or 'an unknown folder'}, and the daemon does not reach this "
                "process: stop the server, or have the operator end the process."
            )

    async def _of(self, server: str, *places: Place) -> list[Stray]:
        found = await self.threads.run(self._find, server)
        return [each for each in found if each.place in places]

    async def running(self) -> Collection[str]:
        """Return the names of the running servers of the directory, whoever knows them."""
        return await self.threads.run(self._running)

    def _running(self) -> set[str]:
        here = (each.server for each in self._find() if each.place is not Place.ELSEWHERE)
        return {*running(self.directory), *here}

    def _find(self, server: str | None = None) -> list[Stray]:
        """Return the processes that no folder knows.  Blocks.

        :param server: name of a server; None for all servers.
        """
        root = os.path.realpath(self.directory)
        found = [
            each
            for pid in (int(name) for name in os.listdir(_PROC) if name.isdigit())
            for each in _strays(pid, root, self.jail.user(pid))
            if server in (each.server, None)
        ]
        # A folder may know the process by now.  A guest that has broken into QEMU may write the
        # name of another server into QEMU's command, but the folder of the guest's own server knows
        # the process.
        known = set(running(self.directory).values()) if found else set[int]()
        return [each for each in found if each.process.pid not in known]


def _strays(pid: int, root: str, user: int) -> Iterator[Stray]:
    """Yield the process with an id if the process is a server's."""
    with suppress(FileNotFoundError, ProcessLookupError):
        if os.stat(_PROC / str(pid)).st_uid not in (user, os.geteuid()):
            return
        process = Process.of(pid)
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        if process is None or "-name" not in words[:-1]:
            return
        server = words[words.index("-name") + 1]
        folder = _folder(pid)
        if folder == f"{root}/{server}":
            place = Place.HERE
        elif folder == f"{root}/{server}{_REMOVED}":
            place = Place.REMOVED
        else:
            place = Place.ELSEWHERE
        yield Stray(process, server, place, folder)


def _folder(pid: int) -> str:
    try:
        return os.readlink(_PROC / str(pid) / "cwd")
    except PermissionError:
        # The daemon is root without CAP_SYS_PTRACE, as in many containers.
        return ""
