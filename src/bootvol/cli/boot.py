"""Boots a virtual machine from a volume, to see that it can."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Final

from bootvol.cli.failures import CommandFailed

QEMU: Final = "qemu-system-x86_64"

MISSING: Final = f"{QEMU} is not installed; on Debian and Ubuntu: apt-get install qemu-system-x86"


def boot(path: str, memory: int, accelerator: str, seconds: float | None) -> int:
    """Run a machine whose first disk, /dev/vda, is the volume; its serial console is ours.

    :param path: of the volume, a raw file or block device.
    :param memory: MiB.
    :param seconds: end it after so long; None lets it run until it powers off.
    :returns: the exit code of the machine, 0 if its time was over.
    :raises CommandFailed: QEMU is not installed.
    """
    if shutil.which(QEMU) is None:
        raise CommandFailed(MISSING)
    interactive = sys.stdin.isatty()
    command = [
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
    # The arguments are a list, and the path is the operator's own service's.
    machine = subprocess.Popen(command, stdin=None if interactive else subprocess.DEVNULL)  # noqa: S603
    try:
        return machine.wait(seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        return 0
    finally:
        machine.terminate()
        machine.wait()
