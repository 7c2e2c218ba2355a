"""Calls of volumes, snapshots and types as in Cinder v1, for clients of a volume service.

The calls show the same use cases as ``os-volumes``.  Ids are uuids below every version.  Below
``/v2``, names also have the keys of Cinder v2, and lists have links, for clients of Cinder v2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from bootvol.api.nova.calls import Ask, call
from bootvol.api.nova.cinder_bodies import (
    ChangeSnapshot,
    ChangeVolume,
    CreateCinderSnapshot,
    CreateCinderVolume,
)
from bootvol.api.nova.filters import Filter, filtered, paged
from bootvol.api.nova.links import Link, Place
from bootvol.api.nova.views import Size, VolumeStatus
from bootvol.api.nova.volume_types import LIST_QUERY, listed
from bootvol.lifecycle import Kind
from bootvol.model import Snapshot, Volume, VolumeType
from bootvol.service.ids import NONE

#: The version of Cinder v1, and the versions whose endpoint in the catalog is also the volume
#: service's.
_BASES: Final = ("v1", "v2", "v1.1")
_CREATED: Final = "%Y-%m-%dT%H:%M:%S.000000"
#: Clients of Cinder v2 use this version.
_SECOND: Final = "v2"
_REFUSED: Final = (
    *("all_tenants", "metadata", "sort_key", "sort_dir", "sort", "changes-since"),
    *("availability_zone", "bootable", "host", "project_id", "user_id", "volume_type"),
)

_Uuid = Annotated[str, Field(pattern="^[0-9a-f-]{36}$")]


class AttachmentShown(TypedDict):
    """The attachment of a volume to a server."""

    id: _Uuid
    volume_id: _Uuid
    server_id: str
    device: str


class VolumeShown(TypedDict):
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
    source_volid: None
    availability_zone: str
    created_at: str
    attachments: list[AttachmentShown]
    metadata: dict[str, str]
    bootable: Literal["true", "false"]
    encrypted: Literal[False]
    multiattach: Literal["false"]


class SnapshotShown(TypedDict):
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


class TypeShown(TypedDict):
    """A volume type."""

    id: str
    name: str
    extra_specs: dict[str, str]


class CinderVolumes(TypedDict):
    volumes: list[VolumeShown]
    volumes_links: NotRequired[list[Link]]


class OneCinderVolume(TypedDict):
    volume: VolumeShown


class CinderSnapshots(TypedDict):
    snapshots: list[SnapshotShown]
    snapshots_links: NotRequired[list[Link]]


class OneCinderSnapshot(TypedDict):
    snapshot: SnapshotShown


class CinderTypes(TypedDict):
    volume_types: list[TypeShown]


class OneCinderType(TypedDict):
    volume_type: TypeShown


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


@call("GET", "volumes", "volumes/detail", query=(*_VOLUME_FITS, *_PAGE), bases=_BASES)
async def list_volumes(ask: Ask) -> CinderVolumes:
    """List the tenant's volumes as in Cinder v1."""
    found = filtered(ask.request, await ask.core.volumes.listed(ask.caller), _VOLUME_FITS, _REFUSED)
    page, links = paged(ask.request, found, lambda each: each.uuid)
    shown: CinderVolumes = {"volumes": [_volume(each, ask.place) for each in page]}
    if links and ask.place.version == _SECOND:
        shown["volumes_links"] = links
    return shown


@call("POST", "volumes", entity="volume", refusals=(404, 413, 503), bases=_BASES)
async def create_volume(ask: Ask, asked: CreateCinderVolume) -> OneCinderVolume:
    """Create a volume; with ``imageRef``, a bootable volume."""
    wanted = asked.wanted(await ask.number(Kind.SNAPSHOT, asked.snapshot_id))
    return {"volume": _volume(await ask.core.volumes.create(ask.caller, wanted), ask.place)}


@call("GET", "volumes/<volume_id>", bases=_BASES)
async def show_volume(ask: Ask, volume_id: int) -> OneCinderVolume:
    """Show a volume as in Cinder v1."""
    return {"volume": _volume(await ask.core.volumes.get(ask.caller, volume_id), ask.place)}


@call("PUT", "volumes/<volume_id>", entity="volume", bases=_BASES)
async def change_volume(ask: Ask, volume_id: int, asked: ChangeVolume) -> OneCinderVolume:
    """Change a volume's name or description, or replace its metadata."""
    changed = await ask.core.volumes.change(ask.caller, volume_id, asked.values)
    return {"volume": _volume(changed, ask.place)}


