"""The program that confines itself, and then becomes another program.

:class:`bootvol.jail.Jail` makes the arguments, and runs :func:`main` in a Python of its own.  This
module imports nothing of bootvol, and little else.  The module runs before each program that reads
strangers' data, and so must start fast.

Landlock (https://docs.kernel.org/userspace-api/landlock.html) lets the program open only the named
files.  seccomp(2), by libseccomp, refuses the calls that Landlock leaves out: sockets, signals to
others, changes of owners and modes, and calls that no reader of disks needs.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import stat
import sys

# No typing, signal or shutil: the import of each takes longer than all the work of this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

#: Exit code for a command that is not run, as of a shell.
NOT_RUN: Final = 126
#: From linux/prctl.h.
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_SIGKILL: Final = 9
#: From linux/capability.h.
_CAPABILITY_VERSION: Final = 0x20080522
#: More capabilities than exist.  The kernel refuses the first unknown one.
_CAPABILITIES: Final = 64

# --- Landlock: linux/landlock.h -------------------------------------------------------------------

#: The numbers of the system calls, the same on all machines (asm-generic/unistd.h).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
#: All rights to files, by the version of Landlock that brings the last of them.
_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
#: The rights to bind and to connect by TCP; and the scopes of abstract sockets and of signals.
_BIND_TCP, _CONNECT_TCP, _TCP_SINCE = 0b01, 0b10, 4
_SCOPES, _SCOPES_SINCE = 0b11, 6

#: The needs of every program: its code, its libraries and their data.
_SYSTEM: Final = """
    /bin /sbin /lib /lib32 /lib64
    /usr/bin /usr/sbin /usr/lib /usr/lib32 /usr/lib64 /usr/libexec /usr/share
    /usr/local/bin /usr/local/lib /usr/local/lib64 /usr/local/share
    /etc/ld.so.cache /etc/ld.so.preload /etc/localtime /etc/gnutls /etc/crypto-policies
    /dev/urandom /dev/random /dev/zero /sys/devices/system/cpu
""".split()  # noqa: SIM905 - names, not words to be quoted one by one
#: The files for finding a host by its name.
_NAMES: Final = """
    /etc/hosts /etc/resolv.conf /etc/nsswitch.conf /etc/host.conf /etc/gai.conf /etc/services
""".split()  # noqa: SIM905 - names, not words to be quoted one by one

# --- seccomp: seccomp.h of libseccomp -------------------------------------------------------------

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NE, _EQ, _GT, _MASKED_EQ = 1, 4, 6, 7
_OPTIMIZE, _TREE = 8, 2
#: The flags of a thread and of new namespaces, from linux/sched.h; and the requests that type into
#: a terminal of others (ioctl_tty(2)).
_CLONE_THREAD: Final = 1 << 16
_CLONE_NEW: Final = (1 << 17, *(1 << bit for bit in range(25, 31)))
_TYPING: Final = (0x5412, 0x541C)
#: Requests for a signal of the kernel to another process when a file is ready, or for a lease that
#: holds a file against writers: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY (fcntl(2));
#: FIOSETOWN, SIOCSPGRP (asm-generic/sockios.h).  Landlock sees them only since its version 6.
_OWNING: Final = (8, 10, 15, 1024, 1026)
_OWNING_SOCKETS: Final = (0x8901, 0x8902)
#: Families of sockets from linux/socket.h, and the last family that is refused by its number.
_UNIX, _INET, _INET6, _LAST = 1, 2, 10, 64
FAMILIES: Final = {
    "none": (),
    "unix": (_UNIX,),
    "internet": (_INET, _INET6),
    "all": (_UNIX, _INET, _INET6),
}
#: The mask of socket types without the flags beside them, and the type of streams (linux/net.h).
_TYPES, _STREAM = 0xF, 1

#: Calls that no program here needs: changes of all files of the program's user, anywhere (Landlock
#: does not see these); locks by which the daemon knows that the program lives; calls for other
#: processes, for shared resources of processes, and for the machine; new addresses of sockets.
_REFUSED: Final = """
    chmod fchmod fchmodat chown fchown fchownat lchown chown32 fchown32 lchown32
    truncate truncate64 utime utimes utimensat utimensat_time64 futimesat
    setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
    inotify_add_watch fanotify_init fanotify_mark name_to_handle_at open_by_handle_at
    quotactl quotactl_fd acct swapon swapoff flock fork vfork
    tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_getfd pidfd_send_signal
    ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp
    setrlimit setpriority ioprio_set sched_setparam sched_setscheduler sched_setattr
    sched_setaffinity migrate_pages move_pages perf_event_open
    shmget shmat shmctl semget semop semctl semtimedop semtimedop_time64
    msgget msgsnd msgrcv msgctl ipc mq_open mq_unlink add_key request_key keyctl
    mount umount umount2 pivot_root chroot unshare setns open_tree move_mount
    fsopen fsconfig fsmount fspick mount_setattr bpf userfaultfd
    init_module finit_module delete_module kexec_load kexec_file_load reboot
    iopl ioperm syslog sethostname setdomainname vhangup bind
    settimeofday clock_settime clock_adjtime adjtimex personality lookup_dcookie nfsservctl
