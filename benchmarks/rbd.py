"""The peer of imports onto RBD: Ceph's own tool.

Both keep two cores busy, so it is these that bound them: what each takes of them, nginx and the
OSD included, is what the ratio tells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.ceph import POOL, USER, Cluster

from benchmarks.bench import Taken, shell

_PEER: Final = f"{POOL}/peer"


def rbd_import(cluster: Cluster, image: str, through: str = "") -> Callable[[], Taken]:
    """Return what measures one import of the image at a URL.

    :param through: what the image goes through on its way, ``| COMMAND``.
    """
    rbd = f"rbd -c {cluster.configuration} --id {USER} -k {cluster.keyring} --no-progress"

    def run() -> Taken:
        taken = shell(f"curl -s {image} {through} | {rbd} import - {_PEER}")
        shell(f"{rbd} rm {_PEER}")
        return taken

    return run
