"""Confines programs that read strangers' data, or that run strangers' machines.

A confined program opens only its own code and the named files.  The program makes only sockets of
the named families, and reaches no other process.  Where the daemon is root, each such process also
has a user of its own, who owns nothing.  :mod:`bootvol.jail.program` starts, confines itself, and
becomes the wanted program: the process stays the same.
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

#: The first user id of processes under a root daemon.  People, services and containers have other
#: ids (systemd's "Users, Groups, UIDs and GIDs").
FIRST_USER: Final = 0x70000000
#: The number of these users.  A process's user id is the first one plus the process id, so no two
#: living processes have the same user.  Process ids end here (proc(5), "pid_max").
USERS: Final = 4 * 1024 * 1024
#: The descriptor of the listening socket in a program that gets one (sd_listen_fds(3)).
LISTENER: Final = 3
#: Most threads of a program with a user of its own.  QEMU has 64 for its disks, and some for each
#: virtual CPU and each image of Ceph.
THREADS: Final = 4096
#: Most descriptors of a program without sockets of the internet.  The system keeps up to 208 KiB
#: in each socket (net.core.wmem_default), beside the memory of the process.  QEMU has two
#: descriptors for each disk and virtual CPU.
FILES: Final = 4096
#: Bytes that a program may keep in memory, also of its files (mlock(2)).  Libraries do so with
#: secrets.
_LOCKED: Final = 1024 * 1024
_GIB: Final = 1024 * 1024 * 1024
#: Address space in bytes beside the memory in use.  The C library reserves 64 MiB for each thread.
_RESERVED: Final = 128 * _GIB
#: Memory of QEMU in bytes beside that of its machine: one GiB for translated code, and the stacks
#: of threads.  Ceph's library takes up to 300 MiB more for each disk.
_OF_QEMU: Final = 4 * _GIB
_OF_CEPH: Final = 8 * _GIB
#: From linux/capability.h: CAP_SYS_RESOURCE.
_SYS_RESOURCE: Final = 1 << 24
#: Imports the program: an import takes half as long as a compilation each time.
_RUN: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import program; program.main(sys.argv[1:])"
)


class NotConfined(Exception):
    """A program has to be confined, and cannot be confined here."""


class Sockets(Enum):
    """The sockets that a confined program may make.  Sockets given to the program always work."""

    NONE = "none"
    UNIX = "unix"
    """Streams to sockets in the file system, as far as the program's user may connect to them."""
    INTERNET = "internet"
    """IPv4 and IPv6."""
    ALL = "all"
    """Both."""


