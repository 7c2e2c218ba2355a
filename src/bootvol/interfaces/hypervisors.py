"""Interfaces of hypervisors.  A hypervisor runs servers."""

from __future__ import annotations

from collections.abc import Collection

from zope.interface import Attribute, Interface

from bootvol.model import Disk, Machine


class IHypervisor(Interface):
    """A service that runs servers (virtual machines).

    The servers keep running after the daemon ends, for any reason.  The rules for names of volumes
    apply to names of servers.  The core never runs two calls for one server at once, except
    :meth:`console`.
    """

    name: str = Attribute("The operator's name for this hypervisor.")

    async def start(server: str, machine: Machine) -> None:
        """Start a server with its disks plugged in.  Idempotent: a running server stays as it is.

        After a cancelled or failed call, :meth:`stop` removes the remains.

        :raises bootvol.errors.HypervisorFailed: if the server does not start.
        """

    async def stop(server: str) -> None:
        """End a server at once, as a loss of power does, and forget the server.  Idempotent.

        When the call returns, the server holds no disk any more.

        :raises bootvol.errors.HypervisorFailed: if the server may still run.
        """

    async def running() -> Collection[str]:
        """Return the names of all running servers.

        A server turned off by its guest is not running.

        :raises bootvol.errors.HypervisorFailed: if the hypervisor cannot tell.
        """

    async def attach(server: str, disk: Disk) -> None:
        """Plug a disk into a running server.  Idempotent for the same disk.

        After a cancelled or failed call, :meth:`detach` removes the remains.

        :raises bootvol.errors.HypervisorFailed: if the server does not run, or does not accept the
            disk.
        """

    async def detach(server: str, device: str) -> None:
        """Unplug a disk.  Idempotent.  A stopped server holds no disk.

        When the call returns, the server no longer reads or writes the disk.

        :param device: device name as in :class:`bootvol.model.Disk`.
        :raises bootvol.errors.HypervisorFailed: if the guest does not release the disk.  The disk
            may then still be in use.
        """

    async def console(server: str, length: int) -> bytes:
        """Return the last bytes that a server wrote to its serial console.

        A server turned off by its guest still has a console.  The console of an unknown server is
        empty.

        :param length: largest number of bytes to return.
        :raises bootvol.errors.HypervisorFailed: if the console cannot be read.
        """


class IPoweringHypervisor(IHypervisor):
    """A hypervisor that turns servers off and keeps them, for the actions stop and reboot."""

    async def power_off(server: str, ask: bool) -> None:
        """Turn a server off.  :meth:`start` turns the server on again.  Idempotent.

        When the call returns, the server holds no disk any more.  Its console remains.

        After a cancelled or failed call, the server may or may not run.  Another call turns the
        server off.

        :param ask: whether to ask the guest first to shut down.  The operator sets the time limit.
            A guest still running after that time loses its power.
        :raises bootvol.errors.HypervisorFailed: if the server may still run.
        """


class IResizingHypervisor(IHypervisor):
    """A hypervisor that tells running guests about disks that have become larger."""

    async def resize(server: str, disk: Disk, size: int) -> None:
        """Tell a running server that one of its disks has become larger.  Idempotent.

        The disk itself has the new size already.

        :param disk: a disk as :meth:`attach` or :meth:`start` took it.
        :param size: the new size in bytes.
        :raises bootvol.errors.HypervisorFailed: if the server does not run, does not have the disk,
            or does not take the new size.
        """


class IConfiguringHypervisor(IHypervisor):
    """A hypervisor that gives guests :attr:`bootvol.model.Machine.files`.

    The files are on a drive that is read-only for the guest.  The drive's file system has the label
    ``config-2`` and needs no extra driver in the guest (ISO 9660 or VFAT).  The drive exists from
    the moment when :meth:`start` begins to boot, until the server is stopped.
    """
