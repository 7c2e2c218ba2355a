"""Measures how fast many volumes of one cached image become available."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.ceph import cluster
from tests.daemons import TENANT
from tests.disks import disk
from tests.processes import Process, process
from tests.waiting import block_until

from benchmarks.bench import Figure
from benchmarks.images import GIB, MIB
from benchmarks.site import Site
from bootvol.testing.backends import noise

#: The number of volumes, and of connections that ask for them.
_VOLUMES: Final = 1000
_CONNECTIONS: Final = 4
_QUOTA: Final = "[quota]\nvolumes = -1\ngigabytes = -1\n"
#: The most seconds until all volumes are available.
_PATIENCE: Final = 900
_ROOT: Final = f"/volume/v3/{TENANT}"
_HEADERS: Final = {"X-Auth-Token": "ann", "Content-Type": "application/json"}


def creating(site: Site) -> Iterator[Figure]:
    """Yield the volumes per second, from the first POST to the last volume's ``available``."""
    for where, running in (("file on xfs", _on_xfs), ("RBD", _on_rbd)):
        yield Figure(
            f"volumes a second, {_VOLUMES:,} of one cached image of 64 MiB, {where}",
            partial(_rate, site, running),
            "-",
        )


@contextmanager
def _on_xfs(folder: Path) -> Iterator[Process]:
    with disk(folder / "volumes", 4 * GIB, "xfs"), process(folder, _QUOTA) as daemon:
        yield daemon


@contextmanager
def _on_rbd(folder: Path) -> Iterator[Process]:
    with cluster() as ceph, process(folder, _QUOTA, first=ceph.table()) as daemon:
        yield daemon


def _rate(site: Site, running: Callable[[Path], AbstractContextManager[Process]]) -> float:
    folder = site.fresh()
    with running(folder) as daemon:
        (daemon.images / "disk").write_bytes(noise(64 * MIB))
        # The first volume leaves the image in the cache.
        _create(daemon, 1)
        _until_available(daemon, 1)
        began = time.monotonic()
        share = _VOLUMES // _CONNECTIONS
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            list(pool.map(partial(_create, daemon), [share] * _CONNECTIONS))
        _until_available(daemon, _VOLUMES + 1)
        return _VOLUMES / (time.monotonic() - began)


def _create(daemon: Process, count: int) -> None:
    """Create volumes over one connection, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port)
    body = json.dumps({"volume": {"size": 1, "imageRef": "disk"}})
    for _ in range(count):
        connection.request("POST", f"{_ROOT}/volumes", body, _HEADERS)
        answer = connection.getresponse()
        if answer.status != 202:
            raise SystemExit(f"a volume is refused: {answer.read()!r}")
        answer.read()
    connection.close()


def _until_available(daemon: Process, count: int) -> None:
    """Wait until that many volumes are available, and none is in error."""

    def available() -> int:
        found = {status: _counted(daemon, status) for status in ("available", "error")}
        if found["error"]:
            raise SystemExit(f"{found['error']} volumes are in error")
        time.sleep(0.2)
        return found["available"]

    block_until(available, lambda found: found == count, _PATIENCE)


def _counted(daemon: Process, status: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port)
    path = f"{_ROOT}/volumes?with_count=true&limit=1&status={status}"
    version = {"OpenStack-API-Version": "volume 3.45"}
    connection.request("GET", path, headers={**_HEADERS, **version})
    return int(json.loads(connection.getresponse().read())["count"])
