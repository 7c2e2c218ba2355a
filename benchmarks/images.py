"""The images to import, and the lists of their digests."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Final

GIB: Final = 1024**3
MIB: Final = 1024**2
SIZE: Final = int(float(os.environ.get("BENCH_GIB", "2")) * GIB)
#: Size of the xz image in bytes: smaller, since decompressing xz is slow.
XZ_SIZE: Final = SIZE // 4


def make_images(www: Path, images: Path) -> None:
    """Make one image of random bytes, one that is half zeros, and the lists of their digests."""
    for name in ("raw", "sha512", "sha256"):
        (www / name).mkdir(parents=True)
        for image in ("full", "half"):
            (www / name / image).symlink_to(www / image)
    sums = {"sha512": hashlib.sha512(), "sha256": hashlib.sha256()}
    halves = {"sha512": hashlib.sha512(), "sha256": hashlib.sha256()}
    with (www / "full").open("wb") as full, (www / "half").open("wb") as half:
        for number in range(SIZE // (4 * MIB)):
            noise = os.urandom(4 * MIB)
            full.write(noise)
            other = noise if number % 2 else bytes(4 * MIB)
            half.write(other)
            for name in sums:
                sums[name].update(noise)
                halves[name].update(other)
    for name in sums:
        (www / name / f"{name.upper()}SUMS").write_text(
            f"{sums[name].hexdigest()}  full\n{halves[name].hexdigest()}  half\n"
        )
    make_packed(www, www / "plain")
    (images / "full").symlink_to(www / "full")
    (images / "index.toml").write_text(
        f'[[images]]\nid = "full"\nfile = "full"\nsha512 = "{sums["sha512"].hexdigest()}"\n'
    )


def make_packed(raw: Path, folder: Path) -> None:
    """Make both images as qcow2, and compress an image that shrinks to about a half."""
    folder.mkdir()
    with (folder / "text").open("wb") as text, (folder / "part").open("wb") as part:
        for number in range(SIZE // MIB):
            piece = os.urandom(MIB // 2).hex().encode()
            text.write(piece)
            if number < XZ_SIZE // MIB:
                part.write(piece)
    for command in (
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw / "full"), "full.qcow2"],
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw / "half"), "half.qcow2"],
        ["gzip", "--keep", "--fast", "text"],
        ["zstd", "--quiet", "-1", "text", "-o", "text.zst"],
        # A quick preset, with as large a dictionary as the usual level's.
        ["xz", "--lzma2=preset=1,dict=8MiB", "part"],
    ):
        subprocess.run(command, cwd=folder, check=True)
