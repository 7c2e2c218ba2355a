"""Imports from far servers, and from servers that limit each connection."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.processes import process

from benchmarks.bench import NO_CACHE, Bench, Pair
from benchmarks.far import far_line
from benchmarks.images import MIB
from benchmarks.nginx import nginx
from benchmarks.site import Site

#: Sizes of the images in bytes: one connection takes a minute or more.
_LIMITED, _FAR = 64 * MIB, 32 * MIB
#: nginx lets each request have the bytes of the first second at once.
_LIMIT: Final = "limit_rate 1m;"
#: The line: seconds of one direction, and lost packets.
_DELAY, _LOSS = 0.025, 0.01
_CONFIG: Final = """
[[sources]]
name = "lines"
plugin = "http"
allow = ["{url}"]
checksums = "SHA256SUMS"
"""


def over_slow_lines(site: Site) -> Iterator[Pair]:
    """Compare imports over several connections with one connection."""
    with nginx(_served(site.fresh(), _LIMITED), more=_LIMIT) as url:
        yield from _rows(site.fresh(), url, "1 MiB/s for each connection", _LIMITED)
    www = _served(site.fresh(), _FAR)
    with far_line(_DELAY, _LOSS) as there, nginx(www, there) as url:
        yield from _rows(site.fresh(), url, f"{2000 * _DELAY:g} ms, {_LOSS:.0%} loss", _FAR)


def _served(folder: Path, size: int) -> Path:
    data = os.urandom(size)
    (folder / "disk.raw").write_bytes(data)
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(data).hexdigest()}  disk.raw\n")
    return folder


def _rows(folder: Path, url: str, line: str, size: int) -> Iterator[Pair]:
    with process(folder, _CONFIG.format(url=url), backend=NO_CACHE) as daemon:
        bench = Bench(folder, daemon, url)
        yield Pair(
            f"HTTP, sha256, {size // MIB} MiB, {line}",
            bench.imported(f"{url}disk.raw", size),
            "curl -o",
            bench.shell("curl -s -o $OUT ${URL}disk.raw"),
            "0.33",
            size,
        )
