"""The descriptors by which QEMU reaches a disk, and the instructions for QEMU.

QEMU opens nothing by name.  The daemon opens files, block devices, folders of sockets and secrets,
and QEMU gets the descriptors.  So a confined QEMU reaches disks of every kind, and nobody can
replace a file after the daemon's check.  QEMU locks the files that QEMU opens, so two servers never
use one disk.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from bootvol.errors import HypervisorFailed
from bootvol.jail.handing import contents, folder_of, in_memory
from bootvol.jsons import JsonObject
from bootvol.model import ConnectionInfo, Disk
from bootvol_plugins.qemu import ceph
from bootvol_plugins.qemu.disks import node_name

#: QEMU's drivers for connections with a descriptor, and the required kind of file at the address.
_DRIVERS: Final = {"file": ("file", stat.S_ISREG), "block": ("host_device", stat.S_ISBLK)}
#: See https://www.iana.org/assignments/service-names-port-numbers: nbd.
_NBD_PORT: Final = "10809"
#: Seconds that a guest's reads and writes wait for the return of a lost NBD server.  Then they
#: fail.
_RECONNECT: Final = 60
#: The files that QEMU looks for in a folder of credentials (manual of qemu-system, "TLS setup").
_CREDENTIALS: Final = (
    "ca-cert.pem",
    "ca-crl.pem",
    "dh-params.pem",
    "client-cert.pem",
    "client-key.pem",
)


@attrs.frozen
class Told:
    """The instructions for QEMU about a disk.

    :ivar block: arguments of ``blockdev-add``.
    :ivar secret: arguments of ``object-add`` before ``blockdev-add``, if the disk needs a secret.
    :ivar socket: path of the socket that serves the disk, if any.  QEMU can connect to the socket
        only if QEMU's user owns the socket.
    """

    block: JsonObject
    secret: JsonObject | None = None
    socket: Path | None = None


#: Yields each descriptor for QEMU.  The caller sends back the descriptor's number in QEMU.
Reaching: TypeAlias = Generator[int, int, Told]


def step(steps: Reaching, number: int | None = None) -> int | Told:
    """Return the next descriptor for QEMU, or at last the instructions for QEMU.

    :param number: number of the previous descriptor in QEMU.
    """
    try:
        return next(steps) if number is None else steps.send(number)
    except StopIteration as end:
        told: Told = end.value
        return told


def has_descriptor(connection: ConnectionInfo) -> bool:
    """Return whether the disk itself is opened here.  Then the number in QEMU is an fdset's."""
    return connection.kind in _DRIVERS


def is_of_socket(connection: ConnectionInfo) -> bool:
    """Return whether the disk is served at a socket in the file system."""
    return connection.kind == "nbd" and urlsplit(connection.address).scheme == "nbd+unix"


def reach(disk: Disk, tls: Path | None, stack: ExitStack) -> Reaching:
    """Open the files that QEMU needs to reach a disk.  Each step blocks.

    :param tls: folder of credentials, or None.
    :param stack: keeps the files open until QEMU has them.
    :raises HypervisorFailed: if the disk cannot be reached, or something else is in its place.
    :raises OSError: if a file cannot be read.
    """
    connection = disk.connection
    if has_descriptor(connection):
        return _opened(disk, stack)
    if connection.kind == "rbd":
        return _rbd(disk, stack)
    if connection.kind != "nbd":
        raise HypervisorFailed(f"QEMU cannot open disks of the kind {connection.kind}.")
    scheme = urlsplit(connection.address).scheme
    if scheme == "nbd+unix":
        return _socket(disk, stack)
    if scheme != "nbds":
        raise HypervisorFailed(f"QEMU cannot open disks by {scheme}.")
    if tls is None:
        raise HypervisorFailed("A disk is served by TLS, but hypervisor.tls names no credentials.")
    return _tls(disk, tls, stack)


