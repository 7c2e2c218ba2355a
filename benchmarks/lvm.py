"""Imports onto logical volumes, in the machine of :mod:`tests.lvm`: not every host maps devices.

The daemon, the peer and the server of the image all run in the machine, on one processor. Each
system call takes several times as long as outside. So only the ratio counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
from tests import lvm
from tests.lvm.groups import DISKS, group
from tests.processes import process

from benchmarks.bench import CONFIG, RUNS, Bench, Measurement, Pair, Taken, shell
from benchmarks.images import MIB
from benchmarks.nginx import nginx
from benchmarks.report import Row
from benchmarks.site import Site

#: Size of the image in bytes. The image lies in the machine's memory.
SIZE: Final = 512 * MIB
_SECONDS: Final = 1800
_WHAT: Final = f"HTTP, sha256, {SIZE // MIB} MiB, onto thin LVM in User Mode Linux"
_PEER: Final = "lvcreate, curl, dd oflag=direct"
_GROUP: Final = "bench"
_TABLE: Final = f"""
[[backends]]
name = "lvm"
plugin = "lvm"
group = "{_GROUP}"
pool = "pool"
cache_gib = 0
"""


@attrs.frozen
class _OnLvm:
    """The comparison, inside the machine.

    :ivar folder: an empty folder.
    """

    folder: Path

    @property
    def text(self) -> str:
        """See :attr:`benchmarks.bench.Measurement.text`."""
        return f"{_WHAT}, beside {_PEER}"

    def measure(self) -> Row:
        """Boot the machine, and run the comparison inside."""
        settings = [f"BENCH_GIB={SIZE / 1024 / MIB}", f"BENCH_RUNS={RUNS}"]
        command = ["env", *settings, sys.executable, "-m", "benchmarks.lvm", str(self.folder)]
        ended = lvm.run(self.folder, list(command), _SECONDS)
        if ended.returncode:
            raise SystemExit(ended.stdout)
        return Row(**json.loads((self.folder / "row").read_text()))


def on_lvm(site: Site) -> Iterator[Measurement]:
    """Yield the comparison on thin LVM."""
    yield _OnLvm(site.fresh())


def _thin_dd(image: str) -> Taken:
    """Make a volume from the image at a URL, as people do by hand; return the time taken."""
    place = f"/dev/{_GROUP}/peer"
    taken = _shell(
        f"lvcreate -y -qq -V 1g -T {_GROUP}/pool -n peer;"
        f" curl -s {image} |"
        f" dd of={place} bs=4M iflag=fullblock oflag=direct conv=fsync status=none"
    )
    _shell(f"lvremove -y -qq {_GROUP}/peer")
    return taken


def _shell(command: str) -> Taken:
    return shell(command, LVM_SUPPRESS_FD_WARNINGS="1")


def _inside(folder: Path) -> None:
    """Run the comparison inside the machine."""
    home = Path("/dev/shm/bench")
    listed = home / "www" / "sha256"
    listed.mkdir(parents=True)
    digest = hashlib.sha256()
    with (listed / "full").open("wb") as file:
        for _ in range(SIZE // MIB):
            noise = os.urandom(MIB)
            file.write(noise)
            digest.update(noise)
    (listed / "SHA256SUMS").write_text(f"{digest.hexdigest()}  full\n")
    with (
        group(_GROUP, DISKS[0], pool="2g"),
        nginx(home / "www") as url,
        process(home, CONFIG.format(url=url), first=_TABLE) as daemon,
    ):
        image = f"{url}sha256/full"
        row = Pair(
            _WHAT, Bench(home, daemon, url).imported(image), _PEER, lambda: _thin_dd(image), "1.1"
        ).measure()
    (folder / "row").write_text(json.dumps(attrs.asdict(row)))


if __name__ == "__main__":
    _inside(Path(sys.argv[1]))
