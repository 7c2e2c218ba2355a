"""Disks as QEMU is told of them.

Files and block devices are opened here and handed over open (``/dev/fdset/N``, see "add-fd" in the
manual of QMP): nobody can put another in the place of what was looked at.  QEMU locks what it
opens, so two servers never use one disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from bootvol import reading
from bootvol.errors import HypervisorFailed
from bootvol.model import Connection, Disk

#: What QEMU calls connections that have a descriptor, and what must be at their address.
_DRIVERS: Final = {"file": ("file", stat.S_ISREG), "block": ("host_device", stat.S_ISBLK)}
#: See https://www.iana.org/assignments/service-names-port-numbers: nbd.
_NBD_PORT: Final = "10809"
#: Where Ceph's library looks for keys, and the settings that name other places.
_CEPH: Final = Path("/etc/ceph")
_KEYS: Final = re.compile(r"^\s*key(?:ring|[ _]?file)\s*=\s*(/[^\s,;#]+)", re.MULTILINE)
#: Seconds that a guest's reads and writes wait for a server of NBD that has gone to come back;
#: then they fail.
_RECONNECT: Final = 60


def node_name(disk: Disk) -> str:
    """Return what QEMU knows a disk's bytes by: another for each place in the server and volume.

    At most 31 bytes, as QEMU demands, for devices of up to 14.
    """
    connection = f"{disk.connection.kind} {disk.connection.address}"
    return prefix(disk.device) + hashlib.sha256(connection.encode()).hexdigest()[:16]


def prefix(device: str) -> str:
    """Return how the name of every node begins that was made for a device."""
    return f"{device}-"


def has_descriptor(connection: Connection) -> bool:
    """Tell whether the disk is opened here."""
    return connection.kind in _DRIVERS


def is_of_socket(connection: Connection) -> bool:
    """Tell whether the disk is served at a socket in the file system."""
    return connection.kind == "nbd" and urlsplit(connection.address).scheme == "nbd+unix"


def read_by_qemu(connection: Connection) -> list[Path]:
    """Return the files and folders that QEMU reads to reach a disk.  Blocks.

    :raises OSError: ceph.conf cannot be read.
    """
    if connection.kind != "rbd":
        return []
    _, said = _place(connection.address)
    found = [_CEPH]
    if "conf" in said:
        conf = Path(said["conf"])
        found.append(conf)
        # Of the file's settings these name files: "keyring = /etc/ceph/$cluster.$name.keyring".
        found += [
            Path(each) for each in _KEYS.findall(reading.content(conf).decode()) if "$" not in each
        ]
    return found


def opened(connection: Connection) -> int:
    """Open a file or a block device to read and write it.  Blocks.

    :returns: the descriptor.
    :raises HypervisorFailed: it cannot be opened, or is not what it should be.
    """
    _, is_right = _DRIVERS[connection.kind]
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
    if connection.kind == "file":
        # The names of block devices are links where the system or LVM makes them so.
        flags |= os.O_NOFOLLOW
    try:
        descriptor = os.open(connection.address, flags)
    except OSError as error:
        raise HypervisorFailed(f"A disk cannot be opened: {error.strerror}.") from error
    if not is_right(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise HypervisorFailed(f"A disk is no {connection.kind}.")
    os.set_blocking(descriptor, True)
    return descriptor


def block(disk: Disk, fdset: int | None, tls: Path | None) -> dict[str, Any]:
    """Return what ``blockdev-add`` takes for a disk.

    :param fdset: holds its descriptor, where it has one.
    :param tls: where the credentials are, None if there are none.
    :raises HypervisorFailed: there is no way to reach it.
    """
    node, connection = node_name(disk), disk.connection
    if has_descriptor(connection):
        driver, _ = _DRIVERS[connection.kind]
        below: dict[str, Any] = {"driver": driver, "filename": f"/dev/fdset/{fdset}"}
    elif connection.kind == "nbd":
        below = _nbd(connection.address, node, tls)
    elif connection.kind == "rbd":
        below = _rbd(connection.address)
    else:
        raise HypervisorFailed(f"QEMU reaches no disks of the kind {connection.kind}.")
    return {"driver": "raw", "node-name": node, "file": below}


def _nbd(address: str, node: str, tls: Path | None) -> dict[str, Any]:
    uri = urlsplit(address)
    server: dict[str, Any]
    if uri.scheme == "nbd+unix":
        path = parse_qs(uri.query).get("socket", [""])[0]
        server = {"type": "unix", "path": path}
        secure = {}
    elif uri.scheme == "nbds":
        if tls is None:
            raise HypervisorFailed("A disk is served by TLS; `tls` names no credentials for it.")
        server = {"type": "inet", "host": uri.hostname or "", "port": str(uri.port or _NBD_PORT)}
        secure = {"tls-creds": node}
    else:
        raise HypervisorFailed(f"QEMU reaches no disks by {uri.scheme}.")
    export = unquote(uri.path.removeprefix("/"))
    return {
        "driver": "nbd",
        "server": server,
        "export": export,
        "reconnect-delay": _RECONNECT,
        **secure,
    }


def _rbd(address: str) -> dict[str, Any]:
    """Of what the address says QEMU is told what it can be told in this way.

    Not the key: it finds that by ceph.conf, or where Ceph's library looks for it.
    """
    place, said = _place(address)
    pool, *namespace, image = place.split("/")
    if "conf" not in said:
        raise HypervisorFailed(
            "QEMU reaches a cluster of Ceph by its ceph.conf; name it by `conf`."
        )
    return {
        "driver": "rbd",
        "pool": pool,
        **({"namespace": namespace[0]} if namespace else {}),
        "image": image,
        "conf": said["conf"],
        "user": said["id"],
    }


def _place(address: str) -> tuple[str, dict[str, str]]:
    """Return where an image lies, and what else an address says."""
    # In the manual of qemu-system: a backslash takes the meaning of what follows it.
    _, place, *pairs = (match[0] for match in re.finditer(r"(?:\\.|[^\\:])+", address))
    return place, dict(re.sub(r"\\(.)", r"\1", pair).split("=", 1) for pair in pairs)


def credentials(disk: Disk, tls: Path | None) -> dict[str, Any] | None:
    """Return what ``object-add`` takes before the disk's block is added; None if it needs nothing.

    Each disk has its own, so that one that is plugged in later uses what is in the folder by then.
    """
    if disk.connection.kind != "nbd" or urlsplit(disk.connection.address).scheme != "nbds":
        return None
    return {
        "qom-type": "tls-creds-x509",
        "id": node_name(disk),
        "endpoint": "client",
        "dir": str(tls),
        "verify-peer": True,
    }


def device(disk: Disk) -> dict[str, Any]:
    """Return what ``device_add`` takes for a disk.

    The guest finds it by its serial number too: ``/dev/disk/by-id/virtio-vdb``.  What fails in its
    place fails in the guest: QEMU would otherwise stop a guest whose disk has no space left, and
    nobody would let it go on.
    """
    return {
        "driver": "virtio-blk-pci",
        "id": disk.device,
        "drive": node_name(disk),
        "serial": disk.device,
        "werror": "report",
        "rerror": "report",
    }
