"""The measured daemon, its peers, and the kinds of measurements."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import attrs
from tests.processes import Process

from benchmarks.images import GIB, SIZE
from benchmarks.report import Row, Single

RUNS: Final = int(os.environ.get("BENCH_RUNS", "5"))
#: Seconds between two looks at a volume. Each look costs the daemon processor time.
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
checksums = "none"

[[sources]]
name = "raw"
plugin = "http"
allow = ["{url}raw/"]
checksums = "none"

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

[[sources]]
name = "debian"
plugin = "http"
allow = ["{url}debian/"]
checksums = "SHA256SUMS"
"""

#: Disables the cache. Where the file system clones, the second import would copy nothing.
NO_CACHE: Final = "cache_gib = 0"


@attrs.frozen
class Taken:
    """The cost of one run.

    :ivar seconds: elapsed seconds.
    :ivar machine: busy seconds of all processors, for all programs, servers included.
    :ivar cpu: processor seconds of the daemon and its child processes.
    """

    seconds: float
    machine: float
    cpu: float = 0.0


def _busy() -> float:
    """Return the busy seconds of the machine's processors since the machine started."""
    user, nice, system, _, _, *interrupts = map(
        int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:8]
    )
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Watch:
    """A measurement that begins when the object is made."""

    _began: float = attrs.field(factory=time.monotonic, init=False)
    _busy: float = attrs.field(factory=_busy, init=False)

    def taken(self, cpu: float = 0.0) -> Taken:
        """Return the cost since the beginning."""
        return Taken(time.monotonic() - self._began, _busy() - self._busy, cpu)


def shell(command: str, **env: str) -> Taken:
    """Run a command in bash, with more environment variables; return its cost."""
    watch = Watch()
    subprocess.run(
        ["bash", "-o", "pipefail", "-ec", command], env={**os.environ, **env}, check=True
    )
    return watch.taken()


class Bench:
    """The daemon, the server, the images, and a folder for the peers' files.

    :param folder: the daemon's folder, for the peers, too.
    """

    def __init__(self, folder: Path, daemon: Process, url: str) -> None:
        self.folder = folder
        self.daemon = daemon
        self.url = url
        self.out = folder / "out"

    def imported(self, image: str, size: int = SIZE, token: str = "root") -> Callable[[], Taken]:
        """Return a function that measures one import, from POST to available.

        :param size: size of the volume in bytes, rounded up to whole GiB.
        :param token: the caller's token.
        """

        def run() -> Taken:
            cpu = self._cpu()
            watch = Watch()
            volume = self.daemon.create(image, -(-size // GIB), token)
            while (now := self._status(volume)) in {"creating", "downloading"}:
                time.sleep(POLL)
            taken = watch.taken(self._cpu() - cpu)
            if now != "available":
                raise SystemExit(f"{image}: {self.daemon.get(f'os-volumes/{volume}/error')}")
            self.daemon.delete(volume)
            self.daemon.until_settled()
            return taken

        return run

    def shell(self, command: str) -> Callable[[], Taken]:
        """Return a function that measures a peer's command. The command writes $OUT.

        $DIR is the daemon's folder, and $URL the server's URL.
        """

        def run() -> Taken:
            taken = shell(command, OUT=str(self.out), URL=self.url, DIR=str(self.folder))
            for left in self.folder.glob("out*"):
                left.unlink()
            return taken

        return run

    def _status(self, volume: int) -> str:
        return str(self.daemon.get(f"os-volumes/{volume}")["volume"]["status"])

    def _cpu(self) -> float:
        fields = (
            Path(f"/proc/{self.daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
        )
        # User and system time, of the daemon and of its children.
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Measurement(Protocol):
    """A row of the results, to be measured."""

    @property
    def text(self) -> str:
        """The words of the row, by which people select it."""

    def measure(self) -> Row | Single:
        """Take the measurement.  Blocks."""


@attrs.frozen
class Pair:
    """An import and a peer, to be measured in turn.

    :ivar ours: measures one import.
    :ivar theirs: measures the peer once.
    :ivar target: the largest ratio that is good enough, or "-".
    :ivar size: size of the disk in bytes.
    """

    what: str
    ours: Callable[[], Taken]
    peer: str
    theirs: Callable[[], Taken]
    target: str
    size: int = SIZE

    @property
    def text(self) -> str:
        """See :attr:`Measurement.text`."""
        return f"{self.what}, beside {self.peer}"

    def measure(self) -> Row:
        """Run both alternately, after one uncounted run each."""
        self.ours()
        self.theirs()
        pairs = [(self.ours(), self.theirs()) for _ in range(RUNS)]
        mine, others = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        seconds, other = (statistics.median(run.seconds for run in runs) for runs in (mine, others))
        busy, peers_busy = (
            statistics.median(run.machine / run.seconds for run in runs) for runs in (mine, others)
        )
        cpu = statistics.median(run.cpu for run in mine) / (self.size / GIB)
        return Row(
            *(self.what, self.peer, seconds / other, self.target),
            *(seconds, other, cpu, busy, peers_busy),
        )


@attrs.frozen
class Figure:
    """A figure without a peer.

    :ivar take: returns the figure; blocks.
    :ivar target: the largest good value, with its unit, or "-".
    """

    text: str
    take: Callable[[], float]
    target: str

    def measure(self) -> Single:
        """Take the figure."""
        return Single(self.text, self.take(), self.target)
