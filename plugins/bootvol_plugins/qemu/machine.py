"""A server's QEMU: what it is told when it starts, and the process that it is."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from bootvol.devices import check_descriptors
from bootvol.jail import Bounds, Sockets
from bootvol.model import Connection, Machine
from bootvol.threads import Shared
from bootvol_plugins.qemu import config_drive, console, disks
from bootvol_plugins.qemu.folders import Folder
from bootvol_plugins.qemu.options import QemuOptions

#: Descriptors of the processes beyond the usual three: the folder, whose lock they hold; the pipe
#: between them; the file that QEMU's locks; where QEMU listens; the config drive; and from there on
#: the disks.
FOLDER, CONSOLE, PROCESS, MONITOR, CONFIG, DISKS = range(3, 9)
_KVM: Final = Path("/dev/kvm")
#: The most that is kept of what QEMU complains of, in bytes.
_KEPT: Final = 64 * 1024


def command(options: QemuOptions, binary: str, server: str, machine: Machine) -> list[str]:
    """Return the command that runs a server.

    Those of its disks that are opened here have the descriptors from :data:`DISKS` on.

    :param binary: the path of QEMU.
    :raises HypervisorFailed: there is no way to reach a disk.
    """
    words = [
        *(binary, "-name", server, "-no-user-config", "-nodefaults"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        # graphics=off lets the BIOS and boot loaders speak on the serial console too.
        *("-machine", f"pc,graphics=off,usb=off,accel={options.accel}"),
        *("-cpu", "max", "-m", str(machine.memory_mib), "-smp", str(machine.cpus)),
        *("-boot", "strict=on", "-display", "none", "-vga", "none", "-nic", "none"),
        *("-chardev", f"socket,id=monitor,fd={MONITOR},server=on,wait=off"),
        *("-mon", "chardev=monitor,mode=control"),
        *("-add-fd", f"fd={CONSOLE},set={CONSOLE}"),
        *("-chardev", f"file,id=console,path=/dev/fdset/{CONSOLE},append=on"),
        *("-serial", "chardev:console"),
    ]
    descriptor = DISKS
    for place, disk in enumerate(machine.disks):
        secret = disks.credentials(disk, options.tls)
        if secret is not None:
            words += ["-object", json.dumps(secret)]
        words += ["-blockdev", json.dumps(disks.block(disk, descriptor, options.tls))]
        # Nothing but the first disk is booted from.
        order = {} if place else {"bootindex": 0}
        words += ["-device", json.dumps({**disks.device(disk), **order})]
        if disks.has_descriptor(disk.connection):
            name = f"opaque={disks.node_name(disk)}"
            words += ["-add-fd", f"fd={descriptor},set={descriptor},{name}"]
            descriptor += 1
    if machine.files:
        words += ["-add-fd", f"fd={CONFIG},set={CONFIG}"]
        words += ["-blockdev", json.dumps(config_drive.block(CONFIG))]
        words += ["-device", json.dumps(config_drive.DEVICE)]
    return words


def bounds(options: QemuOptions, machine: Machine) -> Bounds:
    """Return what a server may do.  Blocks.

    :raises OSError: a file that says where secrets are cannot be read.
    """
    connections = [disk.connection for disk in machine.disks]
    remote = [each for each in connections if not disks.has_descriptor(each)]
    reads = [] if options.tls is None else [options.tls]
    for each in remote:
        reads += disks.read_by_qemu(each)
    kvm = [_KVM] if options.accel == "kvm" else []
    return Bounds(
        reads=reads if remote or options.remote_disks else [],
        writes=kvm,
        # QEMU opens the sockets and the secrets of such disks itself: they are the daemon's.
        as_us=bool(remote) or options.remote_disks,
        groups=[each.stat().st_gid for each in kvm],
        sockets=_sockets(options, remote),
        # No memory of it (a guest's data) on the disk.
        limits={"CORE": 0},
        locks=PROCESS,
    )


def open_own(folder: Folder, machine: Machine) -> dict[int, int]:
    """Open what is a server's own, beside its disks.  Blocks.

    :returns: its descriptors, each with the one here that it is; :func:`close` closes these.
    """
    config_drive.write(folder.path, machine.files)
    found: dict[int, int] = {}
    try:
        found[PROCESS] = folder.open_pid()
        found[MONITOR] = folder.listen().detach()
        if machine.files:
            found[CONFIG] = config_drive.opened(folder.path)
    except BaseException:
        close(found)
        raise
    return found


def close(files: Mapping[int, int]) -> None:
    """Close descriptors."""
    for each in files.values():
        os.close(each)


def _sockets(options: QemuOptions, remote: Sequence[Connection]) -> Sockets:
    if options.remote_disks or any(disks.is_of_socket(each) for each in remote):
        return Sockets.ALL
    return Sockets.INTERNET if remote else Sockets.NONE


class Process(ProcessProtocol):
    """A process that outlives the daemon, of whose beginning the daemon hears.

    :ivar ended: fires when it has ended.
    """

    def __init__(self) -> None:
        self.ended: Shared[None] = Shared()
        self.failed = False
        self._complaint = b""

    def errReceived(self, data: bytes) -> None:
        """It complained."""
        self._complaint += data[: _KEPT - len(self._complaint)]

    def processEnded(self, reason: Failure) -> None:
        """It has ended, and all that it said has come."""
        ended: Any = reason.value
        self.failed = ended.exitCode != 0
        self.ended.finish(None)

    async def has_ended(self) -> bool:
        """Tell whether it has ended."""
        return self.ended.ended

    @property
    def complaint(self) -> str:
        """Why it does not start, in QEMU's words."""
        lines = self._complaint.decode("utf-8", "replace").splitlines()
        errors = [line for line in lines if ": " in line and "warning:" not in line]
        if not errors:
            return "QEMU ended without a word"
        # "qemu-system-x86_64: -blockdev {...}: what is wrong"
        _, _, text = errors[0].partition(": ")
        return text.rpartition("}: ")[2].rstrip(".")

    def kill(self) -> None:
        """End it now."""
        transport: Any = self.transport
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess("KILL")

    def leave(self) -> None:
        """Hear no more of it: what a process says for years is not kept."""
        transport: Any = self.transport
        transport.closeChildFD(2)


def spawn(reactor: Any, command: Sequence[str], folder: str, files: Mapping[int, Any]) -> Process:
    """Start a process in a folder.

    :param files: its descriptors, as spawnProcess takes them; of the usual three, those that are
        not among them are nothing.
    """
    process = Process()
    check_descriptors()
    with open(os.devnull, "r+b") as nothing:
        reactor.spawnProcess(
            process,
            command[0],
            command,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            path=folder,
            childFDs={**dict.fromkeys(range(3), nothing.fileno()), **files},
        )
    return process


def keeper() -> list[str]:
    """Return the command that keeps what comes of its standard input as a server's console."""
    return ["setsid", sys.executable, "-IS", console.__file__]
