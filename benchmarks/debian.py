"""Disks with a real file system, made once from Debian packages, and kept in var/debian.

The disk boots the guest of :mod:`tests.guest`: a partition, ext4, GRUB, a kernel, and the packages
of a small cloud image with a compiler. The packages come from the sources that apt knows.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests import guest

from benchmarks.images import GIB

#: The disk's size, and about the size of its files, in bytes.
SIZE: Final = 2 * GIB
DATA: Final = GIB

_FOLDER: Final = Path(__file__).parent.parent / "var" / "debian"
#: Patterns and names for apt.  Their dependencies come with them.
_PACKAGES: Final = (
    *("?priority(required)", "?priority(important)", "?priority(standard)"),
    *("linux-image-amd64", "grub-pc", "openssh-server", "cloud-init", "locales", "vim", "git"),
    *("curl", "gcc"),
)
#: The formats of the disk: file, format, and further options of ``qemu-img convert``.
_FORMATS: Final = {
    "deflate.qcow2": ("qcow2", "-c"),
    "zstd.qcow2": ("qcow2", "-c", "-o", "compression_type=zstd"),
    "plain.qcow2": ("qcow2",),
}


def make_images() -> Path:
    """Make the images unless they exist; return their folder.  Takes a few minutes.

    The folder has the raw disk ``raw``, the same in each format, and a list of their digests.
    """
    sums = _FOLDER / "SHA256SUMS"
    if sums.exists():
        return _FOLDER
    _FOLDER.mkdir(parents=True, exist_ok=True)
    raw = _FOLDER / "raw"
    guest.make(raw, SIZE, _unpack_packages)
    for name, (kind, *options) in _FORMATS.items():
        _run("qemu-img", "convert", "-f", "raw", "-O", kind, *options, raw, _FOLDER / name)
    _run("zstd", "--quiet", "--force", "-3", raw, "-o", _FOLDER / "raw.zst")
    lines = [
        f"{_digest(_FOLDER / name, 'sha256')}  {name}\n" for name in ("raw", "raw.zst", *_FORMATS)
    ]
    # This file comes last: images without the list are made again.
    sums.write_text("".join(lines))
    return _FOLDER


def link_images(folder: Path) -> Path:
    """Make a folder with links to the images; return the folder of the images."""
    images = make_images()
    folder.mkdir()
    for file in images.iterdir():
        (folder / file.name).symlink_to(file)
    return images


def _unpack_packages(root: Path) -> None:
    """Unpack the packages and all their dependencies into a root folder."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "partial").mkdir()
        # By an empty list of installed packages, apt downloads all of them.
        (scratch / "status").touch()
        _run(
            *("apt-get", "install", "--download-only", "-y", "-qq"),
            *("-o", f"Dir::State::Status={scratch / 'status'}"),
            *("-o", f"Dir::Cache::Archives={scratch}"),
            *("-o", "APT::Install-Recommends=false", "-o", "APT::Sandbox::User=root"),
            *_PACKAGES,
        )
        for package in sorted(scratch.glob("*.deb")):
            _run("dpkg-deb", "--extract", package, root)


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
