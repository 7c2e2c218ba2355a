"""Operations of volumes, snapshots and types as in Cinder v1, for clients of a volume service.

The calls show the same use cases as ``os-volumes``.  Ids are uuids below every version.  Below
``/v2``, names also have the keys of Cinder v2, and lists have links, for clients of Cinder v2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from bootvol.api.filters import Filter, filtered
from bootvol.api.nova.cinder_bodies import (
    ChangeSnapshot,
    ChangeVolume,
    CreateCinderSnapshot,
    CreateCinderVolume,
)
from bootvol.api.nova.context import NovaContext
from bootvol.api.nova.links import BaseUri
from bootvol.api.nova.views import Size, VolumeStatus
from bootvol.api.nova.volume_types import LIST_QUERY, listed
from bootvol.api.operations import operation
from bootvol.api.paging import Link, paged
from bootvol.lifecycle import Kind
from bootvol.model import Snapshot, Volume, VolumeType

#: The version of Cinder v1, and the versions whose endpoint in the catalog is also the volume
#: service's.
_VERSIONS: Final = ("v1", "v2", "v1.1")
_CREATED: Final = "%Y-%m-%dT%H:%M:%S.000000"
#: Clients of Cinder v2 use this version.
_SECOND: Final = "v2"
_REFUSED: Final = (
    *("all_tenants", "metadata", "sort_key", "sort_dir", "sort", "changes-since"),
    *("availability_zone", "bootable", "host", "project_id", "user_id", "volume_type"),
)

_Uuid = Annotated[str, Field(pattern="^[0-9a-f-]{36}$")]


class CinderAttachmentShown(TypedDict):
    """The attachment of a volume to a server."""

    id: _Uuid
    volume_id: _Uuid
    server_id: str
    device: str


class CinderVolumeShown(TypedDict):
    """A volume."""

    id: _Uuid
    name: NotRequired[str | None]
    description: NotRequired[str | None]
    display_name: str | None
    display_description: str | None
    status: VolumeStatus
    size: Size
    volume_type: str
    snapshot_id: _Uuid | None
    source_volid: str | None
    availability_zone: str
    created_at: str
    attachments: list[CinderAttachmentShown]
    metadata: dict[str, str]
    bootable: Literal["true", "false"]
    encrypted: Literal[False]
    multiattach: Literal["false"]


class CinderSnapshotShown(TypedDict):
    """A snapshot."""

    id: _Uuid
    name: NotRequired[str | None]
    description: NotRequired[str | None]
    display_name: str | None
    display_description: str | None
    volume_id: _Uuid
    status: VolumeStatus
    size: Size
    created_at: str
    metadata: dict[str, str]


class CinderTypeShown(TypedDict):
    """A volume type."""

    id: str
    name: str
    extra_specs: dict[str, str]


class CinderVolumes(TypedDict):
    volumes: list[CinderVolumeShown]
    volumes_links: NotRequired[list[Link]]


class OneCinderVolume(TypedDict):
    volume: CinderVolumeShown


class CinderSnapshots(TypedDict):
    snapshots: list[CinderSnapshotShown]
    snapshots_links: NotRequired[list[Link]]


class OneCinderSnapshot(TypedDict):
    snapshot: CinderSnapshotShown


class CinderTypes(TypedDict):
    volume_types: list[CinderTypeShown]


class OneCinderType(TypedDict):
    volume_type: CinderTypeShown


_VOLUME_FITS: Final[Mapping[str, Filter[Volume]]] = {
    "display_name": lambda each, text: each.display_name == text,
    # The same filter, as clients of Cinder v2 spell it.
    "name": lambda each, text: each.display_name == text,
    "status": lambda each, text: each.status == text,
}
_SNAPSHOT_FITS: Final[Mapping[str, Filter[Snapshot]]] = {
    "display_name": lambda each, text: each.display_name == text,
    # The same filter, as clients of Cinder v2 spell it.
    "name": lambda each, text: each.display_name == text,
    "status": lambda each, text: each.status == text,
    "volume_id": lambda each, text: text in (each.volume_uuid, str(each.volume_id)),
}
_PAGE: Final = ("limit", "marker", "offset")


@operation(
    "cinder_list_volumes",
    "GET",
    "volumes",
    aliases={"volumes/detail": "cinder_list_volumes_again"},
    query=(*_VOLUME_FITS, *_PAGE),
    versions=_VERSIONS,
)
async def list_volumes(context: NovaContext) -> CinderVolumes:
    """List the tenant's volumes as in Cinder v1."""
    found = filtered(
        context.request,
        await context.services.volumes.listed(context.caller),
        _VOLUME_FITS,
        _REFUSED,
    )
    page, links = paged(context.request, found, lambda each: each.uuid)
    shown: CinderVolumes = {"volumes": [_volume(each, context.base) for each in page]}
    if links and context.base.version == _SECOND:
        shown["volumes_links"] = links
    return shown


