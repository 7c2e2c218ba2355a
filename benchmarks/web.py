"""Imports of random bytes over HTTP and from folders, beside what people do by hand."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.disks import disk
from tests.processes import process

from benchmarks.bench import CONFIG, NO_CACHE, Bench, Pair, Taken, Watch
from benchmarks.images import MIB, SIZE, XZ_SIZE
from benchmarks.site import Site


@contextmanager
def random_bytes(site: Site) -> Iterator[Bench]:
    """Run a daemon beside the images of random bytes until the block ends."""
    folder = site.fresh()
    shutil.copytree(site.images, folder / "images", symlinks=True)
    with process(folder, CONFIG.format(url=site.url), backend=NO_CACHE) as daemon:
        yield Bench(folder, daemon, site.url)


def over_http(site: Site) -> Iterator[Pair]:
    """Yield imports of plain images over HTTP."""
    with random_bytes(site) as bench:
        sha256 = bench.imported(f"{site.url}sha256/full")
        sha512 = bench.imported(f"{site.url}sha512/full")
        nothing = bench.imported(f"{site.url}raw/full")
        curl = bench.shell("curl -s -o $OUT ${URL}full")
        synced = bench.shell("curl -s -o $OUT ${URL}full; sync $OUT")
        dd = bench.shell("dd if=$DIR/images/full of=$OUT bs=4M oflag=direct status=none")
        yield Pair("HTTP, sha256", sha256, "curl -o", curl, "0.8")
        yield Pair("HTTP, sha256", sha256, "curl -o, fsync", synced, "0.8")
        # The same bytes from a file, without a network: no import is faster on a slow disk.
        yield Pair("HTTP, sha256", sha256, "dd oflag=direct", dd, "1.2")
        # No import can be faster than this. A write to the page cache alone may be, on fast memory.
        yield Pair("HTTP, sha256", sha256, "hashing alone, one core", hashing("sha256"), "-")
        yield Pair("HTTP, sha512", sha512, "hashing alone, one core", hashing("sha512"), "1.18")
        yield Pair(
            "HTTP, sha512",
            sha512,
            "curl, tee, sha512sum",
            bench.shell("curl -s ${URL}full | tee $OUT | sha512sum >/dev/null"),
            "0.7",
        )
        yield Pair(
            "HTTP, sha512",
            sha512,
            "temporary file, sha512, qemu-img convert",
            bench.shell(
                "curl -s -o $OUT.tmp ${URL}full; sha512sum $OUT.tmp >/dev/null;"
                " qemu-img convert -f raw -O raw -t none -T none $OUT.tmp $OUT"
            ),
            "0.6",
        )
        yield Pair("HTTP, nothing stated", nothing, "curl -o", curl, "-")
        half = bench.imported(f"{site.url}raw/half")
        beside = "the same, no zeros"
        yield Pair("HTTP, nothing stated, half zeros", half, beside, nothing, "-")
        half = bench.imported(f"{site.url}sha256/half")
        yield Pair("HTTP, sha256, half zeros", half, beside, sha256, "-")
        qcow2 = bench.imported(f"{site.url}plain/full.qcow2")
        half = bench.imported(f"{site.url}plain/half.qcow2")
        yield Pair("HTTP, qcow2, half zeros", half, beside, qcow2, "0.6")
        yield Pair(
            "HTTP, qcow2",
            qcow2,
            "curl -o, qemu-img convert",
            bench.shell(
                "curl -s -o $OUT.tmp ${URL}plain/full.qcow2;"
                " qemu-img convert -f qcow2 -O raw -t none -T none $OUT.tmp $OUT"
            ),
            "1.3",
        )


def compressed(site: Site) -> Iterator[Pair]:
    """Yield imports of compressed images over HTTP."""
    with random_bytes(site) as bench:
        zstd = bench.imported(f"{site.url}plain/text.zst")
        # A write to the page cache alone does not wait for the disk, which is slower than zstd.
        synced = bench.shell("curl -s ${URL}plain/text.zst | zstd -dc > $OUT; sync $OUT")
        yield Pair("HTTP, zstd", zstd, "curl, zstd -dc, fsync", synced, "1.0")
        for tool, what, packed, size, target in (
            ("gzip", "gzip", "text.gz", SIZE, "1.2"),
            ("zstd", "zstd", "text.zst", SIZE, "-"),
            ("xz", f"xz, {XZ_SIZE // MIB} MiB", "part.xz", XZ_SIZE, "1.2"),
        ):
            yield Pair(
                f"HTTP, {what}",
                bench.imported(f"{site.url}plain/{packed}"),
                f"curl, {tool} -dc",
                bench.shell(f"curl -s ${{URL}}plain/{packed} | {tool} -dc > $OUT"),
                target,
                size,
            )


def from_folders(site: Site) -> Iterator[Pair]:
    """Yield imports from folders: of another file system, and of the volumes' own xfs."""
    with random_bytes(site) as bench:
        yield Pair(
            "directory, sha512",
            bench.imported("full"),
            "cp --sparse=always, sha512sum",
            bench.shell("cp --sparse=always $DIR/images/full $OUT; sha512sum $OUT >/dev/null"),
            "1.3",
        )
    with disk(site.fresh() / "xfs", 4 * SIZE, "xfs") as mounted:
        shutil.copytree(site.images, mounted.folder / "images")
        with process(mounted.folder, CONFIG.format(url=site.url), backend=NO_CACHE) as daemon:
            bench = Bench(mounted.folder, daemon, site.url)
            yield Pair(
                "directory on the same xfs, sha512",
                bench.imported("full"),
                "cp --reflink, sha512sum",
                bench.shell("cp --reflink=always $DIR/images/full $OUT; sha512sum $OUT >/dev/null"),
                "1.3",
            )


def hashing(algorithm: str) -> Callable[[], Taken]:
    """Return a function that hashes as many bytes as an image has, from memory."""

    def run() -> Taken:
        piece = os.urandom(4 * MIB)
        watch = Watch()
        digest = hashlib.new(algorithm)
        for _ in range(SIZE // len(piece)):
            digest.update(piece)
        return watch.taken()

    return run