@call("DELETE", "volumes/<volume_id>", status=202, bases=_BASES)
async def delete_volume(ask: Ask, volume_id: int) -> None:
    """Delete a volume; the answer does not wait for the deletion."""
    await ask.core.volumes.delete(ask.caller, volume_id)


@call("GET", "snapshots", "snapshots/detail", query=(*_SNAPSHOT_FITS, *_PAGE), bases=_BASES)
async def list_snapshots(ask: Ask) -> CinderSnapshots:
    """List the tenant's snapshots as in Cinder v1."""
    found = filtered(
        ask.request, await ask.core.snapshots.listed(ask.caller), _SNAPSHOT_FITS, _REFUSED
    )
    page, links = paged(ask.request, found, lambda each: each.uuid)
    shown: CinderSnapshots = {"snapshots": [_snapshot(each, ask.place) for each in page]}
    if links and ask.place.version == _SECOND:
        shown["snapshots_links"] = links
    return shown


@call("POST", "snapshots", entity="snapshot", named=True, refusals=(404, 413), bases=_BASES)
async def create_snapshot(ask: Ask, asked: CreateCinderSnapshot) -> OneCinderSnapshot:
    """Make a snapshot of a volume."""
    volume_id = await ask.number(Kind.VOLUME, asked.volume_id)
    made = await ask.core.snapshots.create(ask.caller, asked.wanted(volume_id or NONE))
    return {"snapshot": _snapshot(made, ask.place)}


@call("GET", "snapshots/<snapshot_id>", bases=_BASES)
async def show_snapshot(ask: Ask, snapshot_id: int) -> OneCinderSnapshot:
    """Show a snapshot as in Cinder v1."""
    found = await ask.core.snapshots.get(ask.caller, snapshot_id)
    return {"snapshot": _snapshot(found, ask.place)}


@call("PUT", "snapshots/<snapshot_id>", entity="snapshot", bases=_BASES)
async def change_snapshot(ask: Ask, snapshot_id: int, asked: ChangeSnapshot) -> OneCinderSnapshot:
    """Change a snapshot's name or description."""
    changed = await ask.core.snapshots.change(ask.caller, snapshot_id, asked.values)
    return {"snapshot": _snapshot(changed, ask.place)}


@call("DELETE", "snapshots/<snapshot_id>", status=202, bases=_BASES)
async def delete_snapshot(ask: Ask, snapshot_id: int) -> None:
    """Delete a snapshot; the answer does not wait for the deletion."""
    await ask.core.snapshots.delete(ask.caller, snapshot_id)


@call("GET", "types", query=LIST_QUERY, bases=_BASES)
async def list_types(ask: Ask) -> CinderTypes:
    """List the volume types."""
    return {"volume_types": [_type(each) for each in await listed(ask)]}


@call("GET", "types/<type_id>", bases=_BASES)
async def show_type(ask: Ask, type_id: int) -> OneCinderType:
    """Show a volume type."""
    return {"volume_type": _type(await ask.core.types.get(type_id))}


def _volume(value: Volume, place: Place) -> VolumeShown:
    shown: VolumeShown = {
        "id": value.uuid,
        "display_name": value.display_name,
        "display_description": value.display_description,
        "status": value.status,
        "size": value.size_gib,
        # Cinder v1 shows the word "None" for a volume without a type.
        "volume_type": value.volume_type or "None",
        "snapshot_id": value.snapshot_uuid,
        "source_volid": None,
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
        "bootable": "true" if value.image_id is not None else "false",
        "encrypted": False,
        "multiattach": "false",
    }
    if place.version == _SECOND:
        shown |= {"name": value.display_name, "description": value.display_description}
    return shown


def _snapshot(value: Snapshot, place: Place) -> SnapshotShown:
    shown: SnapshotShown = {
        "id": value.uuid,
        "display_name": value.display_name,
        "display_description": value.display_description,
        "volume_id": value.volume_uuid,
        "status": value.status,
        "size": value.size_gib,
        "created_at": value.created_at.strftime(_CREATED),
        "metadata": {},
    }
    if place.version == _SECOND:
        shown |= {"name": value.display_name, "description": value.display_description}
    return shown


def _type(value: VolumeType) -> TypeShown:
    return {"id": str(value.id), "name": value.name, "extra_specs": dict(value.extra_specs)}
