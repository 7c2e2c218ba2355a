"""Makes the disk of the guest for tests: GRUB, a Linux kernel, busybox.

Each boot adds a file to the root file system, ``/dev/vda1``, and writes to the serial console::

    bootvol guest: boot 2; found files: boot-1
    bootvol guest: disk vda: 1073741824 bytes, serial none
    bootvol guest: ready

The guest prints each file of a config drive::

    bootvol guest: config openstack/latest/user_data: #!/bin/sh

Then the guest keeps running, and reports plugged and unplugged disks. The first line of a disk may
be a command: see :data:`POWER_OFF`, :data:`WRITE` and :data:`CHATTER`.

The kernel and busybox come from Debian packages, unpacked by ``make packages`` into var/guest.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.waiting import LIMIT

_HERE: Final = Path(__file__).parent
_FETCHED: Final = _HERE.parent.parent / "var" / "guest"
#: From Debian's package grub-pc-bin.
_GRUB: Final = Path("/usr/lib/grub/i386-pc")

_MIB: Final = 1024 * 1024
#: Size of the smallest disk, and offset of the one partition of each disk, in bytes.
_SIZE: Final = 40 * _MIB
_START: Final = _MIB
#: Size of a disk with all files from the guest's packages, in bytes.
_PACKAGES_SIZE: Final = 192 * _MIB

#: The guest's last line after a boot.
READY: Final = "bootvol guest: ready"
#: First lines of disks, as commands: turn the machine off; write to the disk's second sector; write
#: to the console for ever.
POWER_OFF: Final = b"bootvol: power off\n"
WRITE: Final = b"bootvol: write\n"
CHATTER: Final = b"bootvol: chatter\n"

_GRUB_CONFIG: Final = """\
set root=(hd0,msdos1)
linux /boot/vmlinuz console=ttyS0 quiet panic=-1
initrd /boot/initramfs
boot
"""
_GRUB_MODULES: Final = ("biosdisk", "part_msdos", "ext2", "linux")


def make(
    image: Path, size: int = _SIZE, fill: Callable[[Path], object] = lambda root: None
) -> None:
    """Make the disk, a sparse raw file.  Blocks for a second or two.

    :param size: size of the disk in bytes.
    :param fill: puts more files into the root folder, before the guest's own files.
    """
    assert (_FETCHED / "complete").exists(), "there is no kernel for the guest: run `make packages`"
    with tempfile.TemporaryDirectory() as scratch:
        root, core = Path(scratch, "root"), Path(scratch, "core")
        root.mkdir()
        fill(root)
        _fill(root)
        config = Path(scratch, "grub.cfg")
        config.write_text(_GRUB_CONFIG)
        _run(
            *("grub-mkimage", "-d", _GRUB, "-O", "i386-pc", "-o", core, "-c", config),
            *("-p", "(hd0,msdos1)/boot/grub", *_GRUB_MODULES),
        )
        image.write_bytes(_master_boot_record(size) + core.read_bytes())
        with image.open("r+b") as file:
            assert file.seek(0, 2) <= _START
            file.truncate(size)
        _run(
            *("mke2fs", "-q", "-F", "-t", "ext4", "-d", root),
            *("-E", f"offset={_START},root_owner=0:0", image, f"{(size - _START) // 1024}k"),
        )


def make_of_packages(image: Path) -> None:
    """Make a disk with all files of the guest's packages: about 110 MiB, most of them modules.

    Unlike random bytes, this file system compresses, and has holes.
    """
    make(image, _PACKAGES_SIZE, _copy_packages)


def _copy_packages(root: Path) -> None:
    shutil.copytree(_FETCHED, root, symlinks=True, dirs_exist_ok=True)


def _fill(root: Path) -> None:
    """Put the guest's files into the root file system."""
    for folder in ("bin", "sbin", "dev", "proc", "sys", "boot", "boots", "config"):
        (root / folder).mkdir(exist_ok=True)
    # With more packages, links to other programs may be here.
    for program in ("bin/busybox", "sbin/init"):
        (root / program).unlink(missing_ok=True)
    (root / "bin/busybox").write_bytes(_fetched("bin/busybox").read_bytes())
    (root / "sbin/init").write_bytes((_HERE / "init.sh").read_bytes())
    for program in ("bin/busybox", "sbin/init"):
        (root / program).chmod(0o755)
    (root / "boot/vmlinuz").write_bytes(_fetched("boot/vmlinuz-*").read_bytes())
    (root / "boot/initramfs").write_bytes(_initramfs())


def _initramfs() -> bytes:
    modules = _modules("virtio_pci", "virtio_blk", "ata_piix", "sr_mod", "isofs")
    archive = b"".join(_entry(name, 0o040755) for name in ("dev", "proc", "sys", "root", "bin"))
    archive += _entry("bin/busybox", 0o100755, _fetched("bin/busybox").read_bytes())
    archive += _entry("init", 0o100755, (_HERE / "initramfs.sh").read_bytes())
    archive += _entry("modules", 0o040755)
    for module in modules:
        archive += _entry(f"modules/{module.name}", 0o100644, module.read_bytes())
    order = "".join(f"{module.name}\n" for module in modules)
    archive += _entry("modules/order", 0o100644, order.encode())
    return archive + _entry("TRAILER!!!", 0)


def _entry(name: str, mode: int, content: bytes = b"") -> bytes:
    """Return a file's entry in an archive of the kind ``newc`` of cpio(5)."""
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = "070701" + "".join(f"{number:08X}" for number in numbers) + name + "\0"
    return _padded(head.encode()) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)


def _modules(*names: str) -> list[Path]:
    """Return kernel modules, each after its dependencies; built-in modules are left out."""
    known: dict[str, Path] = {}

    def add(name: str) -> None:
        path = next(_FETCHED.glob(f"**/lib/modules/**/{name.replace('_', '[_-]')}.ko"), None)
        if name in known or path is None:
            return
        (found,) = re.findall(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for needed in filter(None, found.decode().split(",")):
            add(needed)
        known[name] = path

    for name in names:
        add(name)
    return list(known.values())


def _fetched(pattern: str) -> Path:
    (path, *_) = _FETCHED.glob(f"**/{pattern}")
    return path


def _master_boot_record(size: int) -> bytes:
    """Return GRUB's boot code and a table with one partition.

    :param size: size of the disk in bytes.
    """
    count, sectors = (size - _START) // 512, _START // 512
    beyond = b"\xfe\xff\xff"  # cylinder, head, sector: unused, unlike the numbers after them
    partition = struct.pack("<B3sB3sII", 0x80, beyond, 0x83, beyond, sectors, count)
    code = (_GRUB / "boot.img").read_bytes()[:440]
    return code.ljust(446, b"\0") + partition + bytes(48) + b"\x55\xaa"


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=LIMIT, stdout=subprocess.DEVNULL)
