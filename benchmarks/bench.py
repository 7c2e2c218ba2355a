"""The daemon as it is measured, and what it is measured beside."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.processes import Process

from benchmarks.images import GIB, SIZE
from benchmarks.report import Row

RUNS: Final = int(os.environ.get("BENCH_RUNS", "5"))
#: Seconds between two looks at a volume: each takes from the daemon some of the processors' time.
POLL: Final = 0.05

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
