"""Operations of snapshots (docs/block-storage.md)."""

from __future__ import annotations

from typing import Final, NotRequired

from typing_extensions import TypedDict

from bootvol.api.cinder import views
from bootvol.api.cinder.bodies import ChangeSnapshot, CreateSnapshot
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.lists import Listing, has_items
from bootvol.api.operations import operation
from bootvol.api.paging import Link
from bootvol.errors import SnapshotNotFound, VolumeNotFound
from bootvol.model import NewSnapshot, Snapshot


class SnapshotsBrief(TypedDict):
    snapshots: list[views.SnapshotBrief]
    snapshots_links: NotRequired[list[Link]]


class Snapshots(TypedDict):
    snapshots: list[views.SnapshotShown]
    snapshots_links: NotRequired[list[Link]]


class OneSnapshotBrief(TypedDict):
    snapshot: views.SnapshotBrief


class OneSnapshot(TypedDict):
    snapshot: views.SnapshotShown


_LISTING: Final = Listing[Snapshot](
    key=lambda each: each.uuid,
    missing=SnapshotNotFound,
    filters={
        "name": lambda each, value: each.display_name == value,
        "status": lambda each, value: each.status == value,
        "volume_id": lambda each, value: each.volume_uuid == value,
        "metadata": lambda each, value: has_items(each.metadata, value),
    },
    sorted_by={
        "id": lambda each: each.id,
        "created_at": lambda each: each.created_at,
        "updated_at": lambda each: each.updated_at,
        "status": lambda each: str(each.status),
        "size": lambda each: each.size_gib,
        "name": lambda each: each.display_name,
        "volume_id": lambda each: each.volume_uuid,
    },
)


@operation(
    "snapshots_list_snapshots",
    "GET",
    "snapshots",
    query=_LISTING.query,
    of_rows=True,
    refusals=(404,),
)
async def list_snapshots(context: CinderContext) -> SnapshotsBrief:
    """List the project's snapshots."""
    found = await context.services.snapshots.listed(context.caller)
    page, links = _LISTING.select(context.request, found)
    shown: SnapshotsBrief = {"snapshots": [views.brief_snapshot(each) for each in page]}
    if links:
        shown["snapshots_links"] = links
    return shown


@operation(
    "snapshots_list_details",
    "GET",
    "snapshots/detail",
    query=_LISTING.query,
    of_rows=True,
    refusals=(404,),
)
async def list_details(context: CinderContext) -> Snapshots:
    """List the project's snapshots with their details."""
    found = await context.services.snapshots.listed(context.caller)
    page, links = _LISTING.select(context.request, found)
    shown: Snapshots = {"snapshots": [views.detailed_snapshot(each, context) for each in page]}
    if links:
        shown["snapshots_links"] = links
    return shown


@operation(
    "snapshots_create_snapshot",
    "POST",
    "snapshots",
    status=202,
    entity="snapshot",
    refusals=(404, 413),
)
async def create_snapshot(context: CinderContext, body: CreateSnapshot) -> OneSnapshotBrief:
    """Make a snapshot of a volume."""
    if body.volume_id is None:
        raise VolumeNotFound("None")
    wanted = NewSnapshot(
        await context.row("volumes", body.volume_id),
        body.name,
        body.description,
        bool(body.force),
        body.metadata or {},
    )
    made = await context.services.snapshots.create(context.caller, wanted)
    return {"snapshot": views.brief_snapshot(made)}


@operation("snapshots_show_snapshot", "GET", "snapshots/<snapshot_id>", of_rows=True)
async def show_snapshot(context: CinderContext, snapshot_id: int) -> OneSnapshot:
    """Show a snapshot."""
    found = await context.services.snapshots.get(context.caller, snapshot_id)
    return {"snapshot": views.detailed_snapshot(found, context)}


@operation("snapshots_change_snapshot", "PUT", "snapshots/<snapshot_id>", entity="snapshot")
async def change_snapshot(
    context: CinderContext, snapshot_id: int, body: ChangeSnapshot
) -> OneSnapshotBrief:
    """Change a snapshot's name or description, or replace its metadata."""
    changed = await context.services.snapshots.change(context.caller, snapshot_id, body.values)
    return {"snapshot": views.brief_snapshot(changed)}


@operation("snapshots_delete_snapshot", "DELETE", "snapshots/<snapshot_id>", status=202)
async def delete_snapshot(context: CinderContext, snapshot_id: int) -> None:
    """Delete a snapshot; the answer does not wait for the deletion."""
    await context.services.snapshots.delete(context.caller, snapshot_id)


OPERATIONS = (
    list_snapshots,
    list_details,
    create_snapshot,
    show_snapshot,
    change_snapshot,
    delete_snapshot,
)
