"""The peer of imports onto RBD: Ceph's own tool.

Both keep two cores busy to about 85 %, so it is these that bound them.  Of 2 GiB, half zeros, the
peer takes 5.2 seconds of a core, nginx and the OSD included, and verifies nothing; so does bootvol
where a sha256 is stated, of which 1.3 are the digest, and 3.9 where none is.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Final

from tests.ceph import POOL, USER, Cluster

_PEER: Final = f"{POOL}/peer"


def rbd_import(
    cluster: Cluster, image: str, through: str = ""
) -> Callable[[], tuple[float, float]]:
    """Return what measures one import of the image at a URL: seconds, no CPU seconds.

    :param through: what the image goes through on its way, ``| COMMAND``.
    """
    rbd = f"rbd -c {cluster.configuration} --id {USER} -k {cluster.keyring} --no-progress"

    def run() -> tuple[float, float]:
        began = time.monotonic()
        _shell(f"curl -s {image} {through} | {rbd} import - {_PEER}")
        taken = time.monotonic() - began
        _shell(f"{rbd} rm {_PEER}")
        return taken, 0.0

    return run


def _shell(command: str) -> None:
    subprocess.run(["bash", "-o", "pipefail", "-ec", command], check=True)
