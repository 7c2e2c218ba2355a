"""The page of the results."""

from __future__ import annotations

import os
from pathlib import Path

import attrs


@attrs.frozen
class Row:
    """One row of the table.

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


def report(about: str, rows: list[Row], more: list[tuple[str, float, str]]) -> str:
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
        "| bootvol | beside | ratio | target | s | s beside | CPU s/GiB | cores busy | beside |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.what} | {row.peer} | **{row.ratio:.2f}** | {row.target} | {row.seconds:.2f}"
        f" | {row.peer_seconds:.2f} | {row.cpu_per_gib:.2f}"
        f" | {row.busy:.2f} | {row.peer_busy:.2f} |"
        for row in rows
    ]
    lines += ["", "| | figure | target |", "| --- | --- | --- |"]
    lines += [f"| {what} | {figure:.2f} | {target} |" for what, figure, target in more]
    return "\n".join(lines) + "\n"
