"""The peer of imports onto RBD: Ceph's own tool.

Both bootvol and the tool keep two cores busy, so the cores bound them. The ratio therefore compares
the processor time of each, nginx and the OSD included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.ceph import POOL, USER, Cluster

from benchmarks.bench import Taken, shell

_PEER: Final = f"{POOL}/peer"


def rbd_import(cluster: Cluster, image: str, through: str = "") -> Callable[[], Taken]:
    """Return a function that measures one import of the image at a URL.

    :param through: filters of the image on the way, ``| COMMAND``.
    """
    rbd = f"rbd -c {cluster.configuration} --id {USER} -k {cluster.keyring} --no-progress"

    def run() -> Taken:
        taken = shell(f"curl -s {image} {through} | {rbd} import - {_PEER}")
        shell(f"{rbd} rm {_PEER}")
        return taken

    return run
