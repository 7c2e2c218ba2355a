"""Boots a virtual machine from a volume, to see that it can."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from bootvol.cli import signals
from bootvol.cli.failures import CommandFailed

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
    :raises CommandFailed: QEMU is not installed.
    """
    if shutil.which(QEMU) is None:
        raise CommandFailed(MISSING)
    interactive = sys.stdin.isatty()
    command = [
        *(_WITH_US if shutil.which(_WITH_US[0]) else ()),
        QEMU,
        # graphics=off lets the BIOS and boot loaders speak on the serial console too.
        *("-machine", f"pc,graphics=off,accel={accelerator}"),
        *("-m", str(memory)),
        *("-nodefaults", "-no-reboot", "-display", "none"),
        *("-drive", f"file={path.replace(',', ',,')},format=raw,if=none,id=root"),
        *("-device", "virtio-blk-pci,drive=root,bootindex=0"),
        *("-serial", "mon:stdio" if interactive else "stdio"),
    ]
    sys.stdout.flush()
    until = None if seconds is None else time.monotonic() + seconds
    # The arguments are a list, and the path is the operator's own service's.
    machine = subprocess.Popen(command, stdin=None if interactive else subprocess.DEVNULL)  # noqa: S603
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
