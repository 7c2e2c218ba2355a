"""Disks as QEMU knows them: by which names, and as which devices of the guest."""

from __future__ import annotations

import hashlib
from typing import Any

from bootvol.model import Disk


def node_name(disk: Disk) -> str:
    """Return what QEMU knows a disk's bytes by: another for each place in the server and volume.

    At most 31 bytes, as QEMU demands, for devices of up to 14.
    """
    connection = f"{disk.connection.kind} {disk.connection.address}"
    return prefix(disk.device) + hashlib.sha256(connection.encode()).hexdigest()[:16]


def prefix(device: str) -> str:
    """Return how the name of every node begins that was made for a device."""
    return f"{device}-"


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