def _opened(disk: Disk, stack: ExitStack) -> Reaching:
    """Reach a file or a block device."""
    driver, is_right = _DRIVERS[disk.connection.kind]
    flags = os.O_RDONLY if disk.connection.read_only else os.O_RDWR
    flags |= os.O_CLOEXEC | os.O_NONBLOCK
    if driver == "file":
        # The system and LVM make names of block devices that are links.
        flags |= os.O_NOFOLLOW
    try:
        descriptor = os.open(disk.connection.address, flags)
    except OSError as error:
        raise HypervisorFailed(f"A disk cannot be opened: {error.strerror}.") from error
    stack.callback(os.close, descriptor)
    if not is_right(os.fstat(descriptor).st_mode):
        raise HypervisorFailed(f"A disk is not a {disk.connection.kind}.")
    os.set_blocking(descriptor, True)
    number = yield descriptor
    return Told(_raw(disk, {"driver": driver, "filename": f"/dev/fdset/{number}"}))


def _socket(disk: Disk, stack: ExitStack) -> Reaching:
    """Reach an NBD server at a socket.

    QEMU gets the folder, not a connection.  So QEMU can connect again after a restart of the
    server.
    """
    uri = urlsplit(disk.connection.address)
    path = Path(parse_qs(uri.query).get("socket", [""])[0])
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, folder)
        is_socket = stat.S_ISSOCK(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError as error:
        raise HypervisorFailed(f"A disk cannot be reached: {error.strerror}.") from error
    if not is_socket:
        raise HypervisorFailed("The address of a disk is not a socket.")
    number = yield folder
    server = {"type": "unix", "path": f"/proc/self/fd/{number}/{path.name}"}
    return Told(_nbd(disk, server), socket=path)


def _tls(disk: Disk, folder: Path, stack: ExitStack) -> Reaching:
    """Reach an NBD server at a port, with the present credentials in the folder."""
    links: dict[str, int] = {}
    for name, content in contents(folder, _CREDENTIALS).items():
        links[name] = yield stack.enter_context(in_memory(content))
    number = yield stack.enter_context(folder_of(links))
    secret = {
        "qom-type": "tls-creds-x509",
        "id": node_name(disk),
        "endpoint": "client",
        "dir": f"/proc/self/fd/{number}",
        "verify-peer": True,
    }
    uri = urlsplit(disk.connection.address)
    server = {"type": "inet", "host": uri.hostname or "", "port": str(uri.port or _NBD_PORT)}
    return Told(_nbd(disk, server, {"tls-creds": secret["id"]}), secret)


def _rbd(disk: Disk, stack: ExitStack) -> Reaching:
    """Reach an image of Ceph.  QEMU gets a ceph.conf with the key of the user."""
    # A backslash escapes the next character (manual of qemu-system).
    words = [match[0] for match in re.finditer(r"(?:\\.|[^\\:])+", disk.connection.address)]
    said = dict(re.sub(r"\\(.)", r"\1", pair).split("=", 1) for pair in words[2:])
    pool, *namespace, image = words[1].split("/")
    number = yield stack.enter_context(in_memory(ceph.configuration(said)))
    below = {
        "driver": "rbd",
        "pool": pool,
        **({"namespace": namespace[0]} if namespace else {}),
        "image": image,
        "conf": f"/proc/self/fd/{number}",
        "user": ceph.user(said),
    }
    return Told(_raw(disk, below))


def _nbd(disk: Disk, server: dict[str, str], secure: JsonObject | None = None) -> JsonObject:
    export = unquote(urlsplit(disk.connection.address).path.removeprefix("/"))
    below = {"driver": "nbd", "server": server, "export": export, "reconnect-delay": _RECONNECT}
    return _raw(disk, {**below, **(secure or {})})


def _raw(disk: Disk, below: Mapping[str, object]) -> JsonObject:
    """Return a raw disk: QEMU takes the bytes for no other format, whatever the guest writes."""
    # Both must be read-only: QEMU opens the lower one by itself.
    only = {"read-only": True} if disk.connection.read_only else {}
    return {"driver": "raw", "node-name": node_name(disk), "file": {**below, **only}, **only}
