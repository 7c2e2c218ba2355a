"""Measures bootvol beside its peers, alternately, and writes benchmarks/RESULTS.md: ``make bench``.

Each figure is a ratio of medians over pairs of consecutive runs. Absolute times on a shared machine
are noise.  BENCH_GIB sets the image's size, and BENCH_RUNS the number of pairs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from tests import ceph
from tests.disks import disk
from tests.processes import process

from benchmarks import reads
from benchmarks.bench import CONFIG, NO_CACHE, RUNS, Bench, Taken, Watch, compare
from benchmarks.holes import on_holes
from benchmarks.images import GIB, MIB, SIZE, XZ_SIZE, make_images
from benchmarks.lvm import on_lvm
from benchmarks.nginx import nginx
from benchmarks.rbd import rbd_import
from benchmarks.report import Row, report

RESULTS: Final = Path(__file__).parent / "RESULTS.md"
ABOUT: Final = (
    f"{SIZE / GIB:g} GiB of random bytes, nginx on loopback, the daemon as users run it, from\n"
    f"POST to `available`; medians of {RUNS} pairs in turn. Zeros that come over the network have\n"
    "to be received and hashed like all else, which bounds an import of them; those that a\n"
    "container leaves out need neither. More memory is taken by what was packed to need it when\n"
    "it is unpacked: 64 MiB by xz -9, 128 MiB by zstd --long=27. Where nearly all cores are busy,\n"
    "servers included, it is they that bound an import."
)


def latency(bench: Bench) -> float:
    """Return the p99 of GET of one volume in milliseconds, while two imports run at full speed."""
    stop = threading.Event()

    def load(number: int) -> None:
        # Each URL has another query: for equal images the daemon would download only once.
        run = bench.imported(f"{bench.url}sha256/full?{number}")
        while not stop.is_set():
            run()

    volume = bench.daemon.create(f"{bench.url}sha256/half", -(-SIZE // GIB))
    bench.daemon.until_settled()
    loads = [threading.Thread(target=load, args=(each,)) for each in range(2)]
    for each in loads:
        each.start()
    time.sleep(0.5)
    taken = []
    for _ in range(1000):
        began = time.monotonic()
        bench.daemon.get(f"os-volumes/{volume}")
        taken.append(time.monotonic() - began)
        time.sleep(0.005)
    stop.set()
    for each in loads:
        each.join()
    bench.daemon.delete(volume)
    bench.daemon.until_settled()
    return 1000 * statistics.quantiles(taken, n=100)[98]


def memory(folder: Path, url: str, image: str, imports: int) -> float:
    """Return the daemon's peak resident memory in MiB during concurrent imports.

    :param imports: the number of imports.
    """
    with process(folder, CONFIG.format(url=url), backend=NO_CACHE) as daemon:
        for number in range(imports):
            daemon.create(f"{url}{image}?{number}", -(-SIZE // GIB))
        statuses = daemon.until_settled(600)
        if statuses != ["available"] * imports:
            raise SystemExit(f"{image}: {statuses}")
        peak = daemon.peak_memory() / MIB
    shutil.rmtree(folder / "volumes")
    (folder / "bootvol.db").unlink()
    return peak


def allocated(bench: Bench) -> float:
    """Return the blocks of a volume from the half-zero image, divided by the image's data."""
    volume = bench.daemon.create(f"{bench.url}sha256/half", -(-SIZE // GIB))
    bench.daemon.until_settled()
    (file,) = bench.daemon.files()
    blocks = file.stat().st_blocks * 512
    bench.daemon.delete(volume)
    bench.daemon.until_settled()
    return blocks / (SIZE / 2)


def main() -> None:
    """Measure everything, and write the results."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir()
        (home / "images").mkdir()
        make_images(folder / "www", home / "images")
        with nginx(folder / "www") as url:
            more = [
                *(
                    (f"peak memory, {what}", memory(_fresh(folder), url, image, count), most)
                    for what, image, count, most in (
                        ("1 import", "sha256/full", 1, "128 MiB"),
                        ("1 import, qcow2", "plain/full.qcow2", 1, "128 MiB"),
                        ("1 import, gzip", "plain/text.gz", 1, "128 MiB"),
                        ("1 import, zstd", "plain/text.zst", 1, "128 MiB"),
                        ("1 import, xz", "plain/part.xz", 1, "128 MiB"),
                        ("8 imports at once", "sha256/full", 8, "400 MiB"),
                        ("8 imports at once, xz", "plain/part.xz", 8, "400 MiB"),
                    )
                ),
                ("seconds to an image's second volume, xfs", second(_fresh(folder), url), "-"),
            ]
            with process(home, CONFIG.format(url=url), backend=NO_CACHE) as daemon:
                bench = Bench(folder, daemon, url)
                rows = [*measure(bench), shared(_fresh(folder), home / "images", url)]
                imported, cloned = on_ceph(_fresh(folder), url)
                rows += imported
                rows.append(on_lvm(_fresh(folder), RUNS))
                rows += on_holes(_fresh(folder), url)
                more.append(("seconds to an image's second volume, RBD", cloned, "1"))
                more.append(("p99 of GET during two imports", latency(bench), "25 ms"))
                more.append(("blocks of a half-zero image", allocated(bench), "1.01"))
            more += reads.figures(_fresh(folder))
        RESULTS.write_text(report(ABOUT, rows, more))
    print(RESULTS.read_text())


def _fresh(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def hashing() -> Taken:
    """Hash as many bytes as an image has, from memory; return the cost."""
    piece = os.urandom(4 * MIB)
    watch = Watch()
    digest = hashlib.sha256()
    for _ in range(SIZE // len(piece)):
        digest.update(piece)
    return watch.taken()


def measure(bench: Bench) -> list[Row]:
    """Run the comparisons."""
    sha256 = bench.imported(f"{bench.url}sha256/full")
    sha512 = bench.imported(f"{bench.url}sha512/full")
    half = bench.imported(f"{bench.url}sha256/half")
    qcow2 = bench.imported(f"{bench.url}plain/full.qcow2")
    local = bench.imported("full")
    return [
        compare(
            "HTTP, sha256", sha256, "curl -o", bench.shell("curl -s -o $OUT ${URL}full"), "0.8"
        ),
        compare(
            "HTTP, sha256",
            sha256,
            "curl -o, fsync",
            bench.shell("curl -s -o $OUT ${URL}full; sync $OUT"),
            "-",
        ),
        # No import can be faster than this. A write to the page cache alone may be, on fast memory.
        compare("HTTP, sha256", sha256, "hashing alone, one core", hashing, "-"),
        compare(
            "HTTP, sha512",
            sha512,
            "curl, tee, sha512sum",
            bench.shell("curl -s ${URL}full | tee $OUT | sha512sum >/dev/null"),
            "0.7",
        ),
        compare(
            "HTTP, sha512",
            sha512,
            "temporary file, sha512, qemu-img convert",
            bench.shell(
                "curl -s -o $OUT.tmp ${URL}full; sha512sum $OUT.tmp >/dev/null;"
                " qemu-img convert -f raw -O raw -t none -T none $OUT.tmp $OUT"
            ),
            "0.6",
        ),
        compare(
            "HTTP, nothing stated",
            bench.imported(f"{bench.url}raw/full"),
            "curl -o",
            bench.shell("curl -s -o $OUT ${URL}full"),
            "-",
        ),
        compare(
            "HTTP, nothing stated, half zeros",
            bench.imported(f"{bench.url}raw/half"),
            "the same, no zeros",
            bench.imported(f"{bench.url}raw/full"),
            "-",
        ),
        compare("HTTP, sha256, half zeros", half, "the same, no zeros", sha256, "-"),
        compare(
            "HTTP, qcow2, half zeros",
            bench.imported(f"{bench.url}plain/half.qcow2"),
            "the same, no zeros",
            qcow2,
            "0.6",
        ),
        compare(
            "directory, sha512",
            local,
            "cp --sparse=always, sha512sum",
            bench.shell("cp --sparse=always $DIR/www/full $OUT; sha512sum $OUT >/dev/null"),
            "1.3",
        ),
        compare(
            "HTTP, qcow2",
            qcow2,
            "curl -o, qemu-img convert",
            bench.shell(
                "curl -s -o $OUT.tmp ${URL}plain/full.qcow2;"
                " qemu-img convert -f qcow2 -O raw -t none -T none $OUT.tmp $OUT"
            ),
            "1.3",
        ),
        # A write to the page cache alone does not wait for the disk, which is slower than zstd.
        compare(
            "HTTP, zstd",
            bench.imported(f"{bench.url}plain/text.zst"),
            "curl, zstd -dc, fsync",
            bench.shell("curl -s ${URL}plain/text.zst | zstd -dc > $OUT; sync $OUT"),
            "-",
        ),
        *(
            compare(
                f"HTTP, {what}",
                bench.imported(f"{bench.url}plain/{packed}"),
                f"curl, {tool} -dc",
                bench.shell(f"curl -s ${{URL}}plain/{packed} | {tool} -dc > $OUT"),
                "1.2",
                size,
            )
            for tool, what, packed, size in (
                ("gzip", "gzip", "text.gz", SIZE),
                ("zstd", "zstd", "text.zst", SIZE),
                ("xz", f"xz, {XZ_SIZE // MIB} MiB", "part.xz", XZ_SIZE),
            )
        ),
    ]


def second(folder: Path, url: str) -> float:
    """Return the seconds from POST to available of an image's second volume, on xfs."""
    with (
        disk(folder / "volumes", 4 * SIZE, "xfs"),
        process(folder, CONFIG.format(url=url)) as daemon,
    ):
        run = Bench(folder, daemon, url).imported(f"{url}sha256/full")
        run()
        return statistics.median(run().seconds for _ in range(RUNS))


def shared(folder: Path, images: Path, url: str) -> Row:
    """Compare imports of an image on the volumes' own xfs with a copy that shares its blocks."""
    with disk(folder / "xfs", 4 * SIZE, "xfs") as mounted:
        shutil.copytree(images, mounted.folder / "images")
        with process(mounted.folder, CONFIG.format(url=url), backend=NO_CACHE) as daemon:
            bench = Bench(mounted.folder, daemon, url)
            return compare(
                "directory on the same xfs, sha512",
                bench.imported("full"),
                "cp --reflink, sha512sum",
                bench.shell("cp --reflink=always $DIR/images/full $OUT; sha512sum $OUT >/dev/null"),
                "1.3",
            )


def on_ceph(folder: Path, url: str) -> tuple[list[Row], float]:
    """Compare imports into a local Ceph cluster with Ceph's own tool.

    :returns: the rows, and the seconds from POST to available of an image's second volume.
    """
    stated, unstated = f"{url}sha256/half", f"{url}raw/half"
    with ceph.cluster(4 * SIZE) as cluster:
        with process(folder, CONFIG.format(url=url), first=cluster.table(NO_CACHE)) as daemon:
            bench = Bench(folder, daemon, url)
            rows = [
                compare(
                    f"HTTP, {what}, half zeros, onto RBD",
                    bench.imported(image),
                    f"curl,{verified} rbd import -",
                    rbd_import(cluster, image, through),
                    target,
                )
                # Compare verified imports with verified ones, and unverified with unverified.
                for what, image, verified, through, target in (
                    ("nothing stated", unstated, "", "", "0.8"),
                    ("sha256", stated, " tee, sha256sum,", "| tee >(sha256sum >/dev/null)", "0.8"),
                    ("sha256", stated, "", "", "-"),
                )
            ]
        with process(folder, CONFIG.format(url=url), first=cluster.table()) as daemon:
            second = Bench(folder, daemon, url).imported(stated)
            second()
            return rows, statistics.median(second().seconds for _ in range(RUNS))


if __name__ == "__main__":
    main()
