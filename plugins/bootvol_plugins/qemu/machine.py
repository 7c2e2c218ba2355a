"""A server's QEMU: what it is told when it starts, and the process that it is."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from bootvol.devices import check_descriptors
from bootvol.jail import Bounds, Sockets, may_limit, room
from bootvol.model import Disk, Machine
from bootvol.threads import Shared
from bootvol_plugins.qemu import config_drive, console, disks, reach
from bootvol_plugins.qemu.folders import Folder
from bootvol_plugins.qemu.options import QemuOptions

#: Descriptors of the processes beyond the usual three: the folder, whose lock they hold; the pipe
#: between them; the file that QEMU's locks; where QEMU listens; the config drive; and from there on
#: what QEMU needs to reach the disks.
FOLDER, CONSOLE, PROCESS, MONITOR, CONFIG, DISKS = range(3, 9)
_KVM: Final = Path("/dev/kvm")
#: The most that is kept of what QEMU complains of, in bytes.
_KEPT: Final = 64 * 1024


@attrs.frozen
class Reached:
    """What a server is given to reach its disks.

    :ivar files: the descriptors of QEMU, each with the one here that it is.
    :ivar told: what QEMU is told, by disk.
    :ivar numbers: of the disks that are opened here, the descriptors in QEMU.
    """

    files: Mapping[int, int]
    told: Sequence[reach.Told]
    numbers: Mapping[Disk, int]


def reached(options: QemuOptions, machine: Machine, stack: ExitStack) -> Reached:
    """Open what a server needs to reach its disks.  Blocks.

    :param stack: closes that; QEMU needs it until QEMU has started.
    :raises HypervisorFailed: there is no way to reach a disk.
    :raises OSError: a file cannot be read.
    """
    free = itertools.count(DISKS)
    files: dict[int, int] = {}
    numbers: dict[Disk, int] = {}
    told: list[reach.Told] = []
    for disk in machine.disks:
        steps = reach.reach(disk, options.tls, stack)
        found = reach.step(steps)
        while not isinstance(found, reach.Told):
            number = next(free)
            files[number] = found
            if reach.has_descriptor(disk.connection):
                numbers[disk] = number
            found = reach.step(steps, number)
        told.append(found)
    return Reached(files, told, numbers)


def command(
    options: QemuOptions, binary: str, server: str, machine: Machine, given: Reached
) -> list[str]:
    """Return the command that runs a server.

    :param binary: the path of QEMU.
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
        # A monitor that is always connected: when none is, QEMU closes descriptors that it was
        # given and has no file open by, those of folders.
        *("-chardev", "ringbuf,id=always,size=4096", "-mon", "chardev=always,mode=control"),
        *("-add-fd", f"fd={CONSOLE},set={CONSOLE}"),
        *("-chardev", f"file,id=console,path=/dev/fdset/{CONSOLE},append=on"),
        *("-serial", "chardev:console"),
    ]
    for place, (disk, told) in enumerate(zip(machine.disks, given.told, strict=True)):
        if told.secret is not None:
            words += ["-object", json.dumps(told.secret)]
        words += ["-blockdev", json.dumps(told.block)]
        # Nothing but the first disk is booted from.
        order = {} if place else {"bootindex": 0}
        words += ["-device", json.dumps({**disks.device(disk), **order})]
    for disk, number in given.numbers.items():
        words += ["-add-fd", f"fd={number},set={number},opaque={disks.node_name(disk)}"]
    if machine.files:
        words += ["-add-fd", f"fd={CONFIG},set={CONFIG}"]
        words += ["-blockdev", json.dumps(config_drive.block(CONFIG))]
        words += ["-device", json.dumps(config_drive.DEVICE)]
    return words


def bounds(options: QemuOptions, machine: Machine, given: Reached) -> Bounds:
    """Return what a server may do.  Blocks."""
    kvm = [_KVM] if options.accel == "kvm" else []
    return Bounds(
        writes=kvm,
        owns=[told.socket for told in given.told if told.socket is not None],
        groups=[each.stat().st_gid for each in kvm],
        sockets=_sockets(options, machine),
        # No memory of it (a guest's data) on the disk.
        limits={"CORE": 0},
        grows=_largest(given) if may_limit() else None,
        locks=PROCESS,
    )


def _largest(given: Reached) -> int:
    """Return the size up to which a server writes to its disks that are files.  Blocks."""
    found = [os.fstat(given.files[number]) for number in given.numbers.values()]
    return max((room(each.st_size) for each in found if stat.S_ISREG(each.st_mode)), default=0)


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


def _sockets(options: QemuOptions, machine: Machine) -> Sockets:
    """Return what QEMU makes sockets of, to reach the disks of a server."""
    if options.remote_disks:
        return Sockets.ALL
    served = [
        each.connection for each in machine.disks if not reach.has_descriptor(each.connection)
    ]
    here = [reach.is_of_socket(each) for each in served]
    if all(here):
        return Sockets.UNIX if here else Sockets.NONE
    return Sockets.ALL if any(here) else Sockets.INTERNET


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

    @property
    def pid(self) -> int | None:
        """Its number; None if it has ended."""
        transport: Any = self.transport
        number: int | None = transport.pid
        return number

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
