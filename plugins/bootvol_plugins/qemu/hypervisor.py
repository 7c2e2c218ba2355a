"""Servers as processes of QEMU, which outlive the daemon."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Final, Literal
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, DeferredLock
from zope.interface import implementer

from bootvol.clocks import sleep
from bootvol.errors import HypervisorFailed
from bootvol.interfaces import (
    IConfiguringHypervisor,
    IPoweringHypervisor,
    IResizingHypervisor,
    PluginContext,
)
from bootvol.jail import NotConfined
from bootvol.model import Disk, Machine
from bootvol.processes import Child, readable, shortage_in, spawn
from bootvol.threads import outlast
from bootvol_plugins.qemu import console, disks, machine, plugged, reach
from bootvol_plugins.qemu.folders import Folder
from bootvol_plugins.qemu.options import QemuOptions
from bootvol_plugins.qemu.qmp import (
    ADDED,
    Qmp,
    QmpFailed,
    QmpRefused,
    children,
    connected,
    devices,
    drive,
    failures,
    in_time,
    nodes,
)
from bootvol_plugins.qemu.strays import Strays

#: Seconds between two looks; and longest times in seconds for QEMU to start, to end after a
#: command, to end after a kill, and to close a disk.
_LOOK: Final = 0.05
_START: Final = 60.0
_QUIT: Final = 3.0
_KILL: Final = 30.0
_CLOSE: Final = 30.0
#: Seconds after which a guest is asked once more to let go of a disk.  A guest that has only just
#: started may have missed the request.
_ASK_AGAIN: Final = 5.0
#: QEMU's words for a denied access.
_NOT_LET: Final = re.compile("not permitted|[Pp]ermission denied")


@implementer(IPoweringHypervisor, IConfiguringHypervisor, IResizingHypervisor)
class QemuHypervisor:
    """The QEMU hypervisor.  Each server has a folder in one directory, which exists."""

    def __init__(self, name: str, options: QemuOptions, context: PluginContext) -> None:
        self.name = name
        self._options = options
        self._reactor = context.reactor
        self._threads = context.threads
        self._jail = context.jail
        self._strays = Strays(options.directory, context.jail, context.threads, context.reactor)
        #: A lock for each server, since QEMU talks to one client at a time.
        self._locks: WeakValueDictionary[str, DeferredLock] = WeakValueDictionary()

    async def start(self, server: str, machine: Machine) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.start`."""
        path = self._options.directory / server
        with failures(f"Server {server} cannot be started"):
            folder = await self._threads.obtain(Folder.close, Folder.make, path)
            try:
                # A former daemon may have started the server, and ended before the server was up.
                if await self._up(server, folder, lambda: self._is_free(server, folder)):
                    await self._threads.run(lambda: folder.note(folder.process()))
                else:
                    await self._strays.clear(server)
                    await self._run(server, folder, machine)
            finally:
                folder.close()

    async def _run(self, server: str, folder: Folder, wanted: Machine) -> None:
        """Start QEMU.  ``folder`` must be locked."""
        binary = await self._threads.run(shutil.which, self._options.binary)
        if binary is None:
            raise HypervisorFailed(
                f"The program {self._options.binary} is not installed: install QEMU."
            )
        async with self._stack() as stack:
            given = await self._threads.run(machine.reached, self._options, wanted, stack)
            command = machine.command(self._options, binary, server, wanted, given)
            bounds = await self._threads.run(machine.bounds, self._options, wanted, given)
            try:
                command = self._jail.command(command, bounds)
            except NotConfined as error:
                raise HypervisorFailed(f"Server {server} does not start. {error}") from error
            own = await self._threads.obtain(machine.close, machine.open_own, folder, wanted)
            try:
                process = self._spawn(folder, command, {**own, **given.files})
            finally:
                # The listening socket is QEMU's alone: the socket goes when QEMU goes.
                machine.close(own)
            await self._begin(server, folder, process)

    def _spawn(
        self, folder: Folder, command: Sequence[str], files: Mapping[int, int]
    ) -> machine.Qemu:
        """Start QEMU, and the program that keeps its console."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            shared = {machine.FOLDER: folder.descriptor}
            home = str(folder.path)
            keeping: Mapping[int, int | str] = {0: reading, **shared}
            spawn(self._reactor, Child(), machine.keeper(self._jail), keeping, folder=home)
            given: Mapping[int, int | str] = {2: "r", machine.CONSOLE: writing, **shared, **files}
            return spawn(self._reactor, machine.Qemu(), command, given, folder=home)
        finally:
            os.close(reading)
            os.close(writing)

    async def _begin(self, server: str, folder: Folder, process: machine.Qemu) -> None:
        """Wait until a process has become a running server.  After a failure, end the process."""
        try:
            await self._threads.run(folder.note, process.pid)
            # A guest may have turned the machine off before the daemon looks.
            if not await self._up(server, folder, process.has_ended) and await process.ended.wait():
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
        """Wait until QEMU has set up its machine.  Return False if QEMU ended instead."""
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
        with failures(f"Server {server} may still run"):
            async with self._folder(server) as folder:
                await self._end_all(server, folder)
                if folder is not None:
                    await self._threads.run(folder.remove)

    async def power_off(self, server: str, ask: bool) -> None:
        """See :meth:`bootvol.interfaces.IPoweringHypervisor.power_off`."""
        with failures(f"Server {server} may still run"):
            await self._strays.end(server)
            if ask:
                await self._shut_down(server)
            async with self._folder(server) as folder:
                await self._end_all(server, folder)

    async def _shut_down(self, server: str) -> None:
        """Ask the guest by ACPI to shut down.  Wait for the end, up to ``shutdown_timeout``."""
        end = self._reactor.seconds() + self._options.shutdown_timeout
        ask = 0.0
        while (now := self._reactor.seconds()) < end:
            # A QEMU that hangs loses its power after the same time as a guest.
            with suppress(QmpFailed, QmpRefused):
                async with self._monitor(server) as qmp:
                    if qmp is None:
                        return
                    if now >= ask:
                        await qmp.execute("system_powerdown")
                        ask = now + _ASK_AGAIN
            await self._pause()

    async def _end_all(self, server: str, folder: Folder | None) -> None:
        """End all processes of a server.  Then ``folder`` is locked, if the folder exists."""
        await self._strays.end(server)
        end = self._reactor.seconds() + _KILL
        while folder and (process := await self._process(server, folder)) is not None:
            if self._reactor.seconds() > end:
                raise HypervisorFailed(f"Server {server} may still run: the process does not end.")
            await self._end(folder, process)
        await self._strays.clear(server)

    async def _end(self, folder: Folder, process: int) -> None:
        """End a process of QEMU."""
        try:
            descriptor = os.pidfd_open(process)
        except ProcessLookupError:
            return
        try:
            # Meanwhile the process may have ended, and its id have become another process's.
            if await self._threads.run(folder.process) != process:
                return
            with suppress(QmpFailed, QmpRefused):
                async with connected(self._reactor, folder.socket, _QUIT) as qmp:
                    await qmp.execute("quit")
                await readable(self._reactor, descriptor, _QUIT)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            await readable(self._reactor, descriptor, _KILL)
        finally:
            os.close(descriptor)

    async def running(self) -> Collection[str]:
        """See :meth:`bootvol.interfaces.IHypervisor.running`."""
        with failures("The running servers cannot be listed"):
            return await self._strays.running()

    async def attach(self, server: str, disk: Disk) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.attach`."""
        with failures(f"Server {server} does not take {disk.device}"):
            async with self._monitor(server) as qmp:
                if qmp is None:
                    raise HypervisorFailed(f"Server {server} does not run.")
                node = disks.node_name(disk)
                if disk.device in await devices(qmp):
                    if await drive(qmp, disk.device) != node:
                        raise HypervisorFailed(
                            f"Server {server} has another disk as {disk.device}."
                        )
                    return
                if node not in await nodes(qmp):
                    await self._add(qmp, server, disk)
                await qmp.execute("device_add", disks.device(disk))

    async def _add(self, qmp: Qmp, server: str, disk: Disk) -> None:
        """Let QEMU open a disk."""
        async with self._stack() as stack, self._folder(server) as folder:
            steps = reach.reach(disk, self._options.tls, stack)
            told = await self._hand_over(qmp, disk, steps, folder)
            if told.socket is not None and folder is not None:
                await self._threads.run(folder.lend, told.socket)
            secret = told.secret
            if secret is not None and secret["id"] not in await children(qmp, "/objects"):
                await qmp.execute("object-add", secret)
            try:
                await qmp.execute("blockdev-add", told.block)
            except QmpRefused as error:
                if not reach.has_descriptor(disk.connection) and _NOT_LET.search(str(error)):
                    raise HypervisorFailed(
                        f"{error}. The server started without disks of this kind, so it may not"
                        " reach them. Start the server with such a disk, or have the operator set"
                        " hypervisor.remote_disks."
                    ) from error
                raise

    async def _hand_over(
        self, qmp: Qmp, disk: Disk, steps: reach.Reaching, folder: Folder | None
    ) -> reach.Told:
        """Give QEMU the descriptors by which QEMU reaches a disk."""
        # The number of an fdset differs from the number of the descriptor in the fdset.
        number: Literal["fdset-id", "fd"] = (
            "fdset-id" if reach.has_descriptor(disk.connection) else "fd"
        )
        found = await self._threads.run(reach.step, steps)
        while not isinstance(found, reach.Told):
            if number == "fdset-id" and folder is not None:
                await self._threads.run(folder.make_room, found)
            opaque = {"opaque": disks.node_name(disk)}
            added = await qmp.ask(ADDED, "add-fd", opaque, found)
            found = await self._threads.run(reach.step, steps, added[number])
        return found

    async def detach(self, server: str, device: str) -> None:
        """See :meth:`bootvol.interfaces.IHypervisor.detach`."""
        with failures(f"Server {server} may still use {device}"):
            async with self._monitor(server) as qmp:
                if qmp is None:
                    return
                if device in await devices(qmp):
                    await self._unplug(qmp, server, device)
                closing = plugged.drop(qmp, disks.prefix(device), self._reactor)
                await in_time(closing, _CLOSE, self._reactor)

    async def _unplug(self, qmp: Qmp, server: str, device: str) -> None:
        """Let the guest release a device.  The guest has to agree."""
        now = self._reactor.seconds()
        end, ask = now + self._options.detach_timeout, now
        while device in await devices(qmp):
            now = self._reactor.seconds()
            if now >= end:
                raise HypervisorFailed(
                    f"The guest of server {server} does not release {device}: the disk is still "
                    "plugged in."
                )
            if now >= ask:
                # QEMU refuses if the guest was asked a moment ago.
                with suppress(QmpRefused):
                    await qmp.execute("device_del", {"id": device})
                ask = now + _ASK_AGAIN
            await self._pause()

    async def resize(self, server: str, disk: Disk, size: int) -> None:
        """See :meth:`bootvol.interfaces.IResizingHypervisor.resize`."""
        with failures(f"Server {server} does not see the new size of {disk.device}"):
            async with self._monitor(server) as qmp, self._folder(server) as folder:
                if qmp is None or folder is None:
                    raise HypervisorFailed(f"Server {server} does not run.")
                if disk.connection.kind == "file":
                    await self._threads.run(folder.allow, size)
                await plugged.resize(qmp, server, disk, size)

    async def console(self, server: str, length: int) -> bytes:
        """See :meth:`bootvol.interfaces.IHypervisor.console`."""
        with failures(f"The console of server {server} cannot be read"):
            async with self._folder(server) as folder:
                if folder is None:
                    return b""
                return await self._threads.run(console.tail, folder.descriptor, length)

    # --- finding a server -------------------------------------------------------------------------

    @asynccontextmanager
    async def _folder(self, server: str) -> AsyncIterator[Folder | None]:
        """Open a server's folder; yield None if the folder does not exist."""
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

        :returns: None without a process.  Then ``folder`` is locked, so that no process comes up.
        :raises HypervisorFailed: if a process is starting or ending, and does not finish.
        """
        end = self._reactor.seconds() + _KILL
        while self._reactor.seconds() < end:
            process = await self._threads.run(folder.process)
            if process is not None or await self._threads.run(folder.take):
                return process
            await self._pause()
        raise HypervisorFailed(f"A process of server {server} still runs, and does not end.")

    async def _is_free(self, server: str, folder: Folder) -> bool:
        return await self._process(server, folder) is None

    @asynccontextmanager
    async def _monitor(self, server: str) -> AsyncIterator[Qmp | None]:
        """Connect to a server's QEMU, or yield None if QEMU does not run.  Other callers wait."""
        lock = self._locks.setdefault(server, DeferredLock())
        async with lock, self._folder(server) as folder:
            if folder is None or await self._process(server, folder) is None:
                await self._strays.refuse(server)
                yield None
                return
            async with connected(self._reactor, folder.socket) as qmp:
                yield qmp

    @asynccontextmanager
    async def _stack(self) -> AsyncIterator[ExitStack]:
        """Hold files open until the end of the block."""
        stack = ExitStack()
        try:
            yield stack
        finally:
            await self._threads.run(stack.close)

    def _pause(self) -> Deferred[None]:
        return sleep(self._reactor, _LOOK)
