"""Restricts the system calls that a program makes: seccomp(2), by libseccomp.

The filter refuses the calls that Landlock leaves out.
"""

from __future__ import annotations

import ctypes
import errno
import os

from .system import INET, INET6, UNIX, Lacking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: From seccomp.h of libseccomp.
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NE, _EQ, _GT, _MASKED_EQ = 1, 4, 6, 7
_OPTIMIZE, _TREE = 8, 2
#: The kernel reads only this half of many arguments.
_INT: Final = 0xFFFFFFFF
#: The flags of a thread, of a common table of files, and of new namespaces, from linux/sched.h; the
#: requests that type into a terminal of others (ioctl_tty(2)); and the number of close_range(2),
#: with its flag for a table of files of the thread's own.
_CLONE_THREAD, _CLONE_FILES = 1 << 16, 1 << 10
_CLOSE_RANGE, _UNSHARE = 436, 1 << 1
_CLONE_NEW: Final = (1 << 17, *(1 << bit for bit in range(25, 31)))
_TYPING: Final = (0x5412, 0x541C)
#: Requests for a signal of the kernel to another process when a file is ready, or for a lease that
#: holds a file against writers: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY (fcntl(2));
#: FIOSETOWN, SIOCSPGRP (asm-generic/sockios.h).  Landlock sees them only since its version 6.
_OWNING: Final = (8, 10, 15, 1024, 1026)
_OWNING_SOCKETS: Final = (0x8901, 0x8902)
#: The modes of fallocate(2) that take space beyond the end of a file: FALLOC_FL_KEEP_SIZE without
#: FALLOC_FL_PUNCH_HOLE.  The limit of the size of files (RLIMIT_FSIZE) does not count such space.
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
#: Requests for the same, and for other attributes of a file: FS_IOC_RESVSP, FS_IOC_RESVSP64,
#: FS_IOC_ZERO_RANGE (linux/falloc.h), FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR (linux/fs.h).
_RESERVING: Final = (0x40305828, 0x4030582A, 0x40305839, 0x40086602, 0x401C5820)
#: The kind of all requests of btrfs, in the second byte: new subvolumes, which no limit counts, or
#: the writing of all data of the file system.
_KIND, _BTRFS = 0xFF00, 0x9400
#: The families by the words of :class:`bootvol.jail.Sockets`, and the last family that the filter
#: refuses by its number.
FAMILIES: Final = {
    "none": (),
    "unix": (UNIX,),
    "internet": (INET, INET6),
    "all": (UNIX, INET, INET6),
}
_LAST: Final = 64
#: The mask of socket types without the flags beside them, and the type of streams (linux/net.h).
_TYPES, _STREAM = 0xF, 1

#: Calls that no program here needs: changes of all files of the program's user, anywhere (Landlock
#: does not see these); locks by which the daemon knows that the program lives; calls for other
#: processes, for shared resources of processes, and for the machine (``sync`` also writes the data
#: of others to the disks, and waits for that); new addresses of sockets.
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
    sync syncfs
    settimeofday clock_settime clock_adjtime adjtimex personality lookup_dcookie nfsservctl
""".split()  # noqa: SIM905 - names, not words to be quoted one by one
#: More such calls, newer than some libseccomp: fchmodat2, setxattrat, removexattrat, file_setattr;
#: and those of Landlock, whose rules take memory of the system without a limit.
_REFUSED_NUMBERS: Final = (452, 463, 466, 469, 444, 445, 446)
#: Modes of seccomp(2) and prctl(2) by which each thread could get filters of its own.  Filters that
#: all threads share (SECCOMP_FILTER_FLAG_TSYNC) take little memory.
_MODE_FILTER, _TSYNC, _PR_SET_SECCOMP = 1, 1, 22
#: More such calls, for programs that may make no sockets.
_CONNECTING: Final = ("connect", "socketcall")
#: Calls for which libraries know another way.  Files in memory count in no limit of a process.
_MISSING: Final = """
    clone3 io_uring_setup io_uring_enter io_uring_register memfd_create memfd_secret
