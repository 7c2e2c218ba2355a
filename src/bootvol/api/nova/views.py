"""JSON views of the core's values, with the exact fields, types and formats of the samples."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, NotRequired

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

from bootvol.api.nova.links import NUMBERED, BaseUri
from bootvol.api.paging import Link
from bootvol.api.times import to_seconds
from bootvol.errors import ErrorReport, without_query
from bootvol.lifecycle import POWERING, Status
from bootvol.model import (
    LARGEST_ID,
    Attachment,
    CachedImage,
    CacheUse,
    ConnectionInfo,
    Image,
    Import,
    Phase,
    Snapshot,
    Volume,
)

#: HP's format of 2012: UTC, without zone and fraction (specification, section 2.3).
_CREATED: Final = "%Y-%m-%d %H:%M:%S"

#: Types with their schemas for :mod:`bootvol.api.nova.openapi`.
Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]
#: A number below /v1.1, elsewhere a uuid.
AnyId = Id | Annotated[str, Field(pattern="^[0-9a-f-]{36}$")]
Size = Annotated[int, Field(ge=1, le=LARGEST_ID)]
Count = Annotated[int, Field(ge=0)]
Origin = Annotated[str, Field(pattern="^([0-9]*|[0-9a-f-]{36})$")] | None
Created = Annotated[str, Field(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}$")]
Moment = Annotated[str, Field(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z$")]
Nothing = Annotated[list[str], Field(max_length=0)]
_SHOWN: Final = [str(status) for status in Status if status not in {*POWERING, Status.GONE}]
VolumeStatus = Annotated[str, WithJsonSchema({"type": "string", "enum": _SHOWN})]


class AttachmentShown(TypedDict):
    """The attachment of a volume to a server; the id of a server elsewhere may be text."""

    id: AnyId
    volumeId: AnyId
    serverId: int | str
    device: str


class VolumeShown(TypedDict):
    """A volume (specification, section 3.1)."""

    id: AnyId
    displayName: str | None
    displayDescription: str | None
    status: VolumeStatus
    size: Size
    volumeType: str | None
    metadata: dict[str, str]
    availabilityZone: str
    snapshotId: Origin
    createdAt: Created
    attachments: list[AttachmentShown]


class BootableShown(VolumeShown):
    """A volume, with its source image."""

    sourceImageRef: str


class SnapshotShown(TypedDict):
    """A snapshot (specification, section 3.4)."""

    id: AnyId
    displayName: str | None
    displayDescription: str | None
    volumeId: AnyId
    status: VolumeStatus
    size: Size
    createdAt: Created


class ErrorShown(TypedDict):
    """The reason for a failure."""

    code: str
    message: str
    retryable: bool
    remedy: str


class WarningShown(TypedDict):
    """A warning about an import that did not fail."""

    code: str
    message: str


class ImportShown(TypedDict):
    """The progress of an import."""

    phase: Phase
    position: Annotated[int, Field(ge=1)] | None
    cached: bool | None
    bytesDone: Count
    bytesTotal: Count | None
    bytesPerSecond: Count
    etaSeconds: Count | None
    attempt: Count
    warnings: list[WarningShown]
    error: ErrorShown | None


class ConnectionShown(TypedDict):
    """The address of a volume for hypervisors, and the only format to open the volume with."""

    kind: str
    address: str
    format: Literal["raw"]
    readOnly: bool


ImageShown = TypedDict(
    "ImageShown",
    {
        "id": str,
        "name": str,
        "status": Literal["ACTIVE"],
        "progress": Count,
        "minDisk": Count,
        "minRam": Count,
        "OS-EXT-IMG-SIZE:size": Count | None,
        "metadata": dict[str, str],
        "created": Moment | None,
        "updated": Moment | None,
        "links": list[Link],
    },
)


class ImageBrief(TypedDict):
    """An image in a list without details."""

    id: str
    name: str
    links: list[Link]


class GoldenShown(TypedDict):
    """A cached image (golden volume)."""

    imageRef: str
    backend: str
    name: str
    bytes: Count
    hits: Count
    usedAt: str


class UseShown(TypedDict):
    """The numbers of imports that needed no download (hits) and of those that did (misses)."""

    hits: Count
    misses: Count


class NewAttachmentShown(TypedDict):
    """A new attachment, with the id in the form of the request (specification, section 5.8)."""

    id: int | str
    volumeId: int | str


# --- whole answers -------------------------------------------------------------------------------


class Volumes(TypedDict):
    volumes: list[VolumeShown]


class OneVolume(TypedDict):
    volume: VolumeShown


class BootableVolumes(TypedDict):
    volumes: list[BootableShown]


class OneBootableVolume(TypedDict):
    volume: BootableShown


class Snapshots(TypedDict):
    snapshots: list[SnapshotShown]


class OneSnapshot(TypedDict):
    snapshot: SnapshotShown


class Attachments(TypedDict):
    volumeAttachments: list[AttachmentShown]


class OneAttachment(TypedDict):
    volumeAttachment: AttachmentShown


class OneNewAttachment(TypedDict):
    volumeAttachment: NewAttachmentShown


OneImport = TypedDict("OneImport", {"import": ImportShown})


class OneError(TypedDict):
    error: ErrorShown | None


class OneConnection(TypedDict):
    connection: ConnectionShown


class Images(TypedDict):
    images: list[ImageBrief]
    images_links: NotRequired[list[Link]]


class ImagesInDetail(TypedDict):
    images: list[ImageShown]
    images_links: NotRequired[list[Link]]


class OneImage(TypedDict):
    image: ImageShown


class Goldens(TypedDict):
    goldenVolumes: list[GoldenShown]
    use: dict[str, UseShown]


def volume(value: Volume, base: BaseUri) -> VolumeShown:
    """Return the view of a volume for ``os-volumes`` (specification, sections 3.1 and 8)."""
    origin = "" if base.version == NUMBERED else None
    if value.snapshot_id is not None:
        origin = str(base.id(value.snapshot_id, value.snapshot_uuid or ""))
    return {
        "id": base.id(value.id, value.uuid),
        "displayName": value.display_name,
        "displayDescription": value.display_description,
        "status": value.status,
        "size": value.size_gib,
        "volumeType": value.volume_type,
        "metadata": dict(value.metadata),
        "availabilityZone": value.availability_zone,
        "snapshotId": origin,
        "createdAt": value.created_at.strftime(_CREATED),
        # Not [{}]: docs/decisions/0002-nova-details.md
        "attachments": [attachment(each, base) for each in value.attachments],
    }


def bootable_volume(value: Volume, base: BaseUri) -> BootableShown:
    """Return the view of a volume for ``hp-bootable-volumes``, with the source image."""
    return {**volume(value, base), "sourceImageRef": value.image_id or ""}


def snapshot(value: Snapshot, base: BaseUri) -> SnapshotShown:
    """Return the view of a snapshot (specification, section 3.4)."""
    return {
        "id": base.id(value.id, value.uuid),
        "displayName": value.display_name,
        "displayDescription": value.display_description,
        "volumeId": base.id(value.volume_id, value.volume_uuid),
        "status": value.status,
        "size": value.size_gib,
        "createdAt": value.created_at.strftime(_CREATED),
    }


def attachment(value: Attachment, base: BaseUri) -> AttachmentShown:
    """Return the view of an attachment (specification, section 3.1)."""
    volume_id = base.id(value.volume_id, value.volume_uuid)
    return {
        "id": volume_id,
        "volumeId": volume_id,
        "serverId": _server(value, base),
        "device": value.device,
    }


def _server(value: Attachment, base: BaseUri) -> int | str:
    """Return the id of an attachment's server; if another service runs the server, its own id."""
    named = value.server_id
    number = int(named) if named.isdecimal() and len(named) < 19 else None
    if base.version == NUMBERED:
        return named if number is None else number
    return value.server_uuid or named


