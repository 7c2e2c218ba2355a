"""Checks of the machine, for plugins and the core: folders, files and programs that settings name.

A check changes nothing on the machine.  Every function here blocks: call checks before the reactor
runs, or in a thread.
"""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import attrs

from bootvol import reading

#: The file systems of Linux in which the kernel alone makes files.  Root seems to have the right to
#: write to their folders.
_WITHOUT_FILES: Final = frozenset(
    {
        "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs",
        "fusectl", "mqueue", "nsfs", "proc", "pstore", "securityfs", "selinuxfs", "sysfs",
        "tracefs",
    }
)  # fmt: skip


@attrs.frozen
class Mistake:
    """One fault that a check found.

    :ivar key: the setting, relative to the checked table: ``directory``.
    :ivar value: the value of the setting; never a secret.
    :ivar fault: one clause for the operator: ``the folder cannot be written``.
    :ivar remedy: one sentence for the operator: how to mend the fault.
    :ivar fatal: False if the daemon runs anyway, with less than the configuration asks for.
    """

    key: str
    value: object
    fault: str
    remedy: str
    fatal: bool = True

    def __str__(self) -> str:
        shown = str(self.value) if isinstance(self.value, Path) else self.value
        return f"{self.key}: {shown!r}: {self.fault}. {self.remedy}"


def folder(key: str, path: Path) -> Iterator[Mistake]:
    """Check a folder that the daemon writes to.  The daemon makes a missing folder.

    :param key: see :attr:`Mistake.key`.
    """
    found = existing(path)
    if not found.is_dir():
        yield Mistake(key, path, f"{found} is not a folder", "Name another folder.")
    elif (most := os.statvfs(found).f_namemax) < max(len(os.fsencode(part)) for part in path.parts):
        fault = f"a name in the path is longer than {most} bytes"
        yield Mistake(key, path, fault, "Name another folder.")
    elif (kind := _file_system(found)) in _WITHOUT_FILES:
        fault = f"{found} is on a file system without files of programs ({kind})"
        yield Mistake(key, path, fault, "Name a folder on a disk.")
    elif not os.access(found, os.W_OK | os.X_OK, effective_ids=True):
        doing = "be written" if found == path else f"be made: {found} cannot be written"
        yield Mistake(
            key,
            path,
            f"the folder cannot {doing}",
            "Give the daemon's user the right to write to the folder, or name another folder.",
        )


def existing(path: Path) -> Path:
    """Return the path itself if it exists, else the nearest folder above that exists."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def _file_system(folder: Path) -> str:
    """Return the type of the file system of a folder; empty if the system does not tell."""
    device = os.stat(folder).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        # See proc_pid_mountinfo(5).  All mounts of one device have the same type.
        for line in Path("/proc/self/mountinfo").read_bytes().decode(errors="replace").splitlines():
            mount, _, system = line.partition(" - ")
            if mount.split()[2] == number:
                return system.partition(" ")[0]
    return ""


def readable_folder(key: str, path: Path, *, fatal: bool = True) -> Iterator[Mistake]:
    """Check a folder that the operator provides and the daemon reads.

    :param key: see :attr:`Mistake.key`.
    :param fatal: see :attr:`Mistake.fatal`.
    """
    if not path.is_dir():
        fault, remedy = "this is not a folder", "Name another folder."
        if not os.path.lexists(path):
            fault = "the folder does not exist"
            remedy = "Create the folder, or name another folder."
        elif path.is_symlink() and not path.exists():
            fault, remedy = "the link leads nowhere", "Correct the link, or name another folder."
        yield Mistake(key, path, fault, remedy, fatal)
    elif not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        remedy = "Give the daemon's user the right to read the folder."
        yield Mistake(key, path, "the folder cannot be read", remedy, fatal)


def file(key: str, path: Path) -> Iterator[Mistake]:
    """Check a file that the daemon reads.

    :param key: see :attr:`Mistake.key`.
    """
    try:
        reading.check(path)
    except OSError as error:
        remedy = "Name a file that the daemon's user may read."
        yield Mistake(key, path, f"the file cannot be read: {error.strerror}", remedy)


def authorities(key: str, path: Path) -> Iterator[Mistake]:
    """Check a PEM file of certificate authorities.

    :param key: see :attr:`Mistake.key`.
    """
    try:
        reading.check(path)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:
        fault = f"no certificate can be read from the file: {error.strerror or error}"
        yield Mistake(key, path, fault, "Name a PEM file with certificates.")


def credentials(
    key: str, folder: Path, role: Literal["server", "client"], host: str = ""
) -> Iterator[Mistake]:
    """Check whether the other side of a TLS connection will trust the certificate in a folder.

    The files have the names that QEMU wants: ``ca-cert.pem``, and for a server ``server-cert.pem``
    and ``server-key.pem``, likewise for a client.  All files must be loadable.

    :param key: see :attr:`Mistake.key`.
    :param host: the name or address by which clients know a server.
    """
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname = role == "server"
    judge = theirs if role == "server" else ours
    # To judge a client, our side needs some server certificate: the client's own will do.
    theirs.verify_mode = ssl.CERT_REQUIRED if role == "server" else ssl.CERT_NONE
    judge.verify_mode = ssl.CERT_REQUIRED
    judge.load_verify_locations(folder / "ca-cert.pem")
    for each in (ours, theirs):
        each.load_cert_chain(folder / f"{role}-cert.pem", folder / f"{role}-key.pem")
    try:
        _shake_hands(ours, theirs, host or None)
    except ssl.SSLError as error:
        why = str(getattr(error, "verify_message", "") or error.reason).rstrip(".")
        fault = f"the other side will not trust {role}-cert.pem: {why}"
        yield Mistake(
            key, folder, fault, "Have the authority of ca-cert.pem issue a new certificate.", False
        )


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str | None) -> None:
    """Run a TLS handshake between two sides in memory.

    :raises ssl.SSLError: if one side does not trust the other.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(8):
        for side in list(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                pass


def program(key: str, name: str, package: str, *, fatal: bool = True) -> Iterator[Mistake]:
    """Check a program that the daemon runs.

    :param key: see :attr:`Mistake.key`.
    :param name: a name to find in PATH, or a path.
    :param package: the Debian package of the program.
    :param fatal: see :attr:`Mistake.fatal`.
    """
    if shutil.which(name) is None:
        remedy = f"Install the program: apt-get install {package}"
        yield Mistake(key, name, "the program is not installed", remedy, fatal)
