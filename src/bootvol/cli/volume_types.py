"""The commands for volume types."""

from __future__ import annotations

import click

from bootvol.cli import show
from bootvol.cli.client import Client, segment
from bootvol.cli.shapes import TYPE


@click.group("type")
def volume_type() -> None:
    """Volume types that new volumes can have."""


@volume_type.command("list")
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_types(client: Client, raw: bool) -> None:
    """List volume types."""
    types = client.all("os-volume-types", "volume_types", TYPE)
    if raw:
        click.echo(show.as_json(types))
        return
    for each in types:
        each["specs"] = ", ".join(f"{key}={text}" for key, text in each["extra_specs"].items())
    show.table(types, {"id": "ID", "name": "NAME", "specs": "EXTRA SPECS"})


@volume_type.command("create")
@click.argument("name")
@click.option("--backend", help="Backend for volumes of the type. Default: the first backend.")
@click.pass_obj
def create_type(client: Client, name: str, backend: str | None) -> None:
    """Create a volume type, and print its JSON (admins only)."""
    specs = {} if backend is None else {"volume_backend_name": backend}
    wanted = {"volume_type": {"name": name, "extra_specs": specs}}
    click.echo(show.as_json(client.post("os-volume-types", wanted, "volume_type")))


@volume_type.command("delete")
@click.argument("type_id")
@click.pass_obj
def delete_type(client: Client, type_id: str) -> None:
    """Delete a volume type; its volumes remain unchanged (admins only)."""
    client.delete(f"os-volume-types/{segment(type_id)}")
