"""A hypervisor in memory.

The hypervisor passes the contract suite, and so can replace a real one in tests.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from bootvol.clocks import sleep
from bootvol.errors import HypervisorFailed
from bootvol.interfaces import (
    IConfiguringHypervisor,
    IPoweringHypervisor,
    IResizingHypervisor,
)
from bootvol.model import ConnectionInfo, Disk, Machine
from bootvol.reactors import IReactor

#: The console output of every started guest.
READY: Final = b"The guest is ready.\r\n"


@attrs.define
class MemoryServer:
    """A server in memory.

    :ivar disks: connections of the attached disks, by device.
    :ivar runs: whether the server runs.  A test sets False when the guest turns the server off.
    :ivar lets_go: whether the guest releases disks.
    :ivar sizes: sizes in bytes of the disks that have become larger, by device.
    """

    machine: Machine
    disks: dict[str, ConnectionInfo]
    console: bytes = READY
    runs: bool = True
    lets_go: bool = True
    sizes: dict[str, int] = attrs.Factory(dict)


@implementer(IPoweringHypervisor, IConfiguringHypervisor, IResizingHypervisor)
class MemoryHypervisor:
    """A hypervisor with servers in memory.  Their guests start at once.

    :param servers: servers by name.  The mapping outlives this object, as real servers outlive a
        daemon.
    """

    def __init__(
        self, name: str, reactor: IReactor, servers: dict[str, MemoryServer] | None = None
    ) -> None:
        self.name = name
        self.servers = {} if servers is None else servers
        self._reactor = reactor

    async def start(self, server: str, machine: Machine) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.start`."""
        await self._turn()
        found = self.servers.get(server)
        if found is not None and found.runs:
            return
        for disk in machine.disks:
            self._check(disk)
        console = b"" if found is None else found.console
        disks = {disk.device: disk.connection for disk in machine.disks}
        self.servers[server] = MemoryServer(machine, disks, console + READY)

    async def stop(self, server: str) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.stop`."""
        await self._turn()
        self.servers.pop(server, None)

    async def power_off(self, server: str, ask: bool) -> None:
        """See :meth:`bootvol.interfaces.IPoweringHypervisor.power_off`."""
        await self._turn()
        found = self.servers.get(server)
        if found is not None:
            found.runs = False

    async def running(self) -> Collection[str]:
        """See :meth:`bootvol.interfaces.IHypervisor.running`."""
        await self._turn()
        return [name for name, server in self.servers.items() if server.runs]

    async def attach(self, server: str, disk: Disk) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.attach`."""
        await self._turn()
        found = self.servers.get(server)
        if found is None or not found.runs:
            raise HypervisorFailed("the server does not run")
        there = found.disks.get(disk.device)
        if there == disk.connection:
            return
        if there is not None:
            raise HypervisorFailed("another disk is in this place")
        self._check(disk)
        found.disks[disk.device] = disk.connection

    async def detach(self, server: str, device: str) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.detach`."""
        await self._turn()
        found = self.servers.get(server)
        if found is None or not found.runs or device not in found.disks:
            return
        if not found.lets_go:
            raise HypervisorFailed("the guest does not let go of the disk")
        del found.disks[device]

    async def resize(self, server: str, disk: Disk, size: int) -> None:
        """See :meth:`bootvol.interfaces.IResizingHypervisor.resize`."""
        await self._turn()
        found = self.servers.get(server)
        if found is None or not found.runs:
            raise HypervisorFailed("the server does not run")
        if found.disks.get(disk.device) != disk.connection:
            raise HypervisorFailed("the server does not have the disk")
        found.sizes[disk.device] = size

    async def console(self, server: str, length: int) -> bytes:
        """See :meth:`bootvol.interfaces.IHypervisor.console`."""
        await self._turn()
        found = self.servers.get(server)
        return found.console[-length:] if found is not None and length else b""

    def _check(self, disk: Disk) -> None:
        """Check that a disk exists and that no running server has it.

        :raises HypervisorFailed: if the disk cannot be attached.
        """
        connection = disk.connection
        if connection.kind in {"file", "block"} and not Path(connection.address).exists():
            raise HypervisorFailed("there is no such disk")
        if any(
            connection in server.disks.values() for server in self.servers.values() if server.runs
        ):
            raise HypervisorFailed("another server has the disk")

    def _turn(self) -> Deferred[None]:
        """Let other coroutines run, as a real hypervisor does."""
        return sleep(self._reactor, 0)
