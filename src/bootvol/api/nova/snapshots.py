"""Operations of os-snapshots (specification, section 5.7)."""

from __future__ import annotations

from bootvol.api.nova import bodies, views
from bootvol.api.nova.context import NovaContext
from bootvol.api.operations import operation


@operation(
    "snapshots_list_snapshots",
    "GET",
    "os-snapshots",
    aliases={"os-snapshots/detail": "snapshots_list_snapshots_again"},
    paged=True,
    of_rows=True,
)
async def list_snapshots(context: NovaContext) -> views.Snapshots:
    """List the tenant's snapshots; ``detail`` makes no difference."""
    listed = await context.services.snapshots.listed(context.caller, **context.page)
    return {"snapshots": [views.snapshot(each, context.base) for each in listed]}


@operation(
    "snapshots_create_snapshot",
    "POST",
    "os-snapshots",
    entity="snapshot",
    named=True,
    refusals=(404, 413),
)
async def create_snapshot(context: NovaContext, body: bodies.CreateSnapshot) -> views.OneSnapshot:
    """Make a snapshot of a volume."""
    volume_id = await context.volume_number(body.volume_id)
    made = await context.services.snapshots.create(context.caller, body.request(volume_id))
    return {"snapshot": views.snapshot(made, context.base)}


@operation("snapshots_show_snapshot", "GET", "os-snapshots/<snapshot_id>", of_rows=True)
async def show_snapshot(context: NovaContext, snapshot_id: int) -> views.OneSnapshot:
    """Show a snapshot."""
    found = await context.services.snapshots.get(context.caller, snapshot_id)
    return {"snapshot": views.snapshot(found, context.base)}


@operation("snapshots_delete_snapshot", "DELETE", "os-snapshots/<snapshot_id>", status=202)
async def delete_snapshot(context: NovaContext, snapshot_id: int) -> None:
    """Delete a snapshot; the answer does not wait for the deletion."""
    await context.services.snapshots.delete(context.caller, snapshot_id)


@operation("snapshots_show_error", "GET", "os-snapshots/<snapshot_id>/error")
async def show_error(context: NovaContext, snapshot_id: int) -> views.OneError:
    """Show the reason for a snapshot's status ``error`` or for its wait; null without a problem."""
    return {
        "error": views.error(await context.services.snapshots.error(context.caller, snapshot_id))
    }


OPERATIONS = (list_snapshots, create_snapshot, show_snapshot, delete_snapshot, show_error)
