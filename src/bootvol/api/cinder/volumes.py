"""Operations of volumes (docs/block-storage.md)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NotRequired

import attrs
from typing_extensions import TypedDict

from bootvol.api.cinder import origins, views, volume_types
from bootvol.api.cinder.bodies import ChangeVolume, CreateVolume
from bootvol.api.cinder.booleans import truth
from bootvol.api.cinder.context import CinderContext, everywhere
from bootvol.api.cinder.default_type import DEFAULT
from bootvol.api.cinder.filter_names import OPEN
from bootvol.api.cinder.lists import Listing
from bootvol.api.cinder.matching import fits_times, flag, has_items, same_time
from bootvol.api.cinder.words import MALFORMED
from bootvol.api.filters import number, text
from bootvol.api.operations import operation
from bootvol.api.paging import Link
from bootvol.errors import ImageNotFound, InvalidRequest, VolumeBusy, VolumeNotFound
from bootvol.model import NewVolume, Volume
from bootvol.policy import Right


class VolumesBrief(TypedDict):
    volumes: list[views.VolumeBrief]
    volumes_links: NotRequired[list[Link]]
    count: NotRequired[int]


class Volumes(TypedDict):
    volumes: list[views.VolumeShown]
    volumes_links: NotRequired[list[Link]]
    count: NotRequired[int]


class OneVolume(TypedDict):
    volume: views.VolumeShown


class SummaryShown(TypedDict):
    """The number and the GiB of all volumes."""

    total_count: int
    total_size: int
    metadata: NotRequired[dict[str, list[str]]]


Summary = TypedDict("Summary", {"volume-summary": SummaryShown})


def _bootable(each: Volume, value: str) -> bool:
    meant = truth(value)
    if meant is None:
        raise InvalidRequest(f"Invalid input received: 'bootable = {value[:40]}'")
    return each.bootable == meant


def _bootable_early(each: Volume, value: str) -> bool:
    # Before 3.2, any text but the words for false means true.
    return each.bootable == (truth(value) is not False)


_LISTING: Final = Listing[Volume](
    key=lambda each: each.uuid,
    missing=VolumeNotFound,
    filters={
        "name": lambda each, value: each.display_name == value,
        "status": lambda each, value: (each.marked or each.status) == value,
        "metadata": lambda each, value: has_items(each.metadata, value),
        "bootable": _bootable,
        "availability_zone": lambda each, value: each.availability_zone == value,
        "size": lambda each, value: each.size_gib == number(value, "size"),
        # No volume has a group.
        "group_id": lambda each, value: False,
        "migration_status": lambda each, value: (
            (views.migration(each) or "None") == (value or "None")
        ),
        "created_at": lambda each, value: fits_times(each.created_at, value),
        "updated_at": lambda each, value: fits_times(each.updated_at, value),
        # All volumes count in the quota.
        "consumes_quota": lambda each, value: flag(value, "consumes_quota"),
        "id": lambda each, value: each.uuid == value,
        "user_id": lambda each, value: each.user == value,
        "project_id": lambda each, value: each.tenant == value,
        "host": lambda each, value: views.place(each) == value,
        "snapshot_id": lambda each, value: each.snapshot_uuid == value,
        "glance_metadata": lambda each, value: has_items(each.image_metadata, value),
        "encrypted": lambda each, value: not flag(value, "encrypted"),
        "multiattach": lambda each, value: not flag(value, "multiattach"),
    },
    sorted_by={
        "id": lambda each: each.uuid,
        "created_at": lambda each: each.created_at,
        "updated_at": lambda each: each.updated_at,
        "status": lambda each: str(each.marked or each.status),
        "size": lambda each: each.size_gib,
        "name": lambda each: each.display_name,
        "display_name": lambda each: each.display_name,
        "availability_zone": lambda each: each.availability_zone,
        "bootable": lambda each: each.bootable,
    },
    open=OPEN["volume"],
    early={
        "bootable": (2, _bootable_early),
        "glance_metadata": (4, lambda each, value: False),
        "created_at": (60, lambda each, value: same_time(each.created_at, value)),
        "updated_at": (60, lambda each, value: same_time(each.updated_at, value)),
    },
    texts={
        "name": lambda each: each.display_name,
        "status": lambda each: each.marked or each.status,
        "availability_zone": lambda each: each.availability_zone,
    },
    counts=True,
)
_NOT_DELETED: Final = (
    "Volume status must be available or error or error_restoring or error_extending or"
    " error_managing and must not be migrating, attached, belong to a group, have snapshots,"
    " awaiting a transfer, or be disassociated from snapshots after volume transfer."
)
_QUERY: Final = (*_LISTING.query, "all_tenants")


@operation("volumes_list_volumes", "GET", "volumes", query=_QUERY, of_rows=True, refusals=(404,))
async def list_volumes(context: CinderContext) -> VolumesBrief:
    """List the project's volumes."""
    found = _LISTING.select(context, await _found(context))
    shown: VolumesBrief = {"volumes": [views.brief_volume(each, context) for each in found.page]}
    if found.links:
        shown["volumes_links"] = found.links
    if found.count is not None:
        shown["count"] = found.count
    return shown


