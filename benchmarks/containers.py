"""Imports of a real Debian file system: as qcow2 of several kinds, and compressed as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from tests.processes import process

from benchmarks.bench import CONFIG, NO_CACHE, Bench, Figure, Pair
from benchmarks.debian import DATA, SIZE
from benchmarks.figures import peak
from benchmarks.site import Site

#: The images: how their clusters are compressed, and the target beside ``qemu-img convert``.
_QCOW2: Final = {"deflate": "0.5", "zstd": "0.5", "plain": "0.6"}


def of_debian(site: Site) -> Iterator[Pair | Figure]:
    """Yield imports of the Debian disk over HTTP with sha256, beside what people do by hand."""
    assert site.debian.exists()
    folder, url = site.fresh(), f"{site.url}debian/"
    with process(folder, CONFIG.format(url=site.url), backend=NO_CACHE) as daemon:
        bench = Bench(folder, daemon, url)
        for kind, target in _QCOW2.items():
            what, image = f"HTTP, sha256, Debian, qcow2, {kind}", f"{kind}.qcow2"
            ours = bench.imported(url + image, SIZE)
            convert = bench.shell(
                f"curl -s -o $OUT.tmp ${{URL}}{image};"
                " qemu-img convert -f qcow2 -O raw -t none -W $OUT.tmp $OUT"
            )
            yield Pair(what, ours, "curl -o, qemu-img convert -t none -W", convert, target, DATA)
            curl = bench.shell(f"curl -s -o $OUT ${{URL}}{image}")
            yield Pair(what, ours, "curl -o of the image", curl, "-", DATA)
        ours = bench.imported(f"{url}raw.zst", SIZE)
        unpack = "curl -s ${URL}raw.zst | zstd -dc > $OUT"
        what, peer = "HTTP, sha256, Debian, raw, zstd", "curl, zstd -dc"
        synced = bench.shell(f"{unpack}; sync $OUT")
        yield Pair(what, ours, f"{peer}, fsync", synced, "1.0", DATA)
        yield Pair(what, ours, peer, bench.shell(unpack), "-", DATA)
    for kind in _QCOW2:
        take = partial(peak, site, f"debian/{kind}.qcow2", 1, SIZE)
        yield Figure(f"peak memory, 1 import, Debian, qcow2, {kind}", take, "128 MiB")
