"""Measures bootvol beside its peers, in turn, and writes benchmarks/RESULTS.md: ``make bench``.

Each figure is a ratio of medians over pairs that ran one after the other; absolute times on a
shared machine are noise.  BENCH_GIB and BENCH_RUNS change the image's size and the pairs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests import ceph
from tests.disks import disk
from tests.processes import Process, process

from benchmarks import reads
from benchmarks.lvm import on_lvm
from benchmarks.nginx import nginx
from benchmarks.rbd import rbd_import
from benchmarks.report import Row, report

GIB: Final = 1024**3
MIB: Final = 1024**2
SIZE: Final = int(float(os.environ.get("BENCH_GIB", "2")) * GIB)
#: Of the image that comes as xz: unpacking that takes its time.
XZ_SIZE: Final = SIZE // 4
RUNS: Final = int(os.environ.get("BENCH_RUNS", "5"))
#: Seconds between two looks at a volume: each takes from the daemon some of the processors' time.
POLL: Final = 0.05
RESULTS: Final = Path(__file__).parent / "RESULTS.md"
ABOUT: Final = (
    f"{SIZE / GIB:g} GiB of random bytes, nginx on loopback, the daemon as users run it, from\n"
    f"POST to `available`; medians of {RUNS} pairs in turn."
)

CONFIG: Final = """
[quota]
volumes = -1
gigabytes = -1

[imports]
concurrent = 8

[[sources]]
name = "plain"
plugin = "http"
allow = ["{url}plain/"]

[[sources]]
name = "raw"
plugin = "http"
allow = ["{url}raw/"]

[[sources]]
name = "sha512"
plugin = "http"
allow = ["{url}sha512/"]
checksums = "SHA512SUMS"

