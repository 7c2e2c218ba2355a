"""What the API shows of the core's values: exactly the fields, types and formats of the samples."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from bootvol.errors import ErrorReport
from bootvol.model import Attachment, Connection, Golden, Image, Import, Volume
from bootvol.service.goldens import CacheUse

#: HP12: UTC, without zone and fraction (reference, section 2.3).
_CREATED: Final = "%Y-%m-%d %H:%M:%S"


def volume(value: Volume) -> dict[str, Any]:
    """Show a volume as ``os-volumes`` does (reference, section 3.1)."""
    return {
        "id": value.id,
        "displayName": value.display_name,
        "displayDescription": value.display_description,
        "status": value.status,
        "size": value.size_gib,
        "volumeType": None,
        "metadata": dict(value.metadata),
        "availabilityZone": value.availability_zone,
        "snapshotId": "",
        "createdAt": value.created_at.strftime(_CREATED),
        # Not [{}]: docs/decisions/0002-nova-details.md
        "attachments": [_attachment(each) for each in value.attachments],
    }


def bootable_volume(value: Volume) -> dict[str, Any]:
    """Show a volume as ``hp-bootable-volumes`` does: with the image it was made from."""
    return {**volume(value), "sourceImageRef": value.image_id}


def _attachment(value: Attachment) -> dict[str, Any]:
    shown = {"id": value.volume_id, "volumeId": value.volume_id, "serverId": value.server_id}
    return shown if value.device is None else {**shown, "device": value.device}


def progress(value: Import) -> dict[str, Any]:
    """Show how far an import has come."""
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
        "error": error(value.error),
    }


def error(value: ErrorReport | None) -> dict[str, Any] | None:
    """Show why a volume is in ``error``."""
    if value is None:
        return None
    return {
        "code": value.code,
        "message": value.message,
        "retryable": value.retryable,
        "remedy": value.remedy,
    }


def connection(value: Connection) -> dict[str, Any]:
    """Show how a hypervisor reaches a volume."""
    return {"kind": value.kind, "address": value.address}


def image(value: Image) -> dict[str, Any]:
    """Show an image as ``images/detail`` does, as far as bootvol knows it."""
    return {
        "id": value.id,
        "name": value.name,
        "status": "ACTIVE",
        "progress": 100,
        "minDisk": value.min_disk_gib,
        "minRam": 0,
        "OS-EXT-IMG-SIZE:size": value.size_bytes,
        "metadata": {},
        "links": [],
    }


def golden(value: Golden) -> dict[str, Any]:
    """Return a golden volume.  Beyond the reference."""
    return {
        "imageRef": value.image_id,
        "backend": value.backend,
        "name": value.name,
        "bytes": value.size,
        "hits": value.hits,
        "usedAt": datetime.fromtimestamp(value.used_at, UTC).isoformat(timespec="seconds"),
    }


def cache_use(value: CacheUse) -> dict[str, dict[str, int]]:
    """Return how often a download was spared, by backend.  Beyond the reference."""
    return {
        name: {"hits": value.hits[name], "misses": value.misses[name]}
        for name in sorted(value.hits.keys() | value.misses.keys())
    }