@attrs.frozen(kw_only=True)
class Bounds:
    """The bounds of one program.

    Descriptors are numbers in the program.  The program opens files once more by these numbers
    (``/proc/self/fd/N``).

    :ivar reads: files to open for reading: descriptors and paths.
    :ivar writes: files to open for reading and writing: descriptors and paths.
    :ivar owns: files of which the program's user becomes the owner, where the daemon is root.
    :ivar as_us: whether the program has the daemon's user, even where the daemon is root.
    :ivar groups: group ids of the program's user, where the daemon is root.
    :ivar limits: see setrlimit(2): ``{"AS": 2**30}``.
    :ivar grows: size in bytes up to which the program may write to any open file.  A soft limit,
        which the daemon may raise (prlimit(2)).  None lets files grow.
    :ivar dies_with_us: whether the program is killed when the daemon ends.
    :ivar waits: whether the program does nothing before a line comes on its standard input.
    :ivar listens: whether the program is told that :data:`LISTENER` is a listening socket.
    :ivar locks: descriptor that the process locks by fcntl(2), for reading; the lock tells the
        process id.
    :ivar aio: whether the program may use native AIO (io_setup(2)), which the machine shares.
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
    aio: bool = False


@attrs.frozen
class Jail:
    """Confines programs on this machine.

    :ivar required: whether a program must not run without full confinement.
    :ivar first_user: see :data:`FIRST_USER`.
    :ivar programs: folders that confined programs may read besides the system's own.
    """

    required: bool = True
    first_user: int = FIRST_USER
    programs: Sequence[Path] = ()

    def lacks(self) -> str | None:
        """Return the machine's first missing requirement as a clause; None if all are met.

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
        """Check that programs may run.

        :raises NotConfined: if programs have to be confined, and cannot be confined.
        """
        lacking = self.lacks() if self.required else None
        if lacking is not None:
            raise NotConfined(f"Programs cannot be confined here: {lacking}.")

    def user(self, pid: int) -> int:
        """Return the user id of a confined process.  Under root, each process has its own user."""
        return self.first_user + pid if os.geteuid() == 0 else os.geteuid()

    def words(self, bounds: Bounds) -> list[str]:
        """Return the words by which :mod:`bootvol.jail.program` knows some bounds.

        :raises NotConfined: if programs have to be confined, and cannot be: see :meth:`check`.
        """
        self.check()
        words = [f"sockets={bounds.sockets.value}", f"limit=MEMLOCK:{_LOCKED}"]
        if os.geteuid() == 0 and not bounds.as_us:
            words += [f"users={self.first_user}", f"limit=NPROC:{THREADS}"]
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
        if bounds.aio:
            words.append("aio")
        if bounds.locks is not None:
            words.append(f"lock={bounds.locks}")
        if not self.required:
            words.append("lax")
        return words

    def command(self, command: Sequence[str], bounds: Bounds) -> list[str]:
        """Return the command that runs another command within bounds.

        If the program cannot be run, the process ends with
        :data:`bootvol.jail.program.NOT_RUN`, and says why in the last line of its standard error.

        :raises NotConfined: if programs have to be confined, and cannot be: see :meth:`check`.
        """
        return [
            sys.executable,
            "-ISc",
            _RUN,
            str(here()),
            *self.words(bounds),
            "--",
            *command,
        ]


def here() -> Path:
    """Return the folder of :mod:`bootvol.jail.program`, for a Python without other packages."""
    return Path(program.__file__).parent.parent


def room(size: int) -> int:
    """Return the limit for a file of ``size`` bytes: whole pages, since QEMU writes whole pages."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def memory_limits(size: int) -> dict[str, int]:
    """Return the limits (:attr:`Bounds.limits`) of a program that uses ``size`` bytes of memory.

    The data of a process count as soon as the process may write to them.  Programs also reserve
    much address space without use.  Even the tables for such space take memory, so the space has a
    limit, too.
    """
    return {"DATA": size, "AS": size + _RESERVED, "NOFILE": FILES}


def machine_limits(mib: int, sockets: Sockets) -> dict[str, int]:
    """Return the limits (:attr:`Bounds.limits`) of a QEMU.

    No core dump, since QEMU's memory holds a guest's data.

    :param mib: memory of the machine in MiB.
    :param sockets: the sockets that QEMU may make.
    """
    size = mib * 1024 * 1024 + _OF_QEMU
    if sockets in (Sockets.NONE, Sockets.UNIX):
        return {"CORE": 0, **memory_limits(size)}
    limits = memory_limits(size + _OF_CEPH)
    # Each image of Ceph may need a connection to each disk of the cluster.
    del limits["NOFILE"]
    return {"CORE": 0, **limits}


def may_limit() -> bool:
    """Return whether the daemon may change the limits of a confined program (prlimit(2)).

    Root needs CAP_SYS_RESOURCE for such changes.  The root of many containers does not have this
    capability.
    """
    if os.geteuid() != 0:
        return True
    status = Path("/proc/self/status").read_text()
    rights = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(rights.split()[1], 16) & _SYS_RESOURCE)


def _path(file: int | Path) -> str:
    return f"/proc/self/fd/{file}" if isinstance(file, int) else str(file)


def _mapped(first: int) -> bool:
    """Return whether the namespace of this process knows all users (user_namespaces(7))."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, _, count = map(int, line.split())
        if inside <= first and first + USERS <= inside + count:
            return True
    return False