@operation(
    "cinder_create_volume",
    "POST",
    "volumes",
    entity="volume",
    refusals=(404, 413, 503),
    versions=_VERSIONS,
)
async def create_volume(context: NovaContext, body: CreateCinderVolume) -> OneCinderVolume:
    """Create a volume; with ``imageRef``, a bootable volume."""
    request = body.request(await context.number(Kind.SNAPSHOT, body.snapshot_id))
    return {
        "volume": _volume(
            await context.services.volumes.create(context.caller, request), context.base
        )
    }


@operation("cinder_show_volume", "GET", "volumes/<volume_id>", versions=_VERSIONS)
async def show_volume(context: NovaContext, volume_id: int) -> OneCinderVolume:
    """Show a volume as in Cinder v1."""
    return {
        "volume": _volume(
            await context.services.volumes.get(context.caller, volume_id), context.base
        )
    }


@operation(
    "cinder_change_volume", "PUT", "volumes/<volume_id>", entity="volume", versions=_VERSIONS
)
async def change_volume(
    context: NovaContext, volume_id: int, body: ChangeVolume
) -> OneCinderVolume:
    """Change a volume's name or description, or replace its metadata."""
    changed = await context.services.volumes.change(context.caller, volume_id, body.values)
    return {"volume": _volume(changed, context.base)}


@operation("cinder_delete_volume", "DELETE", "volumes/<volume_id>", status=202, versions=_VERSIONS)
async def delete_volume(context: NovaContext, volume_id: int) -> None:
    """Delete a volume; the answer does not wait for the deletion."""
    await context.services.volumes.delete(context.caller, volume_id)


@operation(
    "cinder_list_snapshots",
    "GET",
    "snapshots",
    aliases={"snapshots/detail": "cinder_list_snapshots_again"},
    query=(*_SNAPSHOT_FITS, *_PAGE),
    versions=_VERSIONS,
)
async def list_snapshots(context: NovaContext) -> CinderSnapshots:
    """List the tenant's snapshots as in Cinder v1."""
    found = filtered(
        context.request,
        await context.services.snapshots.listed(context.caller),
        _SNAPSHOT_FITS,
        _REFUSED,
    )
    page, links = paged(context.request, found, lambda each: each.uuid)
    shown: CinderSnapshots = {"snapshots": [_snapshot(each, context.base) for each in page]}
    if links and context.base.version == _SECOND:
        shown["snapshots_links"] = links
    return shown


@operation(
    "cinder_create_snapshot",
    "POST",
    "snapshots",
    entity="snapshot",
    named=True,
    refusals=(404, 413),
    versions=_VERSIONS,
)
async def create_snapshot(context: NovaContext, body: CreateCinderSnapshot) -> OneCinderSnapshot:
    """Make a snapshot of a volume."""
    volume_id = await context.volume_number(body.volume_id)
    made = await context.services.snapshots.create(context.caller, body.request(volume_id))
    return {"snapshot": _snapshot(made, context.base)}


