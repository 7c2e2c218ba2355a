"""Imports from a real Glance onto RBD, beside ``rbd import`` of the same disk in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.ceph import Cluster, cluster
from tests.daemons import STATIC, TENANT
from tests.openstack.cloud import Cloud
from tests.openstack.identity import keystone
from tests.openstack.images import glance
from tests.processes import process

from benchmarks import debian
from benchmarks.bench import CONFIG, NO_CACHE, Bench, Pair
from benchmarks.images import GIB, MIB
from benchmarks.rbd import rbd_import
from benchmarks.site import Site

_TOKEN = '[[identity.tokens]]\ntoken = "{token}"\ntenant = "{tenant}"\nuser = "ann"\n'


def onto_rbd(site: Site) -> Iterator[Pair]:
    """Yield imports of a raw image of 1 GiB, and of the Debian disk as a compressed qcow2 image.

    Glance's images are files. So bootvol cannot clone them.
    """
    small = site.fresh() / "raw"
    with small.open("wb") as file:
        for _ in range(GIB // MIB):
            file.write(os.urandom(MIB))
    with _services() as (ceph, cloud):
        token = cloud.token("ann")
        identity = STATIC + _TOKEN.format(token=token, tenant=TENANT)
        more = CONFIG.format(url=site.url) + cloud.table(cloud.glance.url)
        folder = site.fresh()
        with process(folder, more, first=ceph.table(NO_CACHE), identity=identity) as daemon:
            bench = Bench(folder, daemon, site.url)
            for what, content, kind, peer, target in (
                ("raw, 1 GiB", small, "raw", small, "1.15"),
                ("Debian, qcow2, deflate", site.debian / "deflate.qcow2", "qcow2",
                 site.debian / "raw", "1.25"),
            ):  # fmt: skip
                image = cloud.glance.image(token, content.read_bytes(), disk_format=kind)
                yield Pair(
                    f"Glance, {what}, onto RBD",
                    bench.imported(image, debian.SIZE, token),
                    "rbd import of the raw disk in a file",
                    rbd_import(ceph, "", str(peer)),
                    target,
                    GIB,
                )


@contextmanager
def _services() -> Iterator[tuple[Cluster, Cloud]]:
    with cluster(8 * GIB) as ceph, keystone() as users, glance(users) as images:
        yield ceph, Cloud.of(users, images)
