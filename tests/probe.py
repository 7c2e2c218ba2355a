"""The attacks of an intruder in a confined program. The system's Python runs this file.

``WORLD`` describes the targets.  Each function above the helpers at the end is an attack, and
returns whether the attack worked.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Filled in by :func:`tests.jails.script`.
WORLD: dict[str, Any] = {}

#: Bytes: more than any of the files has.
BEYOND = 1 << 24
GIB = 1 << 30

#: Memory that a thread uses.
KEPT: list[object] = []

libc = ctypes.CDLL(None, use_errno=True)


def reads_secrets() -> bool:
    return any(Path(each).read_bytes() for each in present(WORLD["secrets"]))


def reads_through_folders() -> bool:
    return bool(os.listdir(WORLD["folder"]))


def reads_what_all_may_read() -> bool:
    return bool(Path("/etc/passwd").read_bytes())


def writes_a_volume() -> bool:
    with open(WORLD["volume"], "r+b") as file:
        return file.write(b"MINE") > 0


def writes_a_volume_by_mmap() -> bool:
    with open(WORLD["volume"], "r+b") as file:
        return maps(file.fileno())


def writes_what_it_has_open() -> bool:
    return any(attempt(maps, each) or attempt(os.pwrite, each, b"MINE", 0) for each in held())


def writes_what_it_opens_again() -> bool:
    return any(opens(f"/proc/self/fd/{each}") for each in held())


def grows_what_it_has_open() -> bool:
    return any(
        attempt(grows, f"/proc/self/fd/{each}") or attempt(os.pwrite, each, b"MINE", BEYOND)
        for each in held()
    )


def fills_a_disk_beyond_the_end() -> bool:
    # Space beyond its end does not count in the size of a file: FALLOC_FL_KEEP_SIZE, alone and with
    # FALLOC_FL_ZERO_RANGE.
    return any(attempt(reserves, each, mode) for each in reopened() for mode in (0x01, 0x11))


def fills_a_disk_beyond_the_end_by_old_calls() -> bool:
    # FS_IOC_RESVSP, FS_IOC_RESVSP64, FS_IOC_ZERO_RANGE
    requests = (0x40305828, 0x4030582A, 0x40305839)
    return any(attempt(reserves_by, each, call) for each in reopened() for call in requests)


def changes_the_flags_of_a_file() -> bool:
    # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
    flags = bytearray(8)
    return any(
        attempt(fcntl.ioctl, each, 0x80086601, flags) is not None
        and attempt(fcntl.ioctl, each, 0x40086602, flags) is not None
        for each in held()
    )


def asks_btrfs_for_volumes() -> bool:
    # BTRFS_IOC_SUBVOL_CREATE. Other file systems do not know the request.
    try:
        fcntl.ioctl(held()[0], 0x5000940E, bytearray(4096))
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def raises_its_limits() -> bool:
    resource.setrlimit(resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE))
    return True


def cuts_a_volume() -> bool:
    os.truncate(WORLD["volume"], 0)
    return True


def opens_a_volume_to_others() -> bool:
    os.chmod(WORLD["volume"], 0o666)
    return True


def changes_the_time_of_a_volume() -> bool:
    os.utime(WORLD["volume"], (1, 1))
    return True


def marks_a_volume() -> bool:
    os.setxattr(WORLD["volume"], "user.mine", b"1")
    return True


def deletes_a_file() -> bool:
    os.unlink(WORLD["spare"] + ".old")
    return True


def renames_a_file() -> bool:
    os.rename(WORLD["spare"], WORLD["spare"] + ".mine")
    return True


def makes_a_file() -> bool:
    return any(
        attempt(tempfile.mkstemp, dir=folder)
        for folder in (WORLD["folder"], "/tmp", "/dev/shm", ".")
    )


def makes_links() -> bool:
    os.symlink("/etc/passwd", WORLD["folder"] + "/link")
    return True


def watches_a_folder() -> bool:
    inotify = libc.inotify_init()
    return int(libc.inotify_add_watch(inotify, WORLD["folder"].encode(), 0xFFF)) >= 0


def reads_of_the_daemon() -> bool:
    names = ("environ", "cmdline", "maps", "status", "mem", "root/etc/passwd")
    return any(attempt(os.open, f"/proc/{WORLD['pid']}/{name}", os.O_RDONLY) for name in names)


def reads_files_of_the_daemon() -> bool:
    folder = f"/proc/{WORLD['pid']}/fd"
    return bool(attempt(os.listdir, folder)) or bool(attempt(os.readlink, f"{folder}/0"))


def reads_of_others() -> bool:
    return bool(Path("/proc/1/status").read_bytes())


def signals_the_daemon() -> bool:
    os.kill(WORLD["pid"], 0)
    return True


def signals_its_threads() -> bool:
    tgkill, tkill, queue = 234, 200, 129
    calls = ((tgkill, WORLD["pid"], WORLD["pid"], 0), (tkill, WORLD["pid"], 0))
    info = ctypes.create_string_buffer(128)
    return any(not libc.syscall(*call) for call in calls) or not libc.syscall(
        queue, WORLD["pid"], 0, info
    )


def signals_all() -> bool:
    os.kill(-1, 0)
    return True


def has_the_kernel_signal_the_daemon() -> bool:
    reading, _writing = os.pipe()
    return not fcntl.fcntl(reading, fcntl.F_SETOWN, WORLD["pid"])


def holds_the_daemon() -> bool:
    return os.pidfd_open(WORLD["pid"]) >= 0


def traces_the_daemon() -> bool:
    # PTRACE_SEIZE does not stop the process.
    return bool(libc.ptrace(0x4206, WORLD["pid"], None, None) == 0)


def limits_the_daemon() -> bool:
    resource.prlimit(WORLD["pid"], resource.RLIMIT_CORE)
    return True


def slows_the_daemon() -> bool:
    os.setpriority(os.PRIO_PROCESS, WORLD["pid"], os.getpriority(os.PRIO_PROCESS, WORLD["pid"]))
    return True


def connects_by_path() -> bool:
    return connects(WORLD["socket"])


def connects_beside_its_own() -> bool:
    return any(attempt(connects, f"/proc/self/fd/{each}/{WORLD['beside']}") for each in held())


def finds_the_sockets_of_others() -> bool:
    # Of sockets with random names, whoever cannot list them finds none.
    folders = [f"/proc/self/fd/{each}" for each in held()]
    listed = [attempt(os.listdir, each) or [] for each in [*folders, *held()]]
    if any(WORLD["beside"] in each for each in listed):
        return True
    return WORLD["beside"] in Path("/proc/net/unix").read_text()


def connects_by_abstract_name() -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + WORLD["abstract"])
    return True


def connects_by_tcp() -> bool:
    socket.create_connection(("127.0.0.1", WORLD["port"]), 5).close()
    return True


def writes_to_the_systems_log() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"x", WORLD["log"]) > 0


def writes_to_the_systems_log_by_a_pair() -> bool:
    # The sockets of a pair are connected, and send to other addresses all the same (unix(7)).
    kinds = (socket.SOCK_DGRAM, socket.SOCK_RAW)
    calls = (sends_by_a_pair, connects_a_pair)
    return any(attempt(call, kind) for call in calls for kind in kinds)


def sends_by_udp() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"x", ("127.0.0.1", WORLD["port"])) > 0


def listens() -> bool:
    socket.create_server(("127.0.0.1", 0)).close()
    return True


def asks_the_kernel() -> bool:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW):
        return True


def makes_a_namespace() -> bool:
    # CLONE_NEWUSER
    return bool(libc.unshare(0x10000000) == 0)


def shares_memory() -> bool:
    return int(libc.shmget(0x626F6F74, 4096, 0o1666)) >= 0


def keeps_a_key() -> bool:
    # add_key, to the keyring of the user
    return int(libc.syscall(248, b"user", b"mine", b"1", 1, -4)) >= 0


def takes_memory() -> bool:
    return bool(attempt(mapped, 32 * GIB, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE))


def takes_memory_that_it_could_share() -> bool:
    return bool(attempt(mapped, GIB, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED))


def takes_memory_in_a_file() -> bool:
    return bool(os.memfd_create("mine"))


def takes_memory_by_a_device() -> bool:
    with open("/dev/zero", "rb") as file:
        return len(mmap.mmap(file.fileno(), 4096, mmap.MAP_SHARED, mmap.PROT_READ)) > 0


def keeps_memory_from_others() -> bool:
    # mlock(2) of a file, whose pages count in no limit of data.
    file, size = os.open(sys.executable, os.O_RDONLY), 2 * 1024 * 1024
    libc.mmap.restype = ctypes.c_void_p
    start = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_PRIVATE, file, 0)
    return not libc.mlock(ctypes.c_void_p(start), ctypes.c_size_t(size))


def takes_memory_for_tables() -> bool:
    # The tables of this much address space take two GiB.
    return bool(attempt(mapped, 1024 * GIB, mmap.PROT_READ, mmap.MAP_PRIVATE))


def takes_memory_in_sockets() -> bool:
    return bool([socket.socketpair() for _ in range(4000)])


def takes_much_memory_in_a_socket() -> bool:
    ours, _theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024 * 1024)
    return True


def takes_much_memory_in_a_socket_by_a_larger_number() -> bool:
    # The kernel looks at half of each argument: setsockopt(SOL_SOCKET, SO_SNDBUF).
    ours, _theirs = socket.socketpair()
    more, upper = ctypes.byref(ctypes.c_int(1024 * 1024)), 1 << 32
    calls = (upper | 1, 7), (1, upper | 7)
    return any(
        not libc.syscall(54, ours.fileno(), *map(ctypes.c_long, each), more, 4) for each in calls
    )


def takes_more_tables_of_files() -> bool:
    # close_range(CLOSE_RANGE_UNSHARE): each thread could have as many files as its process.
    return not libc.syscall(436, 1 << 30, 1 << 30, 2)


def takes_more_tables_of_files_in_threads() -> bool:
    # clone(CLONE_VM | CLONE_SIGHAND | CLONE_THREAD) of a thread that ends itself by exit(0).
    memory = mmap.mmap(-1, 8192, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)
    KEPT.append(memory)
    memory[:9] = b"\xb8\x3c\0\0\0\x31\xff\x0f\x05"
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return int(libc.clone(*map(ctypes.c_void_p, (start, start + 8192)), 0x10900, None)) > 0


def takes_memory_in_filters() -> bool:
    # seccomp(SECCOMP_SET_MODE_FILTER), prctl(PR_SET_SECCOMP): each thread could have its own.
    rules = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))
    filter_ = struct.pack("HxxxxxxQ", 1, ctypes.addressof(rules))
    return not libc.syscall(317, 1, 0, filter_) or not libc.prctl(22, 2, filter_)


def takes_memory_in_rules() -> bool:
    # landlock_create_ruleset: any number of rules for any number of threads.
    return int(libc.syscall(444, ctypes.byref(ctypes.c_uint64(1)), 8, 0)) >= 0


def takes_what_all_processes_share() -> bool:
    # io_setup
    return not libc.syscall(206, 1, ctypes.byref(ctypes.c_void_p()))


def writes_the_data_of_all() -> bool:
    # syncfs of a file system without a disk, and sync.
    reading, _writing = os.pipe()
    return not libc.syscall(306, reading) or not libc.syscall(162)


def lets_go_of_the_daemons_locks() -> bool:
    return any(attempt(flocks, each) for each in held())


def leaves_a_child() -> bool:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return True


def a_child_reads_secrets() -> bool:
    child = os.fork()
    if not child:
        with contextlib.suppress(Exception):
            os._exit(int(reads_secrets()))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


# --- helpers --------------------------------------------------------------------------------------


def present(paths: list[str]) -> list[str]:
    return [path for path in paths if attempt(os.open, path, os.O_RDONLY)]


def held() -> list[int]:
    """Return the inherited descriptors, except the standard three."""
    return [each for each in range(3, 64) if attempt(os.fstat, each)]


def mapped(length: int, protection: int, flags: int) -> bool:
    """Map memory without a file, and let go of the memory."""
    # MAP_NORESERVE
    flags |= mmap.MAP_ANONYMOUS | 0x4000
    mmap.mmap(-1, length, flags, protection).close()
    return True


def maps(descriptor: int) -> bool:
    with mmap.mmap(descriptor, 4) as mapped:
        mapped[:4] = b"MINE"
    return True


def opens(path: str) -> bool:
    descriptor = attempt(os.open, path, os.O_RDWR)
    # A pipe that the program has open anyway is not one of the daemon's files.
    return descriptor is not None and stat.S_ISREG(os.fstat(descriptor).st_mode)


def grows(path: str) -> bool:
    with open(path, "r+b") as file:
        return os.pwrite(file.fileno(), b"MINE", BEYOND) > 0


def reopened() -> list[int]:
    """Return the inherited descriptors, and further ones of the same files for writing."""
    again = (attempt(os.open, f"/proc/self/fd/{each}", os.O_RDWR) for each in held())
    return [*held(), *(each for each in again if each is not None)]


def reserves(descriptor: int, mode: int) -> bool:
    return gets_space(
        descriptor,
        lambda: libc.fallocate64(descriptor, mode, *map(ctypes.c_int64, (BEYOND, BEYOND))),
    )


def reserves_by(descriptor: int, request: int) -> bool:
    # struct space_resv
    wanted = struct.pack("hxxxxxxqqiI16x", 0, BEYOND, BEYOND, 0, 0)
    return gets_space(descriptor, lambda: fcntl.ioctl(descriptor, request, wanted))


def gets_space(descriptor: int, call: Callable[[], object]) -> bool:
    """Make a call; return whether the file takes more space.  Give the space back."""
    before = os.fstat(descriptor)
    call()
    took = os.fstat(descriptor).st_blocks > before.st_blocks
    os.ftruncate(descriptor, before.st_size)
    return took


def connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
    return True


def sends_by_a_pair(kind: int) -> bool:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        return ours.sendto(b"x", WORLD["log"]) > 0


def connects_a_pair(kind: int) -> bool:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        ours.connect(WORLD["log"])
        return ours.send(b"x") > 0


def flocks(descriptor: int) -> bool:
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def attempt(call: Any, *arguments: Any, **more: Any) -> Any:
    """Return the result of a call; None if the call fails."""
    with contextlib.suppress(OSError, ValueError):
        return call(*arguments, **more)
    return None


HELPERS = {
    "mapped",
    *("present", "held", "maps", "opens", "grows", "connects", "sends_by_a_pair", "reopened"),
    *("reserves", "reserves_by", "gets_space"),
    *("connects_a_pair", "flocks", "attempt"),
}
ATTACKS = [
    value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__ and name not in HELPERS
]


def main() -> None:
    """Run all attacks, and report the successful ones."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    done = []
    for attack in ATTACKS:
        with contextlib.suppress(OSError, ValueError):
            if attack():
                done.append(attack.__name__)
    print("probe: done=" + json.dumps({"of": len(ATTACKS), "done": done}), file=sys.stderr)
    sys.exit(1)
