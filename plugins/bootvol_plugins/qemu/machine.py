"""A server's QEMU: the command that starts QEMU, and the process."""

from __future__ import annotations

import itertools
import json
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs

from bootvol.jail import Bounds, Jail, Sockets, here, machine_limits, may_limit, memory_limits, room
from bootvol.model import Disk, Machine
from bootvol.processes import Child
from bootvol_plugins.qemu import config_drive, console, disks, reach
from bootvol_plugins.qemu.folders import Folder
from bootvol_plugins.qemu.options import QemuOptions

#: Descriptors of the processes beyond the usual three: the folder, whose lock they hold; the pipe
#: between them; the file that QEMU's process locks; the socket where QEMU listens; the config
#: drive; and the first of the descriptors by which QEMU reaches the disks.
FOLDER, CONSOLE, PROCESS, MONITOR, CONFIG, DISKS = range(3, 9)
_KVM: Final = Path("/dev/kvm")
#: Most bytes of QEMU's complaints that are kept.
_KEPT: Final = 64 * 1024
#: Memory of the keeper of a console in bytes: the keeper is a small Python.
_KEEPER: Final = 256 * 1024 * 1024


@attrs.frozen
class Reached:
    """The means by which a server reaches its disks.

    :ivar files: descriptors in QEMU, each mapped to the descriptor here.
    :ivar told: instructions for QEMU, in the order of the disks.
    :ivar numbers: descriptors in QEMU of the disks that are opened here.
    """

    files: Mapping[int, int]
    told: Sequence[reach.Told]
    numbers: Mapping[Disk, int]


def reached(options: QemuOptions, machine: Machine, stack: ExitStack) -> Reached:
    """Open the files that a server needs to reach its disks.  Blocks.

    :param stack: closes these files.  QEMU needs them until QEMU has started.
    :raises HypervisorFailed: if a disk cannot be reached.
    :raises OSError: if a file cannot be read.
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

    :param binary: path of QEMU.
    """
    words = [
        *(binary, "-name", server, "-no-user-config", "-nodefaults"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        # graphics=off lets the BIOS and boot loaders use the serial console, too.
        *("-machine", f"pc,graphics=off,usb=off,accel={options.accel}"),
        *("-cpu", "max", "-m", str(machine.memory_mib), "-smp", str(machine.cpus)),
        *("-boot", "strict=on", "-display", "none", "-vga", "none", "-nic", "none"),
        *("-chardev", f"socket,id=monitor,fd={MONITOR},server=on,wait=off"),
        *("-mon", "chardev=monitor,mode=control"),
        # A monitor that is always connected.  Without a connected monitor, QEMU closes given
        # descriptors by which no file is open: those of folders.
        *("-chardev", "ringbuf,id=always,size=4096", "-mon", "chardev=always,mode=control"),
        *("-add-fd", f"fd={CONSOLE},set={CONSOLE}"),
        *("-chardev", f"file,id=console,path=/dev/fdset/{CONSOLE},append=on"),
        *("-serial", "chardev:console"),
    ]
    for place, (disk, told) in enumerate(zip(machine.disks, given.told, strict=True)):
        if told.secret is not None:
            words += ["-object", json.dumps(told.secret)]
        words += ["-blockdev", json.dumps(told.block)]
        # QEMU boots only from the first disk.
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
    """Return the bounds of a server.  Blocks."""
    kvm = [_KVM] if options.accel == "kvm" else []
    sockets = _sockets(options, machine)
    return Bounds(
        writes=kvm,
        owns=[told.socket for told in given.told if told.socket is not None],
        groups=[each.stat().st_gid for each in kvm],
        sockets=sockets,
        limits=machine_limits(machine.memory_mib, sockets),
        grows=_largest(given) if may_limit() else None,
        locks=PROCESS,
    )


def _largest(given: Reached) -> int:
    """Return the size up to which a server may write to its disks in files.  Blocks."""
    found = [os.fstat(given.files[number]) for number in given.numbers.values()]
    return max((room(each.st_size) for each in found if stat.S_ISREG(each.st_mode)), default=0)


def open_own(folder: Folder, machine: Machine) -> dict[int, int]:
    """Open a server's own files, beside its disks.  Blocks.

    :returns: descriptors in QEMU, each mapped to the one here.  :func:`close` closes those here.
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
    """Return the sockets that QEMU must make to reach the disks of a server."""
    if options.remote_disks:
        return Sockets.ALL
    served = [
        each.connection for each in machine.disks if not reach.has_descriptor(each.connection)
    ]
    here = [reach.is_of_socket(each) for each in served]
    if all(here):
        return Sockets.UNIX if here else Sockets.NONE
    return Sockets.ALL if any(here) else Sockets.INTERNET


class Qemu(Child):
    """QEMU, which outlives the daemon.  The daemon hears only the process's beginning."""

    def __init__(self) -> None:
        super().__init__(_KEPT)

    async def has_ended(self) -> bool:
        """Return whether the process has ended."""
        return self.ended.ended

    @property
    def complaint(self) -> str:
        """The reason why QEMU does not start, in QEMU's words."""
        lines = self.err.splitlines()
        errors = [line for line in lines if ": " in line and "warning:" not in line]
        if not errors:
            return "QEMU ended without a word"
        # "qemu-system-x86_64: -blockdev {...}: what is wrong"
        _, _, text = errors[0].partition(": ")
        return text.rpartition("}: ")[2].rstrip(".")

    def leave(self) -> None:
        """Hear no more of the process: the complaints of years are not kept."""
        self.ignore(2)


def keeper(jail: Jail) -> list[str]:
    """Return the command that keeps its standard input as a server's console.

    :raises NotConfined: if programs have to be confined, and cannot be.
    """
    bounds = Bounds(
        limits={"CORE": 0, **memory_limits(_KEEPER)}, grows=console.HALF + console.PIECE
    )
    return [sys.executable, "-IS", console.__file__, str(here()), *jail.words(bounds)]
