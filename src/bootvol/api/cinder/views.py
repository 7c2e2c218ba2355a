"""Views of volumes and snapshots (docs/block-storage.md)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, NotRequired
from uuid import NAMESPACE_OID, uuid5

from pydantic import Field
from typing_extensions import TypedDict

from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.default_type import DEFAULT
from bootvol.api.paging import Link
from bootvol.lifecycle import Status
from bootvol.model import Snapshot, Volume

Uuid = Annotated[str, Field(pattern="^[0-9a-f-]{36}$")]
#: Cinder's form of times: clients in Go parse exactly this form.
_TIME: Final = "%Y-%m-%dT%H:%M:%S.%f"


class AttachmentShown(TypedDict):
    """The attachment of a volume to a server.  The ``id`` is the volume's."""

    id: Uuid
    attachment_id: Uuid
    volume_id: Uuid
    server_id: str | None
    host_name: str | None
    device: str
    attached_at: str | None


class VolumeBrief(TypedDict):
    """A volume in a list without details."""

    id: Uuid
    name: str | None
    links: list[Link]


VolumeShown = TypedDict(
    "VolumeShown",
    {
        "id": Uuid,
        "status": str,
        "size": int,
        "availability_zone": str,
        "created_at": str,
        "updated_at": str | None,
        "name": str | None,
        "description": str | None,
        "volume_type": str,
        "snapshot_id": Uuid | None,
        "source_volid": Uuid | None,
        "metadata": dict[str, str],
        "links": list[Link],
        "user_id": str,
        "bootable": str,
        "encrypted": bool,
        "multiattach": bool,
        "replication_status": None,
        "consistencygroup_id": None,
        "attachments": list[AttachmentShown],
        "volume_image_metadata": NotRequired[dict[str, str]],
        "group_id": NotRequired[None],
        "provider_id": NotRequired[None],
        "migration_status": NotRequired[str | None],
        "os-vol-tenant-attr:tenant_id": NotRequired[str],
        "os-vol-host-attr:host": NotRequired[str],
        "os-vol-mig-status-attr:migstat": NotRequired[str | None],
        "os-vol-mig-status-attr:name_id": NotRequired[None],
        "shared_targets": NotRequired[bool],
        "service_uuid": NotRequired[Uuid],
        "cluster_name": NotRequired[None],
        "volume_type_id": NotRequired[Uuid | None],
        "consumes_quota": NotRequired[bool],
    },
)


class SnapshotBrief(TypedDict):
    """A snapshot without the extended attributes."""

    id: Uuid
    created_at: str
    updated_at: str | None
    name: str | None
    description: str | None
    volume_id: Uuid
    status: str
    size: int
    metadata: dict[str, str]
    group_snapshot_id: NotRequired[None]
    user_id: NotRequired[str]
    consumes_quota: NotRequired[bool]


_SnapshotPlace = TypedDict(
    "_SnapshotPlace",
    {
        "os-extended-snapshot-attributes:project_id": str,
        "os-extended-snapshot-attributes:progress": str,
    },
)


class SnapshotShown(SnapshotBrief, _SnapshotPlace):
    """A snapshot with the extended attributes."""


def brief_volume(value: Volume, context: CinderContext) -> VolumeBrief:
    """Return the view of a volume in a list without details."""
    return {
        "id": value.uuid,
        "name": value.display_name,
        "links": context.links("volumes", value.uuid),
    }


def volume(value: Volume, context: CinderContext) -> VolumeShown:
    """Return the view of a new or changed volume."""
    shown: VolumeShown = {
        "id": value.uuid,
        "status": value.marked or value.status,
        "size": value.size_gib,
        "availability_zone": value.availability_zone,
        "created_at": time(value.created_at),
        "updated_at": None if value.updated_at is None else time(value.updated_at),
        "name": value.display_name,
        "description": value.display_description,
        "volume_type": value.volume_type or DEFAULT.name,
        "snapshot_id": value.snapshot_uuid,
        "source_volid": value.source_uuid,
        "metadata": {**value.metadata, **_access(value)},
        "links": context.links("volumes", value.uuid),
        "user_id": value.user,
        "bootable": "true" if value.bootable else "false",
        "encrypted": False,
        "multiattach": False,
        "replication_status": None,
        "consistencygroup_id": None,
        "attachments": _attachments(value, context),
    }
    if context.has(13):
        shown["group_id"] = None
    if context.has(48):
        # No two volumes share a target that a host would lock.
        shown["shared_targets"] = False
        shown["service_uuid"] = service_uuid(value.host, value.backend)
    if context.has(63):
        shown["volume_type_id"] = _type_id(value)
    if context.has(65):
        shown["consumes_quota"] = True
    if context.sees_places:
        shown["migration_status"] = migration(value)
        if context.has(21):
            shown["provider_id"] = None
        if context.has(61):
            shown["cluster_name"] = None
    return shown


