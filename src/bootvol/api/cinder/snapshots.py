"""Operations of snapshots (docs/block-storage.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NotRequired

from typing_extensions import TypedDict

from bootvol.api.cinder import views
from bootvol.api.cinder.bodies import ChangeSnapshot, CreateSnapshot
from bootvol.api.cinder.context import CinderContext, everywhere
from bootvol.api.cinder.filter_names import OPEN
from bootvol.api.cinder.lists import Listing
from bootvol.api.cinder.matching import flag, has_items, same_time
from bootvol.api.filters import text
from bootvol.api.operations import operation
from bootvol.api.paging import Link
from bootvol.errors import SnapshotNotFound, VolumeBusy, VolumeNotFound
from bootvol.lifecycle import Status
from bootvol.model import NewSnapshot, Snapshot, Volume


class SnapshotsBrief(TypedDict):
    snapshots: list[views.SnapshotBrief]
    snapshots_links: NotRequired[list[Link]]
    count: NotRequired[int]


class Snapshots(TypedDict):
    snapshots: list[views.SnapshotShown]
    snapshots_links: NotRequired[list[Link]]
    count: NotRequired[int]


class OneSnapshotBrief(TypedDict):
    snapshot: views.SnapshotBrief


class OneSnapshot(TypedDict):
    snapshot: views.SnapshotShown


_LISTING: Final = Listing[Snapshot](
    key=lambda each: each.uuid,
    missing=SnapshotNotFound,
    filters={
        "name": lambda each, value: each.display_name == value,
        "status": lambda each, value: (each.marked or each.status) == value,
        "volume_id": lambda each, value: each.volume_uuid == value,
        "metadata": lambda each, value: has_items(each.metadata, value),
        # All snapshots are in the zone that the list checks, and count in the quota.
        "availability_zone": lambda each, value: True,
        "consumes_quota": lambda each, value: flag(value, "consumes_quota"),
        "id": lambda each, value: each.uuid == value,
        "user_id": lambda each, value: each.user == value,
        "project_id": lambda each, value: each.tenant == value,
        "created_at": lambda each, value: same_time(each.created_at, value),
    },
    sorted_by={
        "id": lambda each: each.uuid,
        "created_at": lambda each: each.created_at,
        "updated_at": lambda each: each.updated_at,
        "status": lambda each: str(each.marked or each.status),
        "size": lambda each: each.size_gib,
        "name": lambda each: each.display_name,
        "display_name": lambda each: each.display_name,
        "volume_id": lambda each: each.volume_uuid,
    },
    open=OPEN["snapshot"],
    texts={
        "name": lambda each: each.display_name,
        "status": lambda each: each.marked or each.status,
    },
    sorted_since={"name": 30},
    counts=True,
)
_QUERY: Final = (*_LISTING.query, "all_tenants")


async def _found(context: CinderContext) -> Sequence[Snapshot]:
    """Return the snapshots that a list chooses from: see :func:`.context.everywhere`."""
    service, zone = context.services.snapshots, text(context.request, b"availability_zone")
    if zone not in (None, context.services.volumes.zone):
        return []
    if everywhere(context):
        return await service.listed_everywhere()
    return await service.listed(context.caller)


@operation(
    "snapshots_list_snapshots",
    "GET",
    "snapshots",
    query=_QUERY,
    of_rows=True,
    refusals=(404,),
)
async def list_snapshots(context: CinderContext) -> SnapshotsBrief:
    """List the project's snapshots."""
    found = _LISTING.select(context, await _found(context))
    shown: SnapshotsBrief = {"snapshots": [views.brief_snapshot(each) for each in found.page]}
    if found.links:
        shown["snapshots_links"] = found.links
    if found.count is not None:
        shown["count"] = found.count
    return shown


@operation(
    "snapshots_list_details",
    "GET",
    "snapshots/detail",
    query=_QUERY,
    of_rows=True,
    refusals=(404,),
)
async def list_details(context: CinderContext) -> Snapshots:
    """List the project's snapshots with their details."""
    found = _LISTING.select(context, await _found(context))
    shown: Snapshots = {
        "snapshots": [views.detailed_snapshot(each, context) for each in found.page]
    }
    if found.links:
        shown["snapshots_links"] = found.links
    if found.count is not None:
        shown["count"] = found.count
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
        body.forces,
        body.metadata or {},
    )
    try:
        made = await context.services.snapshots.create(context.caller, wanted)
    except VolumeBusy:
        volume = await context.services.volumes.get(context.caller, wanted.volume_id)
        raise VolumeBusy(_hindrance(volume)) from None
    return {"snapshot": views.snapshot(made, context)}


def _hindrance(volume: Volume) -> str:
    """Return Cinder's message about a volume that allows no snapshot now."""
    if volume.status is Status.ERROR:
        return "The snapshot cannot be created when the volume is in error status."
    if volume.status is Status.AVAILABLE:
        return f"Volume {volume.uuid} is promised to a server."
    if volume.status is Status.IN_USE:
        return (
            f"Volume {volume.uuid} status must be available, but current status is: in-use."
            " Snapshots of volumes in use need a backend that clones, and force before 3.66."
        )
    return f"Volume {volume.uuid} status must be available, but current status is: {volume.status}."


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
    return {"snapshot": views.snapshot(changed, context)}


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
