"""Hypervisors, which run servers."""

from __future__ import annotations

from collections.abc import Collection

from zope.interface import Attribute, Interface

from bootvol.model import Disk, Machine


class IHypervisor(Interface):
    """Runs servers (virtual machines) that outlive the daemon, whatever becomes of that.

    A server's name is as a volume's.  The core never lets two calls for one server run at once but
    for :meth:`console`.
    """

    name: str = Attribute("The name that the operator gave this hypervisor.")

    async def start(server: str, machine: Machine) -> None:
        """Start a server with its disks plugged in.  Idempotent: one that runs is left as it is.

        Cancelled or failed, it leaves what :meth:`stop` takes away.

        :raises bootvol.errors.HypervisorFailed: it does not start.
        """

    async def stop(server: str) -> None:
        """End a server at once, as pulling the plug does, and forget it.  Idempotent.

        When it returns, nothing of the server holds any disk.

        :raises bootvol.errors.HypervisorFailed: it may still run.
        """

    async def running() -> Collection[str]:
        """Return the names of the servers that run; one whose guest has turned it off does not.

        :raises bootvol.errors.HypervisorFailed: it cannot be told.
        """

    async def attach(server: str, disk: Disk) -> None:
        """Plug a disk into a running server.  Idempotent for the same disk.

        Cancelled or failed, it leaves what :meth:`detach` takes away.

        :raises bootvol.errors.HypervisorFailed: the server does not run, or does not take it.
        """

    async def detach(server: str, device: str) -> None:
        """Unplug a disk.  Idempotent; a server that does not run holds none.

        When it returns, the server neither reads nor writes the disk any more.

        :param device: as in :class:`bootvol.model.Disk`.
        :raises bootvol.errors.HypervisorFailed: the guest does not let go of it; the disk may still
            be in use.
        """

    async def console(server: str, length: int) -> bytes:
        """Return the last bytes of what a server has written to its serial console.

        Also of one that its guest has turned off; empty for one that never was.

        :param length: at most so many bytes.
        :raises bootvol.errors.HypervisorFailed: it cannot be read.
        """


class IPoweringHypervisor(IHypervisor):
    """A hypervisor that turns servers off and keeps them: for what clients call stop and reboot."""

    async def power_off(server: str, ask: bool) -> None:
        """Turn a server off; :meth:`start` turns the server on again.  Idempotent.

        When this returns, nothing of the server holds any disk; its console is still there.

        Cancelled or failed, it leaves a server that runs or does not; another call ends that.

        :param ask: whether the guest is asked first to shut down.  A guest that has not done so in
            the time that the operator gives guests loses its power.
        :raises bootvol.errors.HypervisorFailed: it may still run.
        """


class IConfiguringHypervisor(IHypervisor):
    """A hypervisor that gives guests :attr:`bootvol.model.Machine.files`.

    They are on a drive that a guest can only read, in a file system that guests know without more
    (ISO 9660 or VFAT) with the label ``config-2``, from the moment :meth:`start` begins to boot
    until the server is stopped.
    """