def progress(value: Import) -> ImportShown:
    """Return the view of an import's progress."""
    left = None if value.bytes_total is None else max(0, value.bytes_total - value.bytes_done)
    known = left is not None and (value.bytes_per_second or not left)
    return {
        "phase": value.phase,
        "position": value.position,
        "cached": value.cached,
        "bytesDone": value.bytes_done,
        "bytesTotal": value.bytes_total,
        "bytesPerSecond": value.bytes_per_second,
        "etaSeconds": -(-(left or 0) // max(1, value.bytes_per_second)) if known else None,
        "attempt": value.attempt,
        "warnings": [{"code": each.code, "message": each.message} for each in value.warnings],
        "error": error(value.error),
    }


def error(value: ErrorReport | None) -> ErrorShown | None:
    """Return the view of an error."""
    if value is None:
        return None
    return {
        "code": value.code,
        "message": value.message,
        "retryable": value.retryable,
        "remedy": value.remedy,
    }


def connection(value: ConnectionInfo) -> ConnectionShown:
    """Return the view of a volume's address for hypervisors."""
    return {
        "kind": value.kind,
        "address": value.address,
        "format": "raw",
        "readOnly": value.read_only,
    }


def image(value: Image, base: BaseUri) -> ImageShown:
    """Return the view of an image for ``images/detail``, as far as bootvol knows the values."""
    changed = None
    if value.changed_at is not None:
        changed = to_seconds(value.changed_at)
    return {
        "id": value.id,
        "name": value.name,
        "status": "ACTIVE",
        "progress": 100,
        "minDisk": value.min_disk_gib,
        "minRam": 0,
        "OS-EXT-IMG-SIZE:size": value.size_bytes,
        "metadata": {},
        # Libcloud demands the keys, even with unknown values. Nova always shows them, too.
        "created": changed,
        "updated": changed,
        "links": base.links("images", value.id),
    }


def brief_image(value: Image, base: BaseUri) -> ImageBrief:
    """Return the view of an image in a list without details."""
    return {"id": value.id, "name": value.name, "links": base.links("images", value.id)}


def cached_image(value: CachedImage) -> GoldenShown:
    """Return the view of a golden volume.  An addition to the specification."""
    return {
        "imageRef": without_query(value.image_id),
        "backend": value.backend,
        "name": value.name,
        "bytes": value.size,
        "hits": value.hits,
        "usedAt": datetime.fromtimestamp(value.used_at, UTC).isoformat(timespec="seconds"),
    }


def cache_use(value: CacheUse) -> dict[str, UseShown]:
    """Return the cache's hits and misses by backend.  An addition to the specification."""
    return {
        name: {"hits": value.hits[name], "misses": value.misses[name]}
        for name in sorted(value.hits.keys() | value.misses.keys())
    }