[[sources]]
name = "sha256"
plugin = "http"
allow = ["{url}sha256/"]
checksums = "SHA256SUMS"
"""

#: Where the file system clones, the second import of an image would be none.
NO_CACHE: Final = "cache_gib = 0"


class Bench:
    """The daemon, the server, the images, and a place for the peers' files."""

    def __init__(self, folder: Path, daemon: Process, url: str) -> None:
        self.folder = folder
        self.daemon = daemon
        self.url = url
        self.out = folder / "out"

    def imported(self, image: str) -> Callable[[], tuple[float, float]]:
        """Return what measures one import, from POST to available: seconds, CPU seconds."""

        def run() -> tuple[float, float]:
            cpu = self._cpu()
            began = time.monotonic()
            volume = self.daemon.create(image, -(-SIZE // GIB))
            while (now := self._status(volume)) in {"creating", "downloading"}:
                time.sleep(POLL)
            took = time.monotonic() - began
            if now != "available":
                raise SystemExit(f"{image}: {self.daemon.get(f'os-volumes/{volume}/error')}")
            used = self._cpu() - cpu
            self.daemon.delete(volume)
            self.daemon.until_settled()
            return took, used

        return run

    def shell(self, command: str) -> Callable[[], tuple[float, float]]:
        """Return what measures a peer's command; it writes $OUT."""

        def run() -> tuple[float, float]:
            env = {**os.environ, "OUT": str(self.out), "URL": self.url, "DIR": str(self.folder)}
            began = time.monotonic()
            subprocess.run(["bash", "-o", "pipefail", "-ec", command], env=env, check=True)
            took = time.monotonic() - began
            for left in self.folder.glob("out*"):
                left.unlink()
            return took, 0.0

        return run

    def _status(self, volume: int) -> str:
        return str(self.daemon.get(f"os-volumes/{volume}")["volume"]["status"])

    def _cpu(self) -> float:
        fields = (
            Path(f"/proc/{self.daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
        )
        # Its own, and that of what it ran: user and system.
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def compare(
    what: str,
    ours: Callable[[], tuple[float, float]],
    peer: str,
    theirs: Callable[[], tuple[float, float]],
    target: str,
    size: int = SIZE,
) -> Row:
    """Run both in turn, after one uncounted turn each; ``size`` of the disk in bytes."""
    ours()
    theirs()
    pairs = [(ours(), theirs()) for _ in range(RUNS)]
    mine = statistics.median(pair[0][0] for pair in pairs)
    other = statistics.median(pair[1][0] for pair in pairs)
    cpu = statistics.median(pair[0][1] for pair in pairs) / (size / GIB)
    row = Row(what, peer, mine / other, target, mine, other, cpu)
    print(f"{what}: {row.ratio:.2f} of {peer} (target {target})", flush=True)
    return row


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
    """Make both images as qcow2, and one that compresses to about a half, packed."""
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
        ["xz", "-1", "part"],
    ):
        subprocess.run(command, cwd=folder, check=True)


def latency(bench: Bench) -> float:
    """Return the p99 of GET of one volume, in milliseconds, while two imports run flat out."""
    stop = threading.Event()

    def load(number: int) -> None:
        # By another name each: of the same image there would be one download only.
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


def memory(folder: Path, url: str, imports: int) -> float:
    """Return the daemon's peak resident memory in MiB over so many imports at once."""
    with process(folder, CONFIG.format(url=url), backend=NO_CACHE) as daemon:
        for number in range(imports):
            daemon.create(f"{url}sha256/full?{number}", -(-SIZE // GIB))
        daemon.until_settled(600)
        peak = daemon.peak_memory() / MIB
    shutil.rmtree(folder / "volumes")
    (folder / "bootvol.db").unlink()
    return peak


def allocated(bench: Bench) -> float:
    """Return the blocks that a volume from the half-zero image takes, beside its other half."""
    volume = bench.daemon.create(f"{bench.url}sha256/half", -(-SIZE // GIB))
    bench.daemon.until_settled()
    (file,) = bench.daemon.volumes.iterdir()
    blocks = file.stat().st_blocks * 512
    bench.daemon.delete(volume)
    bench.daemon.until_settled()
    return blocks / (SIZE / 2)


def main() -> None:
    """Measure everything, and write it down."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir()
        (home / "images").mkdir()
        make_images(folder / "www", home / "images")
        with nginx(folder / "www") as url:
            more = [
                ("peak memory, 1 import", memory(_fresh(folder), url, 1), "128 MiB"),
                ("peak memory, 8 imports at once", memory(_fresh(folder), url, 8), "400 MiB"),
                ("seconds to an image's second volume, xfs", second(_fresh(folder), url), "-"),
            ]
            with process(home, CONFIG.format(url=url), backend=NO_CACHE) as daemon:
                bench = Bench(folder, daemon, url)
                rows = [*measure(bench), shared(_fresh(folder), home / "images", url)]
                imported, cloned = on_ceph(_fresh(folder), url)
                rows += imported
                rows.append(on_lvm(_fresh(folder), RUNS))
                more.append(("seconds to an image's second volume, RBD", cloned, "1"))
                more.append(("p99 of GET during two imports", latency(bench), "25 ms"))
                more.append(("blocks of a half-zero image", allocated(bench), "1.01"))
            more += reads.figures(_fresh(folder))
        RESULTS.write_text(report(ABOUT, rows, more))
    print(RESULTS.read_text())


def _fresh(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def hashing() -> tuple[float, float]:
    """Hash as many bytes as an image has, from memory; return the seconds that it took."""
    piece = os.urandom(4 * MIB)
    began = time.monotonic()
    digest = hashlib.sha256()
    for _ in range(SIZE // len(piece)):
        digest.update(piece)
    return time.monotonic() - began, 0.0


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
        # Zeros that come over the network have to be received and hashed like all else, and that
        # is what bounds such an import; those that a container leaves out need neither.
        compare("HTTP, sha256, half zeros", half, "the same, no zeros", sha256, "-"),
        compare("HTTP, sha256, half zeros", half, "hashing alone, one core", hashing, "-"),
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
        return statistics.median(run()[0] for _ in range(RUNS))


def shared(folder: Path, images: Path, url: str) -> Row:
    """Compare imports of an image on the volumes' own xfs with a copy of it that shares blocks."""
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
    """Compare imports into a cluster of Ceph on this machine with what Ceph itself has for that.

    :returns: that, and the seconds from POST to available of an image's second volume.
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
                # Who verifies beside who does, and who does not beside who does not.
                for what, image, verified, through, target in (
                    ("nothing stated", unstated, "", "", "0.8"),
                    ("sha256", stated, " tee, sha256sum,", "| tee >(sha256sum >/dev/null)", "0.8"),
                    ("sha256", stated, "", "", "-"),
                )
            ]
        with process(folder, CONFIG.format(url=url), first=cluster.table()) as daemon:
            second = Bench(folder, daemon, url).imported(stated)
            second()
            return rows, statistics.median(second()[0] for _ in range(RUNS))


if __name__ == "__main__":
    main()
