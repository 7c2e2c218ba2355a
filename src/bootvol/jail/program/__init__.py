"""The program that confines itself, and then becomes another program.

:class:`bootvol.jail.Jail` makes the arguments, and runs :func:`main` in a Python of its own.  The
package imports nothing else of bootvol, and little else: each program that reads strangers' data
waits for the package.

:mod:`.files` lets the program open only the named files.  :mod:`.calls` refuses the system calls
that :mod:`.files` leaves out: sockets, signals to others, changes of owners and modes, and calls
that no reader of disks needs.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource

from .calls import FAMILIES, restrict_calls, seccomp
from .files import landlock, restrict_files
from .system import Lacking, libc

# No typing, signal or shutil: the import of each takes longer than all the work of this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

__all__ = ["NOT_RUN", "Lacking", "landlock", "main", "seccomp", "stay"]

#: Exit code for a command that is not run, as of a shell.
NOT_RUN: Final = 126
#: From linux/prctl.h.
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_SIGKILL: Final = 9
#: From linux/capability.h.
_CAPABILITY_VERSION: Final = 0x20080522
#: More capabilities than exist.  The kernel refuses the first unknown one.
_CAPABILITIES: Final = 64


def drop_rights(uid: int | None, groups: list[int]) -> None:
    """Give up the rights of root, and become a user that owns nothing.

    :param uid: id of the user and of the user's group; None for the present user.
    :param groups: ids of further groups of the user.
    """
    if os.geteuid() == 0:
        for capability in range(_CAPABILITIES):
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                break
        # Leave nothing to inherit.  The array has effective, permitted and inheritable ones twice.
        head, found = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION), (ctypes.c_uint32 * 6)()
        libc.capget(head, found)
        found[2] = found[5] = 0
        if libc.capset(head, found):
            raise Lacking("capabilities cannot be dropped")
    if uid is not None:
        os.setgroups(groups)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise Lacking("the kernel knows no process without new privileges")


def _found(name: str) -> str | None:
    """Return the path of a program, as a shell finds the program."""
    folders = [""] if "/" in name else os.get_exec_path()
    paths = (os.path.join(folder, name) for folder in folders)
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def _die_with(parent: int) -> None:
    """Ask to be killed when the parent ends, and check that the parent has not ended already."""
    libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise Lacking("its daemon has ended")


def _wait() -> None:
    """Wait for a line on the standard input.  The end of the pipe means the daemon's end."""
    while (byte := os.read(0, 1)) != b"\n":
        if not byte:
            raise Lacking("its daemon has ended")


def main(arguments: list[str]) -> NoReturn:
    """Become a confined command.  End with :data:`NOT_RUN` if the command cannot run.

    :param arguments: the words of :meth:`bootvol.jail.Jail.command`, ``--``, and the command.
    """
    try:
        _become(arguments)
    except (OSError, Lacking) as error:
        os.write(2, f"bootvol: the program is not run: {error}\n".encode())
        os._exit(NOT_RUN)


def stay(arguments: list[str]) -> None:
    """Confine this process, which has opened all its files.

    :param arguments: the words of :meth:`bootvol.jail.Jail.words`.
    :raises Lacking: if the process cannot be confined.
    """
    said = _said(arguments)
    _begin(said)
    _restrict(said)


def _become(arguments: list[str]) -> NoReturn:
    end = arguments.index("--")
    command = arguments[end + 1 :]
    said = _said(arguments[:end])
    program = _found(command[0])
    if program is None:
        raise Lacking(f"there is no program {command[0]}")
    _begin(said)
    # The folder of the program may hold only a link to the program.
    _restrict(said, program, os.path.realpath(program))
    os.execv(program, command)  # noqa: S606 - no shell, and the words are the daemon's


def _said(words: list[str]) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    for word in words:
        key, _, value = word.partition("=")
        said.setdefault(key, []).append(value)
    return said


def _restrict(said: dict[str, list[str]], *reads: str) -> None:
    """Give up all rights that the words do not grant.

    :param reads: paths of files to read, besides those of the words.
    """
    uid = int(said["users"][0]) + os.getpid() if "users" in said else None
    if uid is not None:
        for path in said.get("own", []):
            os.chown(path, uid, -1)
    drop_rights(uid, [int(group) for group in said.get("group", [])])
    if "parent" in said:
        # Not before: a change of the user would undo this.
        _die_with(int(said["parent"][0]))
    for word in said.get("limit", []):
        name, value = word.split(":")
        _limit(getattr(resource, f"RLIMIT_{name}"), int(value), can_be_raised=False)
    for size in said.get("grow", []):
        _limit(resource.RLIMIT_FSIZE, int(size), can_be_raised=True)
    _confine(said, [*reads, *said.get("read", [])])


def _limit(kind: int, wanted: int, *, can_be_raised: bool) -> None:
    """Set a limit, at most to the limit that this process has already."""
    most = resource.getrlimit(kind)[1]
    limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(kind, (limit, most if can_be_raised else limit))


def _begin(said: dict[str, list[str]]) -> None:
    """Do the steps that need the daemon's rights, or of which the program is told."""
    if "session" in said:
        os.setsid()
    if "wait" in said:
        _wait()
    for descriptor in said.get("lock", []):
        # A lock of readers: whoever may write to the file could fill the disk.
        fcntl.lockf(int(descriptor), fcntl.LOCK_SH | fcntl.LOCK_NB)
    if "listen" in said:
        # By these a program finds its listening socket: sd_listen_fds(3).
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))


def _confine(said: dict[str, list[str]], reads: list[str]) -> None:
    families: tuple[int, ...] = FAMILIES[said["sockets"][0]]
    try:
        restrict_files(reads, said.get("write", []), families)
    except Lacking:
        if "lax" not in said:
            raise
    try:
        restrict_calls(families, aio="aio" in said)
    except Lacking:
        if "lax" not in said:
            raise
