"""What the commands print."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Final

from bootvol.cli.client import Client
from bootvol.cli.failures import CommandFailed

_INTERVAL: Final = 0.2


def as_json(value: object) -> str:
    """Return JSON for people and scripts."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> None:
    """Print rows; ``columns`` maps a field to its heading."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for heading in columns.values():
        shown.add_column(heading, overflow="fold")
    for row in rows:
        shown.add_row(*("" if row[field] is None else str(row[field]) for field in columns))
    Console(highlight=False).print(shown)


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
        TextColumn("{task.description}"),
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
                description=stage(now),
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
