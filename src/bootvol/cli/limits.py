"""The commands for tenants' quotas and rate limits."""

from __future__ import annotations

import click

from bootvol.cli import show
from bootvol.cli.client import Client, segment

_BOUND = click.IntRange(min=-1)


@click.group()
def quota() -> None:
    """Quotas: the limits of a tenant's resources; -1 means no limit."""


@quota.command("show")
@click.argument("tenant", required=False)
@click.pass_obj
def show_quota(client: Client, tenant: str | None) -> None:
    """Print a tenant's quotas as JSON; by default your own (others: admins only)."""
    path = f"os-quota-sets/{segment(tenant or client.tenant)}"
    click.echo(show.as_json(client.get(path, "quota_set")))


@quota.command("set")
@click.argument("tenant")
@click.option("--volumes", type=_BOUND)
@click.option("--gigabytes", type=_BOUND, help="GiB of all volumes and snapshots.")
@click.option("--snapshots", type=_BOUND)
@click.option("--instances", type=_BOUND, help="Servers.")
@click.option("--key-pairs", type=_BOUND, help="Key pairs of each user.")
@click.pass_obj
def set_quota(client: Client, /, tenant: str, **bounds: int | None) -> None:
    """Set some of a tenant's quotas, and print all of them as JSON (admins only)."""
    changed = {name: bound for name, bound in bounds.items() if bound is not None}
    quotas = client.put(f"os-quota-sets/{segment(tenant)}", {"quota_set": changed}, "quota_set")
    click.echo(show.as_json(quotas))


@click.command()
@click.pass_obj
def limits(client: Client) -> None:
    """Print your limits, your usage and your rate limits as JSON."""
    click.echo(show.as_json(client.get("limits", "limits")))