@operation(
    "volumes_list_details", "GET", "volumes/detail", query=_QUERY, of_rows=True, refusals=(404,)
)
async def list_details(context: CinderContext) -> Volumes:
    """List the project's volumes with their details."""
    found = _LISTING.select(context, await _found(context))
    shown: Volumes = {"volumes": [views.detailed_volume(each, context) for each in found.page]}
    if found.links:
        shown["volumes_links"] = found.links
    if found.count is not None:
        shown["count"] = found.count
    return shown


async def _found(context: CinderContext) -> Sequence[Volume]:
    """Return the volumes of the caller's project, or of all projects.

    Members may ask for all projects, and get their own, as in Cinder.
    """
    service = context.services.volumes
    if everywhere(context):
        return await service.listed_everywhere()
    return await service.listed(context.caller)


@operation(
    "volumes_summarize_volumes", "GET", "volumes/summary", query=_QUERY, of_rows=True, since=12
)
async def summarize_volumes(context: CinderContext) -> Summary:
    """Count the project's volumes and their GiB."""
    found = await _found(context)
    shown: SummaryShown = {
        "total_count": len(found),
        "total_size": sum(each.size_gib for each in found),
    }
    if context.has(36):
        values: dict[str, set[str]] = defaultdict(set)
        for each in found:
            for key, value in each.metadata.items():
                values[key].add(value)
        shown["metadata"] = {key: sorted(each) for key, each in values.items()}
    return {"volume-summary": shown}


@operation(
    "volumes_create_volume",
    "POST",
    "volumes",
    status=202,
    entity="volume",
    refusals=(404, 409, 413, 503),
)
async def create_volume(context: CinderContext, body: CreateVolume) -> OneVolume:
    """Create a volume: blank, from a snapshot or another volume, or bootable from an image."""
    origin = await origins.of_body(context, body)
    if body.size is None and not origin.is_known:
        raise InvalidRequest(MALFORMED)
    zone = context.services.volumes.zone
    if body.availability_zone not in (None, zone):
        raise InvalidRequest(f"Availability zone '{body.availability_zone}' is invalid.")
    wanted = NewVolume(
        size_gib=body.size,
        image_ref=body.image,
        snapshot_id=origin.snapshot,
        source_id=origin.volume,
        volume_type=await _type_name(context, body),
        display_name=body.name,
        display_description=body.description,
        availability_zone=body.availability_zone,
        metadata=body.metadata or {},
    )
    async with origins.reworded(context, origin):
        made = await _made(context, wanted)
    return {"volume": views.volume(made, context)}


async def _made(context: CinderContext, wanted: NewVolume) -> Volume:
    """Create a volume.  As in Cinder, an image is named by an id, or else by a name."""
    volumes, reference = context.services.volumes, wanted.image_ref
    try:
        return await volumes.create(context.caller, wanted)
    except ImageNotFound:
        if not reference or "://" in reference:
            raise
        image = await context.services.images.named(context.caller, reference)
    return await volumes.create(context.caller, attrs.evolve(wanted, image_ref=image.id))


async def _type_name(context: CinderContext, body: CreateVolume) -> str | None:
    """Return the name of a new volume's type; None for no type.

    A copy of a snapshot or volume stays on the backend, unless the request names a type.
    """
    if body.volume_type is not None:
        found = await volume_types.of_reference(context, body.volume_type)
        return None if found.id == DEFAULT.id else found.name
    if body.snapshot_id is not None or body.source_volid is not None:
        return None
    default = await context.services.types.default_of(context.caller.tenant)
    return None if default is None else default.name


@operation("volumes_show_volume", "GET", "volumes/<volume_id>", of_rows=True)
async def show_volume(context: CinderContext, volume_id: int) -> OneVolume:
    """Show a volume."""
    found = await context.services.volumes.get(context.caller, volume_id)
    return {"volume": views.detailed_volume(found, context)}


@operation("volumes_change_volume", "PUT", "volumes/<volume_id>", entity="volume")
async def change_volume(context: CinderContext, volume_id: int, body: ChangeVolume) -> OneVolume:
    """Change a volume's name or description, or replace its metadata."""
    changed = await context.services.volumes.change(context.caller, volume_id, body.values)
    return {"volume": views.volume(changed, context)}


@operation(
    "volumes_delete_volume",
    "DELETE",
    "volumes/<volume_id>",
    status=202,
    query=("cascade", "force"),
)
async def delete_volume(context: CinderContext, volume_id: int) -> None:
    """Delete a volume; the answer does not wait for the deletion.

    Snapshots outlive their volume, unless ``cascade`` is true.
    """
    cascade = flag(text(context.request, b"cascade") or "false", "cascade")
    # Each status that allows a forced deletion allows any other here, too.
    if flag(text(context.request, b"force") or "false", "force"):
        context.policy.check(context.caller.roles, Right.FORCE)
    try:
        await context.services.volumes.delete(context.caller, volume_id, snapshots=cascade)
    except VolumeBusy:
        raise VolumeBusy(_NOT_DELETED) from None


OPERATIONS = (
    list_volumes,
    list_details,
    summarize_volumes,
    create_volume,
    show_volume,
    change_volume,
    delete_volume,
)
