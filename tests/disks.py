"""Disks for tests, with real faults: file systems on loop devices.

The tests need root, and the packages that ``make packages`` names. Without them a test fails with a
message.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.waiting import LIMIT

#: The command that makes each kind of file system, and the Debian package of its tool.  This ext4
#: keeps its metadata at the disk's beginning, and only the files' data after that.
_MAKE: Final = {
    "ext4": ("mkfs.ext4 -q -F -m 0 -N 256 -J size=4 -E packed_meta_blocks=1", "e2fsprogs"),
    "xfs": ("mkfs.xfs -q -f", "xfsprogs"),
    "btrfs": ("mkfs.btrfs -q -f", "btrfs-progs"),
}
_TOOLS: Final = {"losetup": "mount", "mount": "mount", "umount": "mount"}

#: From sys/mount.h.
_DETACH: Final = 2
# From linux/loop.h.
_SET_STATUS: Final = 0x4C04
_GET_STATUS: Final = 0x4C05
_STATUS_BYTES: Final = 232
_SIZE_LIMIT: Final = 32
# From linux/fs.h.
_FREEZE: Final = 0xC0045877
_THAW: Final = 0xC0045878


@contextmanager
def without_a_server(folder: Path) -> Iterator[None]:
    """Mount a file system over a folder whose server has died, until the end of the block.

    That is how a mount of sshfs or GlusterFS ends.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    words = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    mounted = libc.mount(b"bootvol", os.fsencode(folder), b"fuse", 0, words)
    failure = os.strerror(ctypes.get_errno())
    os.close(server)
    assert mounted == 0, f"This test needs root, and FUSE in the kernel: {failure}"
    try:
        yield
    finally:
        assert libc.umount2(os.fsencode(folder), _DETACH) == 0


class Device:
    """A loop device over a file.  All methods block."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def break_after(self, size: int) -> None:
        """Make all access beyond the first ``size`` bytes fail; 0 repairs the device.

        :param size: bytes, a multiple of 512.
        """
        with self.path.open("rb") as device:
            status = bytearray(_STATUS_BYTES)
            fcntl.ioctl(device, _GET_STATUS, status)
            struct.pack_into("=Q", status, _SIZE_LIMIT, size)
            fcntl.ioctl(device, _SET_STATUS, bytes(status))


class Disk:
    """A file system that can be mounted.  All methods block.

    :ivar device: the device of the file system.
    :ivar folder: the mount point.
    """

    def __init__(self, device: Device, folder: Path) -> None:
        self.device = device
        self.folder = folder

    def mount(self) -> None:
        """Mount the file system, which must be unmounted."""
        _run("mount", str(self.device.path), str(self.folder))

    def unmount(self, *, lazily: bool = False) -> None:
        """Unmount the file system; with ``lazily`` even while files on it are open."""
        _run("umount", *(["--lazy"] if lazily else []), str(self.folder))

    def is_mounted(self) -> bool:
        """Return whether the folder is a mount point, even if the folder itself does not answer."""
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return str(self.folder) in (line.split()[4] for line in mounts)

    def remount(self, options: str) -> None:
        """Change the mount options.

        ``ro`` makes the file system read-only, if no file is open for writing. ``abort`` (ext4)
        does so in any case, as the system does when the file system turns out to be broken.
        """
        _run("mount", "-o", f"remount,{options}", str(self.folder))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Make all writes wait until the block ends (fsfreeze(8)). Nothing else ends a wait."""
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
        """Take up space, as other users of the disk do, until ``free`` bytes are free.

        :param others: the file that takes the space. The method makes the file.
        """
        with others.open("xb") as opened:
            os.posix_fallocate(opened.fileno(), 0, self.free() - free)
        assert abs(self.free() - free) < 2**20

    def fill_up(self, others: Path) -> None:
        """Take up all space.

        :param others: the file that takes the space. The method makes the file.
        """
        with others.open("xb", buffering=0) as opened:
            for size in (4 * 2**20, 64 * 2**10, 512):
                with suppress(OSError):
                    while True:
                        opened.write(bytes(size))

    def free(self) -> int:
        """Return the free bytes, counting deleted files as free."""
        _run("sync", "--file-system", str(self.folder))
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


@contextmanager
def block_device(file: Path, size: int) -> Iterator[Device]:
    """Provide a block device of zeros until the block ends.  Blocks.

    :param file: the sparse file under the device. The function makes and removes the file.
    :param size: size in bytes.
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
    """Make a file system and keep it mounted until the block ends.  Blocks.

    :param folder: the mount point. The function makes the folder, and a file beside it.
    :param size: size in bytes.
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
            # A test may have unmounted the disk, or failed with open files on the disk.
            while mounted.is_mounted():
                mounted.unmount(lazily=True)


@contextmanager
def overlay(folder: Path) -> Iterator[Path]:
    """Mount an overlay file system until the block ends.  Blocks.

    :param folder: an empty folder for the parts; the mount point is in it.
    """
    _check(_TOOLS)
    lower, upper, work, mounted = (folder / name for name in ("lower", "upper", "work", "mounted"))
    for each in (lower, upper, work, mounted):
        each.mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    _run("mount", "-t", "overlay", "overlay", "-o", options, str(mounted))
    try:
        yield mounted
    finally:
        _run("umount", "--lazy", str(mounted))


def _check(tools: dict[str, str]) -> None:
    if os.geteuid() != 0:
        raise AssertionError("This test mounts file systems: run it as root.")
    missing = {package for tool, package in tools.items() if shutil.which(tool) is None}
    if missing:
        raise AssertionError(f"This test needs: apt-get install {' '.join(sorted(missing))}")


def _run(*command: str) -> str:
    """Run a command and return its output.

    :raises AssertionError: if the command fails, with its reason.
    """
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    if ended.returncode:
        raise AssertionError(
            f"{' '.join(command)}: {ended.stderr.strip() or ended.returncode}"
            " (loop devices must be allowed here, as well as mounting)"
        )
    return ended.stdout
