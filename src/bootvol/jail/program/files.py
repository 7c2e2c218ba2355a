"""Restricts the files that a program opens: Landlock.

https://docs.kernel.org/userspace-api/landlock.html; the numbers are those of linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys

from .system import INET, Lacking, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

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
    /dev/urandom /dev/random /sys/devices/system/cpu
""".split()  # noqa: SIM905 - names, not words to be quoted one by one
#: The files for finding a host by its name.
_NAMES: Final = """
    /etc/hosts /etc/resolv.conf /etc/nsswitch.conf /etc/host.conf /etc/gai.conf /etc/services
""".split()  # noqa: SIM905 - names, not words to be quoted one by one


def landlock() -> int:
    """Return the kernel's version of Landlock.

    :raises Lacking: if the kernel has no Landlock, or the system keeps programs from its use.
    """
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        raise Lacking(f"the kernel has no Landlock ({os.strerror(ctypes.get_errno())})")
    return int(version)


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
        words.append(_BIND_TCP if INET in families else _BIND_TCP | _CONNECT_TCP)
    if version >= _SCOPES_SINCE:
        words.append(_SCOPES)
    attributes = (ctypes.c_uint64 * len(words))(*words)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.sizeof(attributes), 0)
    if ruleset < 0:
        raise Lacking(f"the kernel makes no Landlock rules ({os.strerror(ctypes.get_errno())})")
    reading = _READ_FILE | _READ_DIR | _EXECUTE
    writing = _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
    for path in (*_SYSTEM, *(_NAMES if INET in families else ()), *reads):
        _allow(ruleset, path, reading & handled)
    for path in ("/dev/null", *writes):
        _allow(ruleset, path, writing & handled)
    if libc.syscall(_RESTRICT_SELF, ruleset, 0):
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
        if libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0):
            error = ctypes.get_errno()
            # Files in memory are opened without a rule.
            if error != errno.EBADFD:
                raise OSError(error, "Landlock takes no rule", path)
    finally:
        os.close(descriptor)
