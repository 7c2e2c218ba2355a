"""Calls of os-snapshots (specification, section 5.7)."""

from __future__ import annotations

from bootvol.api.nova import bodies, views
from bootvol.api.nova.calls import Ask, call
from bootvol.lifecycle import Kind
from bootvol.service.ids import NONE


@call("GET", "os-snapshots", "os-snapshots/detail", paged=True, of_rows=True)
async def list_snapshots(ask: Ask) -> views.Snapshots:
    """List the tenant's snapshots; ``detail`` makes no difference."""
    listed = await ask.core.snapshots.listed(ask.caller, **ask.page)
    return {"snapshots": [views.snapshot(each, ask.place) for each in listed]}


@call("POST", "os-snapshots", entity="snapshot", named=True, refusals=(404, 413))
async def create_snapshot(ask: Ask, asked: bodies.CreateSnapshot) -> views.OneSnapshot:
    """Make a snapshot of a volume."""
    volume_id = await ask.number(Kind.VOLUME, asked.volume_id)
    made = await ask.core.snapshots.create(ask.caller, asked.wanted(volume_id or NONE))
    return {"snapshot": views.snapshot(made, ask.place)}


@call("GET", "os-snapshots/<snapshot_id>", of_rows=True)
async def show_snapshot(ask: Ask, snapshot_id: int) -> views.OneSnapshot:
    """Show a snapshot."""
    found = await ask.core.snapshots.get(ask.caller, snapshot_id)
    return {"snapshot": views.snapshot(found, ask.place)}


@call("DELETE", "os-snapshots/<snapshot_id>", status=202)
async def delete_snapshot(ask: Ask, snapshot_id: int) -> None:
    """Delete a snapshot; the answer does not wait for the deletion."""
    await ask.core.snapshots.delete(ask.caller, snapshot_id)


@call("GET", "os-snapshots/<snapshot_id>/error")
async def show_error(ask: Ask, snapshot_id: int) -> views.OneError:
    """Show the reason for a snapshot's status ``error`` or for its wait; null without a problem."""
    return {"error": views.error(await ask.core.snapshots.error(ask.caller, snapshot_id))}
