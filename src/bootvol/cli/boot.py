"""Boots a virtual machine from a volume, to see that it can."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bootvol.cli import signals
from bootvol.cli.failures import CommandFailed
from bootvol.jail import Bounds, Jail, NotConfined

QEMU: Final = "qemu-system-x86_64"

MISSING: Final = f"{QEMU} is not installed; on Debian and Ubuntu: apt-get install qemu-system-x86"

#: Ends the machine with this command, even if that is killed: the volume is not in use then.
_WITH_US: Final = ("setpriv", "--pdeathsig", "TERM")
#: Seconds between two looks at the machine, and that it has to end when asked.
_INTERVAL: Final = 0.1
_GRACE: Final = 10.0


def boot(
    path: str, memory: int, accelerator: str, seconds: float | None, stop: Sequence[int]
) -> int:
    """Run a machine whose first disk, /dev/vda, is the volume; its serial console is ours.

    :param path: of the volume: what QEMU takes for a raw file or block device.
    :param memory: MiB.
    :param seconds: end it after so long; None lets it run until it powers off.
    :param stop: gets the number of a signal when the machine is to end.
    :returns: the exit code of the machine, 0 if its time was over, that of a command which the
        signal has ended if one came.
    :raises CommandFailed: QEMU is not installed, or cannot be confined.
    """
    if shutil.which(QEMU) is None:
        raise CommandFailed(MISSING)
    interactive = sys.stdin.isatty()
    with ExitStack() as stack:
        found = _opened(path)
        if found is not None:
            stack.callback(os.close, found[0])
        command = _command(path, found, memory, accelerator, interactive)
        sys.stdout.flush()
        until = None if seconds is None else time.monotonic() + seconds
        # The arguments are a list, and the path is the operator's own service's.
        machine = subprocess.Popen(  # noqa: S603
            command,
            stdin=None if interactive else subprocess.DEVNULL,
            pass_fds=() if found is None else found[:1],
        )
    try:
        while machine.poll() is None and not stop:
            if until is not None and time.monotonic() > until:
                return 0
            time.sleep(_INTERVAL)
        return signals.exit_code(stop[0]) if stop else machine.returncode
    finally:
        machine.terminate()
        try:
            machine.wait(_GRACE)
        except subprocess.TimeoutExpired:
            machine.kill()
            machine.wait()


def _opened(path: str) -> tuple[int, str] | None:
    """Open a file or a block device; return the descriptor, and what QEMU calls its kind.

    :returns: None if the path is something else that QEMU knows: an image of Ceph, an export.
    :raises CommandFailed: it cannot be opened.
    """
    if not os.path.exists(path):
        return None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise CommandFailed(f"The volume cannot be opened: {error.strerror}") from error
    is_block = stat.S_ISBLK(os.fstat(descriptor).st_mode)
    return descriptor, "host_device" if is_block else "file"


def _command(
    path: str, found: tuple[int, str] | None, memory: int, accelerator: str, interactive: bool
) -> list[str]:
    """Return the command that runs the machine, which has nothing but its volume if that is here.

    :raises CommandFailed: it cannot be confined.
    """
    if found is None:
        drive = ["-drive", f"file={path.replace(',', ',,')},format=raw,if=none,id=root"]
    else:
        file = {"driver": found[1], "filename": "/dev/fdset/1"}
        drive = ["-add-fd", f"fd={found[0]},set=1", "-blockdev"]
        drive += [json.dumps({"driver": "raw", "node-name": "root", "file": file})]
    command = [
        QEMU,
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        # graphics=off lets the BIOS and boot loaders speak on the serial console too.
        *("-machine", f"pc,graphics=off,accel={accelerator}"),
        *("-m", str(memory)),
        *("-nodefaults", "-no-reboot", "-display", "none"),
        *drive,
        *("-device", "virtio-blk-pci,drive=root,bootindex=0"),
        *("-serial", "mon:stdio" if interactive else "stdio"),
    ]
    if found is None:
        # QEMU opens the sockets and the keys of such a volume itself.
        return [*(_WITH_US if shutil.which(_WITH_US[0]) else ()), *command]
    kvm = [Path("/dev/kvm")] if accelerator == "kvm" and os.path.exists("/dev/kvm") else []
    groups = [each.stat().st_gid for each in kvm]
    bounds = Bounds(writes=kvm, groups=groups, limits={"CORE": 0}, dies_with_us=True)
    try:
        return Jail().command(command, bounds)
    except NotConfined as error:
        raise CommandFailed(f"The machine is not started. {error}") from error
