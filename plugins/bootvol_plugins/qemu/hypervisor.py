"""Servers as processes of QEMU, which live on when the daemon does not."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, Final
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater
from zope.interface import implementer

from bootvol.devices import shortage_in
from bootvol.errors import HypervisorFailed
from bootvol.interfaces import IConfiguringHypervisor, IPoweringHypervisor, PluginContext
from bootvol.jail import NotConfined
from bootvol.model import Disk, Machine
from bootvol.threads import outlast
from bootvol_plugins.qemu import console, disks, machine
from bootvol_plugins.qemu.folders import Folder, servers
from bootvol_plugins.qemu.options import QemuOptions
from bootvol_plugins.qemu.qmp import Qmp, QmpFailed, QmpRefused, connected

#: Seconds: from one look to the next; that QEMU may take to start, to end when it is told to, and
#: to end when it is killed.
_LOOK: Final = 0.05
_START: Final = 60.0
_QUIT: Final = 3.0
_KILL: Final = 30.0
#: After so many seconds a guest is asked once more to let go of a disk: one that has only just
#: started may not have heard of it.
_ASK_AGAIN: Final = 5.0
#: What QEMU says of what it is kept from.
_NOT_LET: Final = re.compile("not permitted|[Pp]ermission denied")


@implementer(IPoweringHypervisor, IConfiguringHypervisor)
class QemuHypervisor:
    """Each server has a folder in one directory, which exists."""

    def __init__(self, name: str, options: QemuOptions, context: PluginContext) -> None:
        self.name = name
        self._options = options
        self._reactor = context.reactor
        self._threads = context.threads
        self._jail = context.jail
        #: QEMU talks to one client at a time.
        self._locks: WeakValueDictionary[str, DeferredLock] = WeakValueDictionary()

    async def start(self, server: str, machine: Machine) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.start`."""
        path = self._options.directory / server
        with _failures(f"Server {server} cannot be started"):
            folder = await self._threads.obtain(Folder.close, Folder.make, path)
            try:
                # A daemon that is no more may have started it, and not have seen it come up.
                if not await self._up(server, folder, lambda: self._is_free(server, folder)):
                    await self._run(server, folder, machine)
            finally:
                folder.close()

    async def _run(self, server: str, folder: Folder, wanted: Machine) -> None:
        """Start QEMU; ``folder`` is locked."""
        binary = await self._threads.run(shutil.which, self._options.binary)
        if binary is None:
            raise HypervisorFailed(f"There is no program {self._options.binary}: install QEMU.")
        command = machine.command(self._options, binary, server, wanted)
        bounds = await self._threads.run(machine.bounds, self._options, wanted)
        try:
            command = self._jail.command(command, bounds)
        except NotConfined as error:
            raise HypervisorFailed(f"Server {server} does not start. {error}") from error
        async with AsyncExitStack() as stack:
            opened = []
            for disk in wanted.disks:
                if disks.has_descriptor(disk.connection):
                    opened.append(await stack.enter_async_context(self._opened(disk)))
            own = await self._threads.obtain(machine.close, machine.open_own, folder, wanted)
            stack.callback(machine.close, own)
            reading, writing = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, reading)
            stack.callback(os.close, writing)
            shared = {machine.FOLDER: folder.descriptor}
            home = str(folder.path)
            machine.spawn(self._reactor, machine.keeper(), home, {0: reading, **shared})
            process = machine.spawn(
                self._reactor,
                command,
                home,
                {
                    2: "r",
                    machine.CONSOLE: writing,
                    **shared,
                    **own,
                    **dict(enumerate(opened, machine.DISKS)),
                },
            )
        try:
            # A guest may have turned it off by the time it is looked at.
            if not await self._up(server, folder, process.has_ended) and process.failed:
                raise HypervisorFailed(
                    f"Server {server} does not start: {process.complaint}."
                ) from shortage_in(process.complaint)
        except BaseException:
            process.kill()
            await outlast(process.ended.wait())
            raise
        process.leave()

    async def _up(
        self, server: str, folder: Folder, has_ended: Callable[[], Awaitable[bool]]
    ) -> bool:
        """Wait until QEMU has plugged its machine together; return False if it ended instead."""
        end = self._reactor.seconds() + _START
        failed: QmpFailed | None = None
        while not await has_ended():
            left = end - self._reactor.seconds()
            if left <= 0:
                raise HypervisorFailed(
                    f"Server {server} does not start: QEMU does not answer."
                ) from failed
            try:
                async with connected(self._reactor, folder.socket, left):
                    return True
            except QmpFailed as error:
                failed = error
            await self._pause()
        return False

    async def stop(self, server: str) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.stop`."""
        with _failures(f"Server {server} may still run"):
            async with self._folder(server) as folder:
                if folder is None:
                    return
                await self._end_all(server, folder)
                await self._threads.run(folder.remove)

    async def power_off(self, server: str, ask: bool) -> None:
        """See :meth:`bootvol.interfaces.IPoweringHypervisor.power_off`."""
        with _failures(f"Server {server} may still run"):
            if ask:
                await self._shut_down(server)
            async with self._folder(server) as folder:
                if folder is not None:
                    await self._end_all(server, folder)

    async def _shut_down(self, server: str) -> None:
        """Ask the guest to shut down by ACPI, and wait until it has, but no longer than it may."""
        end = self._reactor.seconds() + self._options.shutdown_timeout
        ask = 0.0
        while (now := self._reactor.seconds()) < end:
            async with self._monitor(server) as qmp:
                if qmp is None:
                    return
                if now >= ask:
                    await qmp.execute("system_powerdown")
                    ask = now + _ASK_AGAIN
            await self._pause()

    async def _end_all(self, server: str, folder: Folder) -> None:
        """End whatever runs of a server; then ``folder`` is locked."""
        end = self._reactor.seconds() + _KILL
        while (process := await self._process(server, folder)) is not None:
            if self._reactor.seconds() > end:
                raise HypervisorFailed(f"Server {server} may still run: it does not end.")
            await self._end(folder, process)

    async def _end(self, folder: Folder, process: int) -> None:
        """End a process of QEMU."""
        try:
            descriptor = os.pidfd_open(process)
        except ProcessLookupError:
            return
        try:
            # Between the two it may have ended, and its number have become another's.
            if await self._threads.run(folder.process) != process:
                return
            with suppress(QmpFailed, QmpRefused):
                async with connected(self._reactor, folder.socket, _QUIT) as qmp:
                    await qmp.execute("quit")
                await self._ended(descriptor, _QUIT)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            await self._ended(descriptor, _KILL)
        finally:
            os.close(descriptor)

    async def _ended(self, process: int, seconds: float) -> bool:
        """Wait until the process of a descriptor has ended, but no longer than so many seconds."""
        poll = select.poll()
        poll.register(process, select.POLLIN)
        end = self._reactor.seconds() + seconds
        while not poll.poll(0):
            if self._reactor.seconds() > end:
                return False
            await self._pause()
        return True

    async def running(self) -> Collection[str]:
        """See :meth:`bootvol.interfaces.IHypervisor.running`."""
        with _failures("Which servers run cannot be told"):
            return await self._threads.run(lambda: list(servers(self._options.directory)))

    async def attach(self, server: str, disk: Disk) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.attach`."""
        with _failures(f"Server {server} does not take {disk.device}"):
            async with self._monitor(server) as qmp:
                if qmp is None:
                    raise HypervisorFailed(f"Server {server} does not run.")
                node = disks.node_name(disk)
                if disk.device in await _devices(qmp):
                    if await _drive(qmp, disk.device) != node:
                        raise HypervisorFailed(
                            f"Server {server} has another disk as {disk.device}."
                        )
                    return
                if node not in await _nodes(qmp):
                    await self._add(qmp, disk)
                await qmp.execute("device_add", disks.device(disk))

    async def _add(self, qmp: Qmp, disk: Disk) -> None:
        """Let QEMU open a disk."""
        tls = self._options.tls
        secret = disks.credentials(disk, tls)
        if secret is not None and secret["id"] not in await _children(qmp, "/objects"):
            await qmp.execute("object-add", secret)
        fdset = None
        if disks.has_descriptor(disk.connection):
            async with self._opened(disk) as descriptor:
                opaque = {"opaque": disks.node_name(disk)}
                fdset = (await qmp.execute("add-fd", opaque, descriptor))["fdset-id"]
        try:
            await qmp.execute("blockdev-add", disks.block(disk, fdset, tls))
        except QmpRefused as error:
            if fdset is None and _NOT_LET.search(str(error)):
                raise HypervisorFailed(
                    f"{error}. The server started without disks of this kind, so it may not reach"
                    " them. Start it with one, or have the operator set hypervisor.remote_disks."
                ) from error
            raise

    async def detach(self, server: str, device: str) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.detach`."""
        with _failures(f"Server {server} may still use {device}"):
            async with self._monitor(server) as qmp:
                if qmp is None:
                    return
                if device in await _devices(qmp):
                    await self._unplug(qmp, server, device)
                await self._drop(qmp, disks.prefix(device))

    async def _unplug(self, qmp: Qmp, server: str, device: str) -> None:
        """Let the guest let go of a device: it has to agree."""
        now = self._reactor.seconds()
        end, ask = now + self._options.detach_timeout, now
        while device in await _devices(qmp):
            now = self._reactor.seconds()
            if now >= end:
                raise HypervisorFailed(
                    f"The guest of server {server} does not let go of {device}: it is still "
                    "plugged in."
                )
            if now >= ask:
                # Refused if it has been asked a moment ago.
                with suppress(QmpRefused):
                    await qmp.execute("device_del", {"id": device})
                ask = now + _ASK_AGAIN
            await self._pause()

    async def _drop(self, qmp: Qmp, prefix: str) -> None:
        """Let QEMU close what it has opened for a device, also what an attempt has left."""
        for node in await _nodes(qmp):
            if node.startswith(prefix):
                await self._delete(qmp, node)
        for fdset in await qmp.execute("query-fdsets"):
            if any(each.get("opaque", "").startswith(prefix) for each in fdset["fds"]):
                await qmp.execute("remove-fd", {"fdset-id": fdset["fdset-id"]})
        for name in await _children(qmp, "/objects"):
            if name.startswith(prefix):
                await qmp.execute("object-del", {"id": name})

    async def _delete(self, qmp: Qmp, node: str) -> None:
        end = self._reactor.seconds() + _QUIT
        while True:
            try:
                await qmp.execute("blockdev-del", {"node-name": node})
                return
            except QmpRefused:
                # A device that has gone may hold it a moment longer.
                if self._reactor.seconds() > end:
                    raise
            await self._pause()

    async def console(self, server: str, length: int) -> bytes:
        """See :meth:`bootvol.interfaces.IHypervisor.console`."""
        with _failures(f"The console of server {server} cannot be read"):
            async with self._folder(server) as folder:
                if folder is None:
                    return b""
                return await self._threads.run(console.tail, folder.descriptor, length)

    # --- finding a server -------------------------------------------------------------------------

    @asynccontextmanager
    async def _folder(self, server: str) -> AsyncIterator[Folder | None]:
        """Open a server's folder, if there is one."""
        path = self._options.directory / server
        folder = None
        with suppress(FileNotFoundError):
            folder = await self._threads.obtain(Folder.close, Folder, path)
        try:
            yield folder
        finally:
            if folder is not None:
                folder.close()

    async def _process(self, server: str, folder: Folder) -> int | None:
        """Return the id of the server's process.

        :returns: None if there is none; then ``folder`` is locked, so that none comes up either.
        :raises HypervisorFailed: one is on its way up or down, and that without end.
        """
        end = self._reactor.seconds() + _KILL
        while self._reactor.seconds() < end:
            process = await self._threads.run(folder.process)
            if process is not None or await self._threads.run(folder.take):
                return process
            await self._pause()
        raise HypervisorFailed(f"Something of server {server} still runs, and does not end.")

    async def _is_free(self, server: str, folder: Folder) -> bool:
        return await self._process(server, folder) is None

    @asynccontextmanager
    async def _monitor(self, server: str) -> AsyncIterator[Qmp | None]:
        """Connect to a server's QEMU, if it runs; whoever comes next waits."""
        lock = self._locks.setdefault(server, DeferredLock())
        async with lock, self._folder(server) as folder:
            if folder is None or await self._process(server, folder) is None:
                yield None
                return
            async with connected(self._reactor, folder.socket) as qmp:
                yield qmp

    @asynccontextmanager
    async def _opened(self, disk: Disk) -> AsyncIterator[int]:
        """Hold a disk open."""
        descriptor = await self._threads.obtain(os.close, disks.opened, disk.connection)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _pause(self) -> Deferred[None]:
        return deferLater(self._reactor, _LOOK, lambda: None)


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn what can go wrong into the contract's error.

    :param what: what failed, as the beginning of a sentence.
    :raises HypervisorFailed: in place of what QEMU or the system says.
    """
    try:
        yield
    except OSError as error:
        raise HypervisorFailed(f"{what}: {error.strerror or error}.") from error
    except (QmpFailed, QmpRefused) as error:
        raise HypervisorFailed(f"{what}: {str(error).rstrip('.')}.") from error


async def _children(qmp: Qmp, path: str) -> list[str]:
    """Return the names of what there is at a place in QEMU's tree of objects."""
    found: list[dict[str, Any]] = await qmp.execute("qom-list", {"path": path})
    return [str(each["name"]) for each in found]


async def _devices(qmp: Qmp) -> list[str]:
    """Return the names of the devices that are plugged in."""
    return await _children(qmp, "/machine/peripheral")


async def _drive(qmp: Qmp, device: str) -> str:
    """Return the name of the node that a device reads and writes."""
    path = f"/machine/peripheral/{device}"
    return str(await qmp.execute("qom-get", {"path": path, "property": "drive"}))


async def _nodes(qmp: Qmp) -> list[str]:
    """Return the names of the blocks that are open."""
    found = await qmp.execute("query-named-block-nodes", {"flat": True})
    return [str(each["node-name"]) for each in found]
