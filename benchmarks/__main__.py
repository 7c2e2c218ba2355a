"""Measures bootvol beside its peers, alternately: ``make bench`` writes benchmarks/RESULTS.md.

Each figure is a ratio of medians over pairs of consecutive runs. Absolute times on a shared machine
are noise.  BENCH_GIB sets the size of images of random bytes, and BENCH_RUNS the number of pairs.

``python -m benchmarks [--write] [GROUP] [WORD...]`` measures the rows of one group (see
:data:`GROUPS`), or only its rows with all the words, and prints them.  With ``--write``, these rows
replace their predecessors in benchmarks/RESULTS.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks import containers, creates, figures, glance, lines, rbd, web
from benchmarks.bench import RUNS, Measurement
from benchmarks.holes import on_holes
from benchmarks.images import GIB, SIZE
from benchmarks.lvm import on_lvm
from benchmarks.nginx import nginx
from benchmarks.report import Row, Single, renewed, report
from benchmarks.site import Site

RESULTS: Final = Path(__file__).parent / "RESULTS.md"
ABOUT: Final = (
    f"{SIZE / GIB:g} GiB of random bytes, nginx on loopback, the daemon as users run it, from\n"
    f"POST to `available`; medians of {RUNS} pairs in turn. Zeros that come over the network have\n"
    "to be received and hashed like all else, which bounds an import of them; those that a\n"
    "container leaves out need neither. More memory is taken by what was packed to need it when\n"
    "it is unpacked: 64 MiB by xz -9, 128 MiB by zstd --long=27. Where nearly all cores are busy,\n"
    "servers included, it is they that bound an import. Debian is a disk of 2 GiB with an ext4 of\n"
    "1 GiB of files from Debian packages; its CPU seconds are for each GiB of files."
)
#: The rows in their order.  A group makes its services when its first row is wanted.
GROUPS: Final[dict[str, Callable[[Site], Iterator[Measurement]]]] = {
    "http": web.over_http,
    "compressed": web.compressed,
    "folders": web.from_folders,
    "debian": containers.of_debian,
    "rbd": rbd.onto_rbd,
    "glance": glance.onto_rbd,
    "lvm": on_lvm,
    "holes": on_holes,
    "memory": figures.memory,
    "figures": figures.others,
    "lines": lines.over_slow_lines,
    "reads": figures.reading,
    "creates": creates.creating,
}


def measure(groups: Sequence[str], words: Sequence[str]) -> Iterator[Row | Single]:
    """Measure the rows of some groups, if a row has all the words."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        www = Path(name, "www")
        www.mkdir()
        with nginx(www) as url:
            site = Site(Path(name), www, url)
            for group in groups:
                for each in GROUPS[group](site):
                    if all(word in each.text for word in words):
                        found = each.measure()
                        print(found, flush=True)
                        yield found


def main(arguments: Sequence[str]) -> None:
    """Measure everything, or the named rows; write the results."""
    words = [each for each in arguments if each != "--write"]
    groups = [words.pop(0)] if words and words[0] in GROUPS else list(GROUPS)
    found = list(measure(groups, words))
    if not arguments:
        RESULTS.write_text(report(ABOUT, found))
    elif "--write" in arguments:
        RESULTS.write_text(renewed(RESULTS.read_text(), found))


if __name__ == "__main__":
    main(sys.argv[1:])