@operation("cinder_show_snapshot", "GET", "snapshots/<snapshot_id>", versions=_VERSIONS)
async def show_snapshot(context: NovaContext, snapshot_id: int) -> OneCinderSnapshot:
    """Show a snapshot as in Cinder v1."""
    found = await context.services.snapshots.get(context.caller, snapshot_id)
    return {"snapshot": _snapshot(found, context.base)}


@operation(
    "cinder_change_snapshot",
    "PUT",
    "snapshots/<snapshot_id>",
    entity="snapshot",
    versions=_VERSIONS,
)
async def change_snapshot(
    context: NovaContext, snapshot_id: int, body: ChangeSnapshot
) -> OneCinderSnapshot:
    """Change a snapshot's name or description."""
    changed = await context.services.snapshots.change(context.caller, snapshot_id, body.values)
    return {"snapshot": _snapshot(changed, context.base)}


@operation(
    "cinder_delete_snapshot", "DELETE", "snapshots/<snapshot_id>", status=202, versions=_VERSIONS
)
async def delete_snapshot(context: NovaContext, snapshot_id: int) -> None:
    """Delete a snapshot; the answer does not wait for the deletion."""
    await context.services.snapshots.delete(context.caller, snapshot_id)


@operation("cinder_list_types", "GET", "types", query=LIST_QUERY, versions=_VERSIONS)
async def list_types(context: NovaContext) -> CinderTypes:
    """List the volume types."""
    return {"volume_types": [_type(each) for each in await listed(context)]}


@operation("cinder_show_type", "GET", "types/<type_id>", versions=_VERSIONS)
async def show_type(context: NovaContext, type_id: int) -> OneCinderType:
    """Show a volume type."""
    return {"volume_type": _type(await context.services.types.get(type_id, context.sees_types_of))}


def _volume(value: Volume, base: BaseUri) -> CinderVolumeShown:
    shown: CinderVolumeShown = {
        "id": value.uuid,
        "display_name": value.display_name,
        "display_description": value.display_description,
        "status": value.status,
        "size": value.size_gib,
        # Cinder v1 shows the word "None" for a volume without a type.
        "volume_type": value.volume_type or "None",
        "snapshot_id": value.snapshot_uuid,
        "source_volid": value.source_uuid,
        "availability_zone": value.availability_zone,
        "created_at": value.created_at.strftime(_CREATED),
        "attachments": [
            {
                "id": value.uuid,
                "volume_id": value.uuid,
                "server_id": each.server_uuid or each.server_id,
                "device": each.device,
            }
            for each in value.attachments
        ],
        "metadata": dict(value.metadata),
        "bootable": "true" if value.bootable else "false",
        "encrypted": False,
        "multiattach": "false",
    }
    if base.version == _SECOND:
        shown |= {"name": value.display_name, "description": value.display_description}
    return shown


def _snapshot(value: Snapshot, base: BaseUri) -> CinderSnapshotShown:
    shown: CinderSnapshotShown = {
        "id": value.uuid,
        "display_name": value.display_name,
        "display_description": value.display_description,
        "volume_id": value.volume_uuid,
        "status": value.status,
        "size": value.size_gib,
        "created_at": value.created_at.strftime(_CREATED),
        "metadata": {},
    }
    if base.version == _SECOND:
        shown |= {"name": value.display_name, "description": value.display_description}
    return shown


def _type(value: VolumeType) -> CinderTypeShown:
    return {"id": str(value.id), "name": value.name, "extra_specs": dict(value.extra_specs)}


OPERATIONS = (
    list_volumes,
    create_volume,
    show_volume,
    change_volume,
    delete_volume,
    list_snapshots,
    create_snapshot,
    show_snapshot,
    change_snapshot,
    delete_snapshot,
    list_types,
    show_type,
)