def detailed_volume(value: Volume, context: CinderContext) -> VolumeShown:
    """Return the view of a volume, with the facts about its image and, for operators, its place."""
    shown = volume(value, context)
    shown["os-vol-tenant-attr:tenant_id"] = value.tenant
    if value.image_metadata:
        shown["volume_image_metadata"] = dict(value.image_metadata)
    if context.sees_places:
        shown["os-vol-host-attr:host"] = place(value)
        shown["os-vol-mig-status-attr:migstat"] = migration(value)
        shown["os-vol-mig-status-attr:name_id"] = None
    return shown


def migration(value: Volume) -> str | None:
    """Return how far a volume is on its way to another backend, or how the last way ended."""
    if value.status in (Status.MAINTENANCE, Status.RETYPING):
        return "migrating"
    if value.moved is None:
        return None
    return "success" if value.moved else "error"


def _access(value: Volume) -> dict[str, str]:
    """Return the items that Cinder adds to the metadata.

    The flag appears once the owner has set the flag, or a client has attached the volume by hand;
    the mode appears as long as the volume is attached by hand.
    """
    shown = {} if value.readonly is None else {"readonly": str(value.readonly)}
    for each in value.attachments:
        if each.mode is not None:
            shown["attached_mode"] = each.mode
    return shown


def place(value: Volume) -> str:
    """Return the host, the backend and the pool of a volume, in Cinder's form."""
    return f"{service_host(value.host, value.backend)}#{value.backend}"


def service_host(host: str, backend: str) -> str:
    """Return the host of a backend's service, in Cinder's form.

    :param host: the host whose daemons alone reach the backend; empty if every host's do.
    """
    return f"{host or 'bootvol'}@{backend}"


def service_uuid(host: str, backend: str) -> str:
    """Return the uuid of a backend's service, with the parameters of :func:`service_host`."""
    return str(uuid5(NAMESPACE_OID, f"service {service_host(host, backend)}"))


def _type_id(value: Volume) -> str | None:
    """Return the uuid of a volume's type; None for a type that is gone."""
    return DEFAULT.uuid if value.volume_type is None else value.volume_type_uuid


def _attachments(value: Volume, context: CinderContext) -> list[AttachmentShown]:
    return [
        {
            "id": value.uuid,
            "attachment_id": each.uuid,
            "volume_id": value.uuid,
            "server_id": each.server_uuid or each.server_id or None,
            "host_name": each.host if context.sees_places else None,
            "device": each.device if each.attached_at else f"/dev/{each.disk}",
            "attached_at": None if each.attached_at is None else time(each.attached_at),
        }
        for each in value.attachments
    ]


def brief_snapshot(value: Snapshot) -> SnapshotBrief:
    """Return the view of a snapshot in a list without details."""
    return {
        "id": value.uuid,
        "created_at": time(value.created_at),
        "updated_at": None if value.updated_at is None else time(value.updated_at),
        "name": value.display_name,
        "description": value.display_description,
        "volume_id": value.volume_uuid,
        "status": value.marked or value.status,
        "size": value.size_gib,
        "metadata": dict(value.metadata),
    }


def snapshot(value: Snapshot, context: CinderContext) -> SnapshotBrief:
    """Return the view of a new or changed snapshot, without the extended attributes."""
    shown = brief_snapshot(value)
    if context.has(14):
        shown["group_snapshot_id"] = None
    if context.has(41):
        shown["user_id"] = value.user
    if context.has(65):
        shown["consumes_quota"] = True
    return shown


def detailed_snapshot(value: Snapshot, context: CinderContext) -> SnapshotShown:
    """Return the view of a snapshot."""
    shown: SnapshotShown = {
        **snapshot(value, context),
        "os-extended-snapshot-attributes:project_id": value.tenant,
        "os-extended-snapshot-attributes:progress": (
            value.progress or ("0%" if value.status is Status.CREATING else "100%")
        ),
    }
    return shown


def time(when: datetime) -> str:
    """Return a time in UTC in Cinder's form."""
    return when.strftime(_TIME)