""".split()  # noqa: SIM905 - names, not words to be quoted one by one
#: More such calls, newer than some libseccomp: fchmodat2, setxattrat, removexattrat, file_setattr.
_REFUSED_NUMBERS: Final = (452, 463, 466, 469)
#: More such calls, for programs that may make no sockets.
_CONNECTING: Final = ("connect", "socketcall")
#: Calls for which libraries know another way.
_MISSING: Final = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register")

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Lacking(Exception):
    """A requirement for running a confined program is missing."""


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def landlock() -> int:
    """Return the kernel's version of Landlock.

    :raises Lacking: if the kernel has no Landlock, or the system keeps programs from its use.
    """
    version = _libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        raise Lacking(f"the kernel has no Landlock ({os.strerror(ctypes.get_errno())})")
    return int(version)


def seccomp() -> ctypes.CDLL:
    """Return the library that makes filters of system calls.

    :raises Lacking: if the library is not installed.
    """
    try:
        found = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise Lacking("libseccomp.so.2 is not installed") from None
    found.seccomp_init.restype = ctypes.c_void_p
    return found


def restrict_files(reads: list[str], writes: list[str], families: tuple[int, ...]) -> None:
    """From now on, let this process open only the given files, and files below given folders.

    :param reads: paths of files to read.  Missing files are passed over.
    :param writes: paths of files to read and write.
    :param families: families of sockets that the process may make.
    :raises Lacking: if Landlock is missing: see :func:`landlock`.
    """
    version = landlock()
    handled = max(rights for since, rights in _RIGHTS.items() if since <= version)
    # The length of struct landlock_ruleset_attr depends on the version.
    words = [handled]
    if version >= _TCP_SINCE:
        words.append(_BIND_TCP if _INET in families else _BIND_TCP | _CONNECT_TCP)
    if version >= _SCOPES_SINCE:
        words.append(_SCOPES)
    attributes = (ctypes.c_uint64 * len(words))(*words)
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, ctypes.sizeof(attributes), 0)
    if ruleset < 0:
        raise Lacking(f"the kernel makes no Landlock rules ({os.strerror(ctypes.get_errno())})")
    reading = _READ_FILE | _READ_DIR | _EXECUTE
    writing = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
    for path in (*_SYSTEM, *(_NAMES if _INET in families else ()), *reads):
        _allow(ruleset, path, reading & handled)
    for path in ("/dev/null", *writes):
        _allow(ruleset, path, writing & handled)
    if _libc.syscall(_RESTRICT_SELF, ruleset, 0):
        raise Lacking(f"Landlock cannot be used ({os.strerror(ctypes.get_errno())})")
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        # struct landlock_path_beneath_attr is packed.
        rule = ctypes.create_string_buffer(
            rights.to_bytes(8, sys.byteorder) + descriptor.to_bytes(4, sys.byteorder)
        )
        if _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0):
            error = ctypes.get_errno()
            # Files in memory are opened without a rule.
            if error != errno.EBADFD:
                raise OSError(error, "Landlock takes no rule", path)
    finally:
        os.close(descriptor)


class _Filter:
    """A filter of system calls.  Calls pass unless refused.

    :raises Lacking: if libseccomp is missing: see :func:`seccomp`.
    """

    def __init__(self) -> None:
        self._library = seccomp()
        self._filter = ctypes.c_void_p(self._library.seccomp_init(_ALLOW))
        # A search in a tree, where the library knows how.
        self._library.seccomp_attr_set(self._filter, _OPTIMIZE, _TREE)

    def refuse(
        self, call: str | int, *arguments: tuple[int, int, int, int], error: int = errno.EPERM
    ) -> None:
        """Refuse a call, if its arguments meet all comparisons.

        :param call: name or number of the call.
        :param arguments: comparisons of arguments, each with the fields of struct scmp_arg_cmp.
        """
        number = call
        if isinstance(call, str):
            number = self._library.seccomp_syscall_resolve_name(call.encode())
            if int(number) < 0:
                # This kind of machine has no call of this name.
                return
        compared = (_Comparison * len(arguments))(*(_Comparison(*each) for each in arguments))
        action = ctypes.c_uint32(_ERRNO | error)
        said = self._library.seccomp_rule_add_array(
            self._filter, action, number, len(compared), compared
        )
        if said:
            raise Lacking(f"libseccomp takes no rule for the system call {call}")

    def load(self) -> None:
        """Let the filter hold for this process, and for the program that the process becomes."""
        if self._library.seccomp_load(self._filter):
            raise Lacking("the kernel takes no filter of system calls")
        self._library.seccomp_release(self._filter)


def restrict_calls(families: tuple[int, ...]) -> None:
    """From now on, let this process make only harmless system calls.

    :param families: families of sockets that the process may make.
    :raises Lacking: if the machine has no seccomp, or no libseccomp.
    """
    calls = _Filter()
    for call in (*_REFUSED, *_REFUSED_NUMBERS, *(() if families else _CONNECTING)):
        calls.refuse(call)
    for call in _MISSING:
        calls.refuse(call, error=errno.ENOSYS)
    # This process keeps its id when it becomes another program.
    me = os.getpid()
    for call in ("kill", "tgkill"):
        calls.refuse(call, (0, _NE, me, 0))
    # Refuse the limits of other processes, and new limits of this process.
    calls.refuse("prlimit64", (0, _NE, 0, 0))
    calls.refuse("prlimit64", (2, _NE, 0, 0))
    for flag in _CLONE_NEW:
        calls.refuse("clone", (0, _MASKED_EQ, flag, flag))
    # Let only threads pass: threads end with the program, and share its limits.  Processes do not.
    calls.refuse("clone", (0, _MASKED_EQ, _CLONE_THREAD, 0))
    for request in (*_TYPING, *_OWNING_SOCKETS):
        calls.refuse("ioctl", (1, _MASKED_EQ, 0xFFFFFFFF, request))
    for request in _OWNING:
        calls.refuse("fcntl", (1, _MASKED_EQ, 0xFFFFFFFF, request))
    for family in set(range(_LAST + 1)) - set(families):
        calls.refuse("socket", (0, _EQ, family, 0))
    calls.refuse("socket", (0, _GT, _LAST, 0))
    for kind in set(range(_TYPES + 1)) - {_STREAM}:
        # Datagrams reach sockets that everybody may write to, such as the system's log.
        calls.refuse("socket", (0, _EQ, _UNIX, 0), (1, _MASKED_EQ, _TYPES, kind))
    calls.load()


def drop_rights(uid: int | None, groups: list[int]) -> None:
    """Give up the rights of root, and become a user that owns nothing.

    :param uid: id of the user and of the user's group; None for the present user.
    :param groups: ids of further groups of the user.
    """
    if os.geteuid() == 0:
        for capability in range(_CAPABILITIES):
            if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                break
        # Leave nothing to inherit.  The array has effective, permitted and inheritable ones twice.
        head, found = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION), (ctypes.c_uint32 * 6)()
        _libc.capget(head, found)
        found[2] = found[5] = 0
        if _libc.capset(head, found):
            raise Lacking("capabilities cannot be dropped")
    if uid is not None:
        os.setgroups(groups)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise Lacking("the kernel knows no process without new privileges")


def _found(name: str) -> str | None:
    """Return the path of a program, as a shell finds the program."""
    folders = [""] if "/" in name else os.get_exec_path()
    paths = (os.path.join(folder, name) for folder in folders)
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def _die_with(parent: int) -> None:
    """Ask to be killed when the parent ends, and check that the parent has not ended already."""
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
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


def _become(arguments: list[str]) -> NoReturn:
    end = arguments.index("--")
    command = arguments[end + 1 :]
    said: dict[str, list[str]] = {}
    for word in arguments[:end]:
        key, _, value = word.partition("=")
        said.setdefault(key, []).append(value)
    program = _found(command[0])
    if program is None:
        raise Lacking(f"there is no program {command[0]}")
    _begin(said)
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
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (int(value), int(value)))
    for size in said.get("grow", []):
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), most))
    _confine(said, program)
    os.execv(program, command)  # noqa: S606 - no shell, and the words are the daemon's


def _begin(said: dict[str, list[str]]) -> None:
    """Do the steps that need the daemon's rights, or of which the program is told."""
    if "session" in said:
        os.setsid()
    if "wait" in said:
        _wait()
    for descriptor in said.get("lock", []):
        fcntl.lockf(int(descriptor), fcntl.LOCK_EX | fcntl.LOCK_NB)
    if "listen" in said:
        # By these a program finds its listening socket: sd_listen_fds(3).
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))


def _confine(said: dict[str, list[str]], program: str) -> None:
    families: tuple[int, ...] = FAMILIES[said["sockets"][0]]
    # The folder of the program may hold only a link to the program.
    reads = [program, os.path.realpath(program), *said.get("read", [])]
    try:
        restrict_files(reads, said.get("write", []), families)
    except Lacking:
        if "lax" not in said:
            raise
    try:
        restrict_calls(families)
    except Lacking:
        if "lax" not in said:
            raise
