"""Confines programs that read what strangers wrote, or in which strangers' machines run.

A confined program opens nothing but its own code and the files that are named, makes no sockets but
of the families that are named, and reaches no other process.  Where the daemon is root, each such
process also has a user of its own, who owns nothing.  :mod:`bootvol.jail.program` is started,
confines itself, and becomes the program that is wanted: the process stays the same.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Final

import attrs

from bootvol.jail import program

#: The first of the users that processes have under a root daemon.  People, services and containers
#: have other numbers (systemd's "Users, Groups, UIDs and GIDs").
FIRST_USER: Final = 0x70000000
#: How many there are: a process's user is the first one and the number of the process, so no two
#: that live have the same.  Numbers of processes end here (proc(5), "pid_max").
USERS: Final = 4 * 1024 * 1024
#: The descriptor of a listening socket in a program that is given one (sd_listen_fds(3)).
LISTENER: Final = 3
#: From linux/capability.h: CAP_SYS_RESOURCE.
_SYS_RESOURCE: Final = 1 << 24
#: Imports the program, as that takes half as long as to compile it each time.
_RUN: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import program; program.main(sys.argv[1:])"
)


class NotConfined(Exception):
    """A program cannot be confined here, and has to be."""


class Sockets(Enum):
    """What a confined program may make sockets of; those that it is given work in any case."""

    NONE = "none"
    UNIX = "unix"
    """Streams to sockets in the file system, as far as the program's user may connect to them."""
    INTERNET = "internet"
    """IPv4 and IPv6."""
    ALL = "all"
    """Both."""


@attrs.frozen(kw_only=True)
class Bounds:
    """What one program may do.

    Descriptors are numbers in the program, by which it opens files once more (``/proc/self/fd/N``).

    :ivar reads: descriptors of files that are opened for reading, and paths.
    :ivar writes: descriptors of files that are opened for reading and writing, and paths.
    :ivar owns: paths whose owner the program's user becomes, where the daemon is root.
    :ivar as_us: its user is the daemon's, where that is root, too.
    :ivar groups: of its user, where the daemon is root.
    :ivar limits: see setrlimit(2): ``{"AS": 2**30}``.
    :ivar grows: the size in bytes up to which the program may write to files, whatever it has open:
        a soft limit, which the daemon may raise (prlimit(2)); None lets files grow.
    :ivar dies_with_us: the program is killed when the daemon ends.
    :ivar waits: it does nothing before a line comes on its standard input.
    :ivar listens: it is told that :data:`LISTENER` is a listening socket.
    :ivar locks: a descriptor that the process locks by fcntl(2), which tells its number.
    """

    reads: Sequence[int | Path] = ()
    writes: Sequence[int | Path] = ()
    owns: Sequence[int | Path] = ()
    as_us: bool = False
    groups: Sequence[int] = ()
    sockets: Sockets = Sockets.NONE
    limits: Mapping[str, int] = {}
    grows: int | None = None
    dies_with_us: bool = False
    waits: bool = False
    listens: bool = False
    locks: int | None = None


@attrs.frozen
class Jail:
    """How programs are confined on this machine.

    :ivar required: no program runs that cannot be confined as it should be.
    :ivar first_user: see :data:`FIRST_USER`.
    :ivar programs: folders that confined programs may read besides the system's own.
    """

    required: bool = True
    first_user: int = FIRST_USER
    programs: Sequence[Path] = ()

    def lacks(self) -> str | None:
        """Return what the machine lacks for this, as a clause; None if it lacks nothing.

        Blocks no longer than a system call.
        """
        try:
            program.landlock()
            program.seccomp()
        except program.Lacking as lacking:
            return str(lacking)
        if os.geteuid() == 0 and not _mapped(self.first_user):
            return f"users from {self.first_user} on are not known to this container"
        return None

    def check(self) -> None:
        """See whether programs may run.

        :raises NotConfined: they cannot be confined, and have to be.
        """
        lacking = self.lacks() if self.required else None
        if lacking is not None:
            raise NotConfined(f"Programs cannot be confined here: {lacking}.")

    def user(self, pid: int) -> int:
        """Return the user that a confined process has: of a root daemon's, one of its own."""
        return self.first_user + pid if os.geteuid() == 0 else os.geteuid()

    def command(self, command: Sequence[str], bounds: Bounds) -> list[str]:
        """Return the command that runs another one within bounds.

        If the program cannot be run, the process ends with
        :data:`bootvol.jail.program.NOT_RUN`, and says why in the last line of its standard error.

        :raises NotConfined: see :meth:`check`.
        """
        self.check()
        words = [f"sockets={bounds.sockets.value}"]
        if os.geteuid() == 0 and not bounds.as_us:
            words.append(f"users={self.first_user}")
            words += [f"own={_path(each)}" for each in bounds.owns]
            words += [f"group={each}" for each in bounds.groups]
        words += [f"read={_path(each)}" for each in (*self.programs, *bounds.reads)]
        words += [f"write={_path(each)}" for each in bounds.writes]
        words += [f"limit={name}:{most}" for name, most in bounds.limits.items()]
        if bounds.grows is not None:
            words.append(f"grow={bounds.grows}")
        if bounds.dies_with_us:
            words.append(f"parent={os.getpid()}")
        else:
            words.append("session")
        if bounds.waits:
            words.append("wait")
        if bounds.listens:
            words.append("listen")
        if bounds.locks is not None:
            words.append(f"lock={bounds.locks}")
        if not self.required:
            words.append("lax")
        return [
            sys.executable,
            "-ISc",
            _RUN,
            str(Path(program.__file__).parent),
            *words,
            "--",
            *command,
        ]


def room(size: int) -> int:
    """Return the limit for a file of so many bytes: QEMU writes whole pages."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def may_limit() -> bool:
    """Tell whether the daemon may change the limits of a program that is confined (prlimit(2)).

    Root needs CAP_SYS_RESOURCE for that, which many containers of the name have not.
    """
    if os.geteuid() != 0:
        return True
    status = Path("/proc/self/status").read_text()
    rights = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(rights.split()[1], 16) & _SYS_RESOURCE)


def _path(file: int | Path) -> str:
    return f"/proc/self/fd/{file}" if isinstance(file, int) else str(file)


def _mapped(first: int) -> bool:
    """Tell whether all users are known to the namespace of this process (user_namespaces(7))."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, _, count = map(int, line.split())
        if inside <= first and first + USERS <= inside + count:
            return True
    return False
