"""Imports onto RBD, beside Ceph's own tool.

Both bootvol and the tool keep two cores busy, so the cores bound them. The ratio therefore compares
the processor time of each, nginx and the OSD included.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Final

from tests.ceph import POOL, USER, Cluster, cluster
from tests.processes import process

from benchmarks.bench import CONFIG, NO_CACHE, RUNS, Bench, Figure, Pair, Taken, shell
from benchmarks.images import SIZE
from benchmarks.site import Site

_PEER: Final = f"{POOL}/peer"


def onto_rbd(site: Site) -> Iterator[Pair | Figure]:
    """Yield imports over HTTP into a local Ceph cluster."""
    assert site.images.exists()
    stated, unstated = f"{site.url}sha256/half", f"{site.url}raw/half"
    with cluster(4 * SIZE) as ceph:
        folder, config = site.fresh(), CONFIG.format(url=site.url)
        with process(folder, config, first=ceph.table(NO_CACHE)) as daemon:
            bench = Bench(folder, daemon, site.url)
            # Compare verified imports with verified ones, and unverified with unverified.
            for what, image, verified, through, target in (
                ("nothing stated", unstated, "", "", "0.9"),
                ("sha256", stated, " tee, sha256sum,", "| tee >(sha256sum >/dev/null)", "0.8"),
                ("sha256", stated, "", "", "-"),
            ):
                yield Pair(
                    f"HTTP, {what}, half zeros, onto RBD",
                    bench.imported(image),
                    f"curl,{verified} rbd import -",
                    rbd_import(ceph, f"curl -s {image} {through} |", "-"),
                    target,
                )
        folder = site.fresh()
        with process(folder, config, first=ceph.table()) as daemon:
            second = Bench(folder, daemon, site.url).imported(stated)

            def seconds() -> float:
                second()
                return statistics.median(second().seconds for _ in range(RUNS))

            yield Figure("seconds to an image's second volume, RBD", seconds, "1")


def rbd_import(ceph: Cluster, before: str, image: str) -> Callable[[], Taken]:
    """Return a function that measures ``rbd import``.

    :param before: shell commands before the tool, such as ``curl URL |``.
    :param image: the file to import, or ``-``.
    """
    rbd = f"rbd -c {ceph.configuration} --id {USER} -k {ceph.keyring} --no-progress"

    def run() -> Taken:
        taken = shell(f"{before} {rbd} import {image} {_PEER}")
        shell(f"{rbd} rm {_PEER}")
        return taken

    return run
