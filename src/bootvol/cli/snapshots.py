"""The commands for snapshots."""

from __future__ import annotations

import click

from bootvol.cli import show, waiting
from bootvol.cli.client import Client, segment
from bootvol.cli.shapes import VOLUME
from bootvol.jsons import JsonObject


@click.group()
def snapshot() -> None:
    """Snapshots of volumes."""


@snapshot.command("create")
@click.argument("volume_id")
@click.option("--name", help="Display name.")
@click.option("--force", is_flag=True, help="Allow a volume in use, if its backend clones.")
@click.option("--wait", is_flag=True, help="Wait until the snapshot is available.")
@click.pass_obj
def create_snapshot(
    client: Client, volume_id: str, name: str | None, force: bool, wait: bool
) -> None:
    """Create a snapshot of a volume, and print its JSON."""
    wanted = {"volume_id": volume_id, "display_name": name, "force": force}
    made: JsonObject = client.post("os-snapshots", {"snapshot": wanted}, "snapshot", VOLUME)
    if wait:
        made = waiting.created(client, made, kind="snapshot")
    click.echo(show.as_json(made))


@snapshot.command("list")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_snapshots(client: Client, raw: bool) -> None:
    """List snapshots."""
    snapshots = client.all("os-snapshots", "snapshots")
    if raw:
        click.echo(show.as_json(snapshots))
        return
    headings = {
        "id": "ID",
        "displayName": "NAME",
        "volumeId": "VOLUME",
        "size": "GiB",
        "status": "STATUS",
    }
    show.table(snapshots, headings)


@snapshot.command("show")
@click.argument("snapshot_id")
@click.pass_obj
def show_snapshot(client: Client, snapshot_id: str) -> None:
    """Print a snapshot's JSON, with the reason of an error or a wait."""
    shown: JsonObject = client.get(f"os-snapshots/{segment(snapshot_id)}", "snapshot")
    error = waiting.error_of(client, snapshot_id, kind="snapshot")
    if error is not None:
        shown["error"] = error
    click.echo(show.as_json(shown))


@snapshot.command("delete")
@click.argument("snapshot_id")
@click.option("--wait", is_flag=True, help="Wait until the snapshot is gone.")
@click.pass_obj
def delete_snapshot(client: Client, snapshot_id: str, wait: bool) -> None:
    """Delete a snapshot, also during its creation."""
    client.delete(f"os-snapshots/{segment(snapshot_id)}")
    if wait:
        waiting.deleted(client, snapshot_id, kind="snapshot")
