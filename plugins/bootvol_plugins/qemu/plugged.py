"""The disks that a running QEMU has open: closes them, and tells QEMU their new size."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

from bootvol.clocks import sleep
from bootvol.errors import HypervisorFailed
from bootvol.model import Disk
from bootvol_plugins.qemu import disks
from bootvol_plugins.qemu.qmp import FDSETS, Qmp, QmpRefused, children, devices, drive, nodes

#: Seconds between two looks, and the longest time in seconds for devices to let go of their nodes.
_LOOK: Final = 0.05
_FREE: Final = 3.0


async def drop(qmp: Qmp, prefix: str, clock: IReactorTime) -> None:
    """Let QEMU close all that it has opened for a device, even by a failed attempt."""
    # One limit for all nodes: a guest that broke out may name many.
    end = clock.seconds() + _FREE
    for node in await nodes(qmp):
        if node.startswith(prefix):
            await _delete(qmp, node, end, clock)
    for fdset in await qmp.ask(FDSETS, "query-fdsets"):
        if any(each.get("opaque", "").startswith(prefix) for each in fdset["fds"]):
            await qmp.execute("remove-fd", {"fdset-id": fdset["fdset-id"]})
    for name in await children(qmp, "/objects"):
        if name.startswith(prefix):
            await qmp.execute("object-del", {"id": name})


async def _delete(qmp: Qmp, node: str, end: float, clock: IReactorTime) -> None:
    while True:
        try:
            await qmp.execute("blockdev-del", {"node-name": node})
            return
        except QmpRefused:
            # A device that has gone may hold the node a moment longer.
            if clock.seconds() > end:
                raise
        await sleep(clock, _LOOK)


async def resize(qmp: Qmp, server: str, disk: Disk, size: int) -> None:
    """Tell QEMU, and so the guest, that a disk has become larger.

    :param size: the new size in bytes.
    :raises HypervisorFailed: if the server does not have the disk.
    """
    node = disks.node_name(disk)
    if disk.device not in await devices(qmp) or await drive(qmp, disk.device) != node:
        raise HypervisorFailed(f"Server {server} does not have the disk as {disk.device}.")
    await qmp.execute("block_resize", {"node-name": node, "size": size})
