"""What the commands print."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import click

from bootvol.cli.client import Client
from bootvol.cli.failures import CommandFailed
from bootvol.cli.text import as_json as as_json
from bootvol.cli.text import shown

_INTERVAL: Final = 0.2
#: Columns that no row is wider than.
_UNFOLDED: Final = 1_000_000


def table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> None:
    """Print rows; ``columns`` maps a field to its heading.

    A terminal has long ones folded; anything else gets one line a row.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    laid = Table(box=None, pad_edge=False)
    for heading in columns.values():
        laid.add_column(heading, overflow="fold")
    for row in rows:
        # A Text is taken as it is: in a string, brackets would be markup.
        cells = ("" if row[field] is None else str(row[field]) for field in columns)
        laid.add_row(*(Text(shown(cell)) for cell in cells))
    Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED).print(laid)


def line(text: str) -> None:
    """Print a line."""
    click.echo(shown(text))


def wait(client: Client, volume: dict[str, Any], bootable: bool) -> dict[str, Any]:
    """Follow a volume until it is made, showing the progress of its import.

    :returns: the volume as it then is.
    :raises CommandFailed: it is in error, with the reason and the remedy.
    """
    view = "hp-bootable-volumes" if bootable else "os-volumes"
    path = f"{view}/{volume['id']}"
    if bootable:
        _follow(client, f"{path}/import")
    while True:
        shown: dict[str, Any] = client.get(path)["volume"]
        if shown["status"] not in {"creating", "downloading"}:
            break
        time.sleep(_INTERVAL)
    if shown["status"] == "error":
        error = client.get(f"os-volumes/{volume['id']}/error")["error"]
        raise CommandFailed(f"{error['message']} {error['remedy']} ({error['code']})")
    return shown


def _follow(client: Client, path: str) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("queued", total=None)
        while True:
            now = client.get(path)["import"]
            bar.update(
                task,
                description=shown(stage(now)),
                completed=now["bytesDone"],
                total=now["bytesTotal"],
            )
            if now["phase"] in {"done", "failed"}:
                return
            time.sleep(_INTERVAL)


def stage(progress: dict[str, Any]) -> str:
    """Say where an import stands: its phase, and while it waits its place in line."""
    # A service of another version may tell of none.
    place = progress.get("position")
    return str(progress["phase"]) if place is None else f"waiting ({place} in line)"
