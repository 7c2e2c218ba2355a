"""Boots a virtual machine from a volume, to see that it can."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import attrs

from bootvol.cli import signals
from bootvol.cli.failures import CommandFailed
from bootvol.jail import Bounds, Jail, NotConfined, Sockets

QEMU: Final = "qemu-system-x86_64"

MISSING: Final = f"{QEMU} is not installed; on Debian and Ubuntu: apt-get install qemu-system-x86"

#: Where Ceph's library looks for keys, and the settings that name other places.
_CEPH: Final = Path("/etc/ceph")
_KEYS: Final = re.compile(r"^\s*key(?:ring|[ _]?file)\s*=\s*(/[^\s,;#]+)", re.MULTILINE)
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
        volume = _volume(path, stack)
        command = _command(volume, memory, accelerator, interactive)
        sys.stdout.flush()
        until = None if seconds is None else time.monotonic() + seconds
        # The arguments are a list, and the path is the operator's own service's.
        machine = subprocess.Popen(  # noqa: S603
            command,
            stdin=None if interactive else subprocess.DEVNULL,
            pass_fds=() if volume.descriptor is None else (volume.descriptor,),
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


@attrs.frozen
class _Volume:
    """How QEMU reaches the volume.

    :ivar drive: what QEMU is told.
    :ivar bounds: what that takes.
    :ivar descriptor: what QEMU gets.
    """

    drive: Sequence[str]
    bounds: Bounds
    descriptor: int | None = None


def _volume(path: str, stack: ExitStack) -> _Volume:
    """Open what QEMU needs to reach the volume.

    :param stack: closes that.
    :raises CommandFailed: the volume cannot be opened.
    """
    try:
        if os.path.exists(path):
            return _opened(path, stack)
        uri = urlsplit(path)
        if uri.scheme == "nbd+unix":
            return _served(uri, stack)
    except OSError as error:
        raise CommandFailed(f"The volume cannot be opened: {error.strerror}") from error
    # QEMU reads the keys of such a volume itself, so they have to be its user's.
    reads = _of_ceph(path) if path.startswith("rbd:") else []
    bounds = Bounds(as_us=True, reads=reads, sockets=Sockets.INTERNET)
    drive = f"file={path.replace(',', ',,')},format=raw,if=none,id=root"
    return _Volume(["-drive", drive], bounds)


def _opened(path: str, stack: ExitStack) -> _Volume:
    """Open a file or a block device."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    is_block = stat.S_ISBLK(os.fstat(descriptor).st_mode)
    driver = "host_device" if is_block else "file"
    words = _blockdev({"driver": driver, "filename": "/dev/fdset/1"})
    return _Volume(["-add-fd", f"fd={descriptor},set=1", *words], Bounds(), descriptor)


def _served(uri: SplitResult, stack: ExitStack) -> _Volume:
    """Open the folder of the socket of an export: QEMU's user connects to that socket alone."""
    socket = Path(parse_qs(uri.query).get("socket", [""])[0])
    descriptor = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    server = {"type": "unix", "path": f"/proc/self/fd/{descriptor}/{socket.name}"}
    export = unquote(uri.path.removeprefix("/"))
    words = _blockdev({"driver": "nbd", "server": server, "export": export})
    return _Volume(words, Bounds(owns=[socket], sockets=Sockets.UNIX), descriptor)


def _blockdev(file: dict[str, Any]) -> list[str]:
    return ["-blockdev", json.dumps({"driver": "raw", "node-name": "root", "file": file})]


def _of_ceph(address: str) -> list[Path]:
    """Return the files and folders by which Ceph's library reaches the cluster of an image.

    :param address: as the manual of qemu-system has it: a backslash takes the meaning of what
        follows it.
    """
    words = [match[0] for match in re.finditer(r"(?:\\.|[^\\:])+", address)]
    said = dict(re.sub(r"\\(.)", r"\1", word).partition("=")[::2] for word in words)
    conf = Path(said.get("conf", _CEPH / "ceph.conf"))
    named = [said["keyring"]] if "keyring" in said else []
    with suppress(OSError, UnicodeDecodeError):
        named += _KEYS.findall(conf.read_text())
    user = said.get("id", "admin")
    for key, value in (("name", f"client.{user}"), ("id", user), ("cluster", "ceph")):
        named = [each.replace(f"${key}", value) for each in named]
    return [_CEPH, conf, *map(Path, named)]


def _command(volume: _Volume, memory: int, accelerator: str, interactive: bool) -> list[str]:
    """Return the command that runs the machine, which has nothing but its volume.

    :raises CommandFailed: it cannot be confined.
    """
    command = [
        QEMU,
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        # graphics=off lets the BIOS and boot loaders speak on the serial console too.
        *("-machine", f"pc,graphics=off,accel={accelerator}"),
        *("-m", str(memory)),
        *("-nodefaults", "-no-reboot", "-display", "none"),
        *volume.drive,
        *("-device", "virtio-blk-pci,drive=root,bootindex=0"),
        *("-serial", "mon:stdio" if interactive else "stdio"),
    ]
    kvm = [Path("/dev/kvm")] if accelerator == "kvm" and os.path.exists("/dev/kvm") else []
    groups = [each.stat().st_gid for each in kvm]
    bounds = attrs.evolve(
        volume.bounds, writes=kvm, groups=groups, limits={"CORE": 0}, dies_with_us=True
    )
    try:
        return Jail().command(command, bounds)
    except NotConfined as error:
        raise CommandFailed(f"The machine is not started. {error}") from error
