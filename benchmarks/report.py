"""The page of the results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

_ROWS: Final = [
    "| bootvol | beside | ratio | target | s | s beside | CPU s/GiB | cores busy | beside |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
]
_SINGLES: Final = ["| | figure | target |", "| --- | --- | --- |"]


@attrs.frozen
class Row:
    """One row of the first table.

    :ivar busy: the average number of busy processors. If nearly all are busy, the processors bound
        both bootvol and the peer.
    """

    what: str
    peer: str
    ratio: float
    target: str
    seconds: float
    peer_seconds: float
    cpu_per_gib: float
    busy: float
    peer_busy: float

    def __str__(self) -> str:
        return (
            f"| {self.what} | {self.peer} | **{self.ratio:.2f}** | {self.target}"
            f" | {self.seconds:.2f} | {self.peer_seconds:.2f} | {self.cpu_per_gib:.2f}"
            f" | {self.busy:.2f} | {self.peer_busy:.2f} |"
        )


@attrs.frozen
class Single:
    """One row of the second table."""

    what: str
    figure: float
    target: str

    def __str__(self) -> str:
        return f"| {self.what} | {self.figure:.2f} | {self.target} |"


def report(about: str, found: Sequence[Row | Single]) -> str:
    """Return the figures as a page.

    :param about: how the figures were measured. The machine's description follows.
    """
    model = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    lines = [
        "# Results",
        "",
        "Written by `make bench`; see `benchmarks/__main__.py` for what is measured.",
        f"{about} {os.cpu_count()} cores, {model}.",
        "",
        *_ROWS,
        *(str(each) for each in found if isinstance(each, Row)),
        "",
        *_SINGLES,
        *(str(each) for each in found if isinstance(each, Single)),
    ]
    return "\n".join(lines) + "\n"


def renewed(page: str, found: Sequence[Row | Single]) -> str:
    """Return a page with some new rows.  They replace their predecessors, or come last."""
    lines = page.splitlines()
    for each in found:
        known = {_key(line): at for at, line in enumerate(lines)}
        ends = _ROWS[0] if isinstance(each, Row) else _SINGLES[0]
        at = known.get(_key(str(each)))
        if at is None:
            at = lines.index(ends)
            while at < len(lines) and lines[at]:
                at += 1
            lines.insert(at, str(each))
        else:
            lines[at] = str(each)
    return "\n".join(lines) + "\n"


def _key(line: str) -> tuple[str, ...]:
    """Return the words of a row, without its figures."""
    cells = line.split(" | ")
    return tuple(cells[: 2 if len(cells) > 3 else 1])
