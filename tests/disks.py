"""Disks of the tests' own, whose faults are real: file systems on loop devices.

Needs root, and the packages that ``make packages`` names; without them a test fails, and says so.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

#: How each kind of file system is made, and the Debian package with the tool.  That of ext4 keeps
#: what it knows of files at the disk's beginning, and nothing but their bytes after that.
_MAKE: Final = {
    "ext4": ("mkfs.ext4 -q -F -m 0 -N 256 -J size=4 -E packed_meta_blocks=1", "e2fsprogs"),
    "xfs": ("mkfs.xfs -q -f", "xfsprogs"),
    "btrfs": ("mkfs.btrfs -q -f", "btrfs-progs"),
}
_TOOLS: Final = {"losetup": "mount", "mount": "mount", "umount": "mount"}

# From linux/loop.h.
_SET_STATUS: Final = 0x4C04
_GET_STATUS: Final = 0x4C05
_STATUS_BYTES: Final = 232
_SIZE_LIMIT: Final = 32
# From linux/fs.h.
_FREEZE: Final = 0xC0045877
_THAW: Final = 0xC0045878


class Device:
    """A loop device over a file: a block device.  All methods block."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def break_after(self, size: int) -> None:
        """Let all access beyond the first ``size`` bytes fail (a multiple of 512); 0 mends it."""
        with self.path.open("rb") as device:
            status = bytearray(_STATUS_BYTES)
            fcntl.ioctl(device, _GET_STATUS, status)
            struct.pack_into("=Q", status, _SIZE_LIMIT, size)
            fcntl.ioctl(device, _SET_STATUS, bytes(status))


class Disk:
    """A file system that is mounted.  All methods block.

    :ivar device: what it lies on.
    :ivar folder: where it is mounted.
    """

    def __init__(self, device: Device, folder: Path) -> None:
        self.device = device
        self.folder = folder

    def mount(self) -> None:
        """Mount it; it must not be mounted."""
        _run("mount", str(self.device.path), str(self.folder))

    def unmount(self, *, lazily: bool = False) -> None:
        """Take it away from its folder; lazily, even while files on it are open."""
        _run("umount", *(["--lazy"] if lazily else []), str(self.folder))

    def is_mounted(self) -> bool:
        """Tell whether something is mounted on the folder, which itself may answer no more."""
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return str(self.folder) in (line.split()[4] for line in mounts)

    def remount(self, options: str) -> None:
        """Change the options that it is mounted with.

        ``ro`` makes it read-only, if no file is open to be written; ``abort`` (ext4) makes it so in
        any case, as the system does by itself where it finds the file system broken.
        """
        _run("mount", "-o", f"remount,{options}", str(self.folder))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let whoever writes to it wait until the block ends (fsfreeze(8)); nothing ends that."""
        opened = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(opened, _FREEZE, 0)
            try:
                yield
            finally:
                fcntl.ioctl(opened, _THAW, 0)
        finally:
            os.close(opened)

    def fill(self, others: Path, free: int) -> None:
        """Take up space, as others do who use the same disk, until so many bytes are free.

        :param others: the file that takes it; is made.
        """
        with others.open("xb") as opened:
            os.posix_fallocate(opened.fileno(), 0, self.free() - free)
        assert abs(self.free() - free) < 2**20

    def free(self) -> int:
        """Return how many bytes are free, once what was deleted is."""
        _run("sync", "--file-system", str(self.folder))
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


@contextmanager
def block_device(file: Path, size: int) -> Iterator[Device]:
    """Make a block device of zeros until the block ends.  Blocks.

    :param file: what it lies on, sparsely; is made, and removed.
    :param size: bytes.
    """
    _check(_TOOLS)
    with ExitStack() as stack:
        with file.open("xb") as opened:
            opened.truncate(size)
        stack.callback(file.unlink)
        device = Path(_run("losetup", "--find", "--show", str(file)).strip())
        stack.callback(_run, "losetup", "--detach", str(device))
        yield Device(device)


@contextmanager
def disk(folder: Path, size: int, kind: str) -> Iterator[Disk]:
    """Make a file system and mount it until the block ends.  Blocks.

    :param folder: where to mount it; is made.  Its file is made beside it.
    :param size: bytes.
    :param kind: ``ext4``, ``xfs`` or ``btrfs``.
    """
    make, package = _MAKE[kind]
    _check({make.split()[0]: package})
    with block_device(folder.with_name(f"{folder.name}.disk"), size) as device:
        _run(*make.split(), str(device.path))
        folder.mkdir(exist_ok=True)
        mounted = Disk(device, folder)
        mounted.mount()
        try:
            yield mounted
        finally:
            # A test may have unmounted it, or failed with files open on it.
            while mounted.is_mounted():
                mounted.unmount(lazily=True)


def _check(tools: dict[str, str]) -> None:
    if os.geteuid() != 0:
        raise AssertionError("This test mounts file systems: run it as root.")
    missing = {package for tool, package in tools.items() if shutil.which(tool) is None}
    if missing:
        raise AssertionError(f"This test needs: apt-get install {' '.join(sorted(missing))}")


def _run(*command: str) -> str:
    """Run a command and return what it says.

    :raises AssertionError: it failed, with its reason.
    """
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if ended.returncode:
        raise AssertionError(
            f"{' '.join(command)}: {ended.stderr.strip() or ended.returncode}"
            " (loop devices must be allowed here, as well as mounting)"
        )
    return ended.stdout
