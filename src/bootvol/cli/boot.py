"""Boots a virtual machine from a volume, to test that the volume is bootable."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import attrs

from bootvol.cli import signals
from bootvol.cli.failures import CommandFailed
from bootvol.jail import Bounds, Jail, NotConfined, Sockets, machine_limits
from bootvol.jsons import JsonObject

QEMU: Final = "qemu-system-x86_64"

MISSING: Final = f"{QEMU} is not installed; on Debian and Ubuntu: apt-get install qemu-system-x86"

#: The folder where Ceph's library looks for keys, and the settings that name other key files.
_CEPH: Final = Path("/etc/ceph")
_KEYS: Final = re.compile(r"^\s*key(?:ring|[ _]?file)\s*=\s*(/[^\s,;#]+)", re.MULTILINE)
#: Seconds between two looks at the machine, and seconds that the machine has to end when asked.
_INTERVAL: Final = 0.1
_GRACE: Final = 10.0


def boot(
    path: str,
    memory: int,
    accelerator: str,
    seconds: float | None,
    stop: Sequence[int],
    *,
    read_only: bool,
) -> int:
    """Run a machine whose first disk, /dev/vda, is the volume. The terminal is its serial console.

    :param path: the volume's path, as QEMU accepts a raw file or block device.
    :param memory: memory in MiB.
    :param seconds: time limit in seconds; None runs the machine until it powers off.
    :param stop: becomes non-empty when the machine must end: the caller appends signal numbers.
    :param read_only: whether the machine may only read the volume.
    :returns: the machine's exit code, 0 after the time limit, or the exit code that shells use
        for the signal in ``stop``.
    :raises CommandFailed: if QEMU is not installed, cannot be confined, or is ended by a signal.
    """
    if shutil.which(QEMU) is None:
        raise CommandFailed(MISSING)
    interactive = sys.stdin.isatty()
    with ExitStack() as stack:
        volume = _volume(path, stack, read_only=read_only)
        command = _command(volume, memory, accelerator, interactive)
        sys.stdout.flush()
        until = None if seconds is None else time.monotonic() + seconds
        # The arguments are a list, and the path comes from the operator's own service.
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
        if stop:
            return signals.exit_code(stop[0])
        if machine.returncode < 0:
            how = signal.strsignal(-machine.returncode) or f"signal {-machine.returncode}"
            raise CommandFailed(f"{QEMU} was ended from outside: {how}")
        return machine.returncode
    finally:
        machine.terminate()
        try:
            machine.wait(_GRACE)
        except subprocess.TimeoutExpired:
            machine.kill()
            machine.wait()


@attrs.frozen
class _Volume:
    """QEMU's access to the volume.

    :ivar drive: QEMU's options for the disk.
    :ivar bounds: the rights that these options need.
    :ivar descriptor: the descriptor that QEMU inherits.
    """

    drive: Sequence[str]
    bounds: Bounds
    descriptor: int | None = None


def _volume(path: str, stack: ExitStack, *, read_only: bool) -> _Volume:
    """Open the volume for QEMU.

    :param stack: closes the descriptors.
    :raises CommandFailed: if the volume cannot be opened.
    """
    try:
        if os.path.exists(path):
            return _opened(path, stack, read_only=read_only)
        uri = urlsplit(path)
        if uri.scheme == "nbd+unix":
            return _served(uri, stack, read_only=read_only)
    except OSError as error:
        raise CommandFailed(f"The volume cannot be opened: {error.strerror}") from error
    # QEMU reads the keys of such a volume itself, so QEMU's user must own the keys.
    reads = _of_ceph(path) if path.startswith("rbd:") else []
    bounds = Bounds(as_us=True, reads=reads, sockets=Sockets.INTERNET)
    drive = f"file={path.replace(',', ',,')},format=raw,if=none,id=root"
    drive += ",readonly=on" if read_only else ""
    return _Volume(["-drive", drive], bounds)


def _opened(path: str, stack: ExitStack, *, read_only: bool) -> _Volume:
    """Open a file or a block device."""
    descriptor = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    is_block = stat.S_ISBLK(os.fstat(descriptor).st_mode)
    driver = "host_device" if is_block else "file"
    words = _blockdev({"driver": driver, "filename": "/dev/fdset/1"}, read_only=read_only)
    return _Volume(["-add-fd", f"fd={descriptor},set=1", *words], Bounds(), descriptor)


def _served(uri: SplitResult, stack: ExitStack, *, read_only: bool) -> _Volume:
    """Open the folder of an export's socket. QEMU's user can connect to that socket only."""
    socket = Path(parse_qs(uri.query).get("socket", [""])[0])
    descriptor = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    server = {"type": "unix", "path": f"/proc/self/fd/{descriptor}/{socket.name}"}
    export = unquote(uri.path.removeprefix("/"))
    file: JsonObject = {"driver": "nbd", "server": server, "export": export}
    words = _blockdev(file, read_only=read_only)
    return _Volume(words, Bounds(owns=[socket], sockets=Sockets.UNIX), descriptor)


def _blockdev(file: JsonObject, *, read_only: bool) -> list[str]:
    only = {"read-only": True} if read_only else {}
    disk = {"driver": "raw", "node-name": "root", "file": {**file, **only}, **only}
    return ["-blockdev", json.dumps(disk)]


def _of_ceph(address: str) -> list[Path]:
    """Return the files and folders that Ceph's library needs to reach an image's cluster.

    :param address: an address in the form of the manual of qemu-system. A backslash escapes the
        next character.
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
    """Return the command that runs the machine. The machine has its volume and nothing else.

    :raises CommandFailed: if QEMU cannot be confined.
    """
    command = [
        QEMU,
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        # With graphics=off the BIOS and boot loaders use the serial console, too.
        *("-machine", f"pc,graphics=off,accel={accelerator}"),
        *("-m", str(memory)),
        *("-nodefaults", "-no-reboot", "-display", "none"),
        *volume.drive,
        *("-device", "virtio-blk-pci,drive=root,bootindex=0"),
        *("-serial", "mon:stdio" if interactive else "stdio"),
    ]
    kvm = [Path("/dev/kvm")] if accelerator == "kvm" and os.path.exists("/dev/kvm") else []
    groups = [each.stat().st_gid for each in kvm]
    limits = machine_limits(memory, volume.bounds.sockets)
    bounds = attrs.evolve(
        volume.bounds, writes=kvm, groups=groups, limits=limits, dies_with_us=True
    )
    try:
        return Jail().command(command, bounds)
    except NotConfined as error:
        raise CommandFailed(f"The machine is not started. {error}") from error
