"""Disks in QEMU: the names of their nodes, and their devices in the guest."""

from __future__ import annotations

import hashlib

from bootvol.model import Disk


def node_name(disk: Disk) -> str:
    """Return the name of a disk's node in QEMU, different for each device and volume.

    The name has at most 31 bytes, as QEMU demands, if the device has up to 14 bytes.
    """
    connection = f"{disk.connection.kind} {disk.connection.address}"
    return prefix(disk.device) + hashlib.sha256(connection.encode()).hexdigest()[:16]


def prefix(device: str) -> str:
    """Return the common prefix of all node names made for a device."""
    return f"{device}-"


def device(disk: Disk) -> dict[str, object]:
    """Return the arguments of ``device_add`` for a disk.

    The guest also finds the disk by the serial number: ``/dev/disk/by-id/virtio-vdb``.  QEMU
    reports failed reads and writes to the guest.  Otherwise QEMU would stop a guest whose disk has
    no space left, and nobody would let the guest go on.
    """
    return {
        "driver": "virtio-blk-pci",
        "id": disk.device,
        "drive": node_name(disk),
        "serial": disk.device,
        "werror": "report",
        "rerror": "report",
    }
