"""Figures without a peer: memory, the API's latency, blocks, second volumes of an image."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from functools import partial

from tests.disks import disk
from tests.processes import process

from benchmarks import reads
from benchmarks.bench import CONFIG, NO_CACHE, RUNS, Bench, Figure
from benchmarks.images import GIB, MIB, SIZE
from benchmarks.site import Site
from benchmarks.web import random_bytes


def memory(site: Site) -> Iterator[Figure]:
    """Yield the peaks of resident memory in MiB."""
    for what, image, count, most in (
        ("1 import", "sha256/full", 1, "128 MiB"),
        ("1 import, qcow2", "plain/full.qcow2", 1, "128 MiB"),
        ("1 import, gzip", "plain/text.gz", 1, "128 MiB"),
        ("1 import, zstd", "plain/text.zst", 1, "128 MiB"),
        ("1 import, xz", "plain/part.xz", 1, "128 MiB"),
        ("8 imports at once", "sha256/full", 8, "400 MiB"),
        ("8 imports at once, xz", "plain/part.xz", 8, "400 MiB"),
    ):
        yield Figure(f"peak memory, {what}", partial(_random_peak, site, image, count), most)


def _random_peak(site: Site, image: str, imports: int) -> float:
    assert site.images.exists()
    return peak(site, image, imports)


def peak(site: Site, image: str, imports: int = 1, size: int = SIZE) -> float:
    """Return the daemon's peak resident memory in MiB during concurrent imports.

    :param imports: the number of imports.
    :param size: size of each volume in bytes.
    """
    folder = site.fresh()
    with process(folder, CONFIG.format(url=site.url), backend=NO_CACHE) as daemon:
        for number in range(imports):
            daemon.create(f"{site.url}{image}?{number}", -(-size // GIB))
        statuses = daemon.until_settled(600)
        if statuses != ["available"] * imports:
            raise SystemExit(f"{image}: {statuses}")
        found = daemon.peak_memory() / MIB
    shutil.rmtree(folder)
    return found


def others(site: Site) -> Iterator[Figure]:
    """Yield the other figures."""
    yield Figure("seconds to an image's second volume, xfs", partial(_second, site), "-")
    with random_bytes(site) as bench:
        yield Figure("p99 of GET during two imports", partial(_latency, bench), "25 ms")
        yield Figure("blocks of a half-zero image", partial(_allocated, bench), "1.01")


def _second(site: Site) -> float:
    """Return the seconds from POST to available of an image's second volume, on xfs."""
    folder = site.fresh()
    assert site.images.exists()
    with (
        disk(folder / "volumes", 4 * SIZE, "xfs"),
        process(folder, CONFIG.format(url=site.url)) as daemon,
    ):
        run = Bench(folder, daemon, site.url).imported(f"{site.url}sha256/full")
        run()
        return statistics.median(run().seconds for _ in range(RUNS))


def _latency(bench: Bench) -> float:
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


def _allocated(bench: Bench) -> float:
    """Return the blocks of a volume from the half-zero image, divided by the image's data."""
    volume = bench.daemon.create(f"{bench.url}sha256/half", -(-SIZE // GIB))
    bench.daemon.until_settled()
    (file,) = bench.daemon.files()
    blocks = file.stat().st_blocks * 512
    bench.daemon.delete(volume)
    bench.daemon.until_settled()
    return blocks / (SIZE / 2)


def reading(site: Site) -> Iterator[Figure]:
    """Yield the figures of the most frequent requests."""
    taken: dict[str, float] = {}

    def take(name: str) -> float:
        if not taken:
            taken.update(reads.figures(site.fresh()))
        return taken[name]

    for name, target in reads.TARGETS.items():
        yield Figure(name, partial(take, name), target)