""".split()  # noqa: SIM905 - names, not words to be quoted one by one
#: The call for native AIO.  All processes of the machine share the requests (aio-max-nr).
_AIO: Final = "io_setup"
#: SOL_SOCKET, and its options SO_SNDBUF and SO_SNDBUFFORCE (asm-generic/socket.h): larger buffers,
#: which count in no limit of a process.
_SOCKET: Final = 1
_LARGER: Final = (7, 32)
#: The flags of mapped memory that belongs to no file, and that processes could share (mmap(2)):
#: a limit of the data of a process (RLIMIT_DATA) does not count such memory.
_SHARED: Final = 0x01 | 0x20


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


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


def restrict_calls(families: tuple[int, ...], *, aio: bool) -> None:
    """From now on, let this process make only harmless system calls.

    :param families: families of sockets that the process may make.
    :param aio: whether the process may use native AIO.
    :raises Lacking: if the machine has no seccomp, or no libseccomp.
    """
    calls = _Filter()
    for call in (*_REFUSED, *_REFUSED_NUMBERS, *(() if families else _CONNECTING)):
        calls.refuse(call)
    for call in (*_MISSING, *(() if aio else (_AIO,))):
        calls.refuse(call, error=errno.ENOSYS)
    # This process keeps its id when it becomes another program.
    me = os.getpid()
    for call in ("kill", "tgkill"):
        calls.refuse(call, (0, _NE, me, 0))
    # Refuse the limits of other processes, and new limits of this process.
    calls.refuse("prlimit64", (0, _NE, 0, 0))
    calls.refuse("prlimit64", (2, _NE, 0, 0))
    calls.refuse("mmap", (3, _MASKED_EQ, _SHARED, _SHARED), error=errno.ENOMEM)
    for option in _LARGER:
        said = (1, _MASKED_EQ, _INT, _SOCKET), (2, _MASKED_EQ, _INT, option)
        calls.refuse("setsockopt", *said)
    own = (0, _MASKED_EQ, _INT, _MODE_FILTER), (1, _MASKED_EQ, _TSYNC, 0)
    calls.refuse("seccomp", *own)
    calls.refuse("prctl", (0, _MASKED_EQ, _INT, _PR_SET_SECCOMP))
    for flag in _CLONE_NEW:
        calls.refuse("clone", (0, _MASKED_EQ, flag, flag))
    # Let only threads pass: threads end with the program, and share its limits.  Processes do not.
    calls.refuse("clone", (0, _MASKED_EQ, _CLONE_THREAD, 0))
    # A limit counts the files in one table.  So all threads share one.
    calls.refuse("clone", (0, _MASKED_EQ, _CLONE_FILES, 0))
    calls.refuse(_CLOSE_RANGE, (2, _MASKED_EQ, _UNSHARE, _UNSHARE))
    reserving = (1, _MASKED_EQ, _KEEP_SIZE | _PUNCH_HOLE, _KEEP_SIZE)
    calls.refuse("fallocate", reserving, error=errno.EOPNOTSUPP)
    for request in (*_TYPING, *_OWNING_SOCKETS, *_RESERVING):
        calls.refuse("ioctl", (1, _MASKED_EQ, _INT, request))
    calls.refuse("ioctl", (1, _MASKED_EQ, _KIND, _BTRFS))
    for request in _OWNING:
        calls.refuse("fcntl", (1, _MASKED_EQ, _INT, request))
    for family in set(range(_LAST + 1)) - set(families):
        calls.refuse("socket", (0, _EQ, family, 0))
    calls.refuse("socket", (0, _GT, _LAST, 0))
    calls.refuse("socketpair", (0, _NE, UNIX, 0))
    for kind in set(range(_TYPES + 1)) - {_STREAM}:
        # Datagrams reach sockets that everybody may write to, such as the system's log.  The
        # sockets of a pair send to other addresses, too (unix(7)).
        calls.refuse("socket", (0, _EQ, UNIX, 0), (1, _MASKED_EQ, _TYPES, kind))
        calls.refuse("socketpair", (0, _EQ, UNIX, 0), (1, _MASKED_EQ, _TYPES, kind))
    calls.load()
