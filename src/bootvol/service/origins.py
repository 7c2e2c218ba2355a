"""The origins of new volumes: snapshots and other volumes, whose data they begin with."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection as Db

from bootvol.backends import Backends
from bootvol.errors import (
    ImageLargerThanVolume,
    InvalidRequest,
    SmallerThanOrigin,
    SnapshotBusy,
    VolumeBusy,
    without_query,
)
from bootvol.imaging.inspect import PLAIN, largest_container
from bootvol.lifecycle import Status
from bootvol.model import GIB, Caller, Image, NewVolume, Snapshot, Volume
from bootvol.store import attachments as attachment_rows
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows


def check_one(wanted: NewVolume) -> None:
    """Check that a request for a volume names one origin at most, and a size where needed.

    :raises InvalidRequest: if the request does not.
    """
    named = [each for each in (wanted.snapshot_id, wanted.source_id) if each is not None]
    if named and wanted.image_ref is not None:
        raise InvalidRequest("Snapshot and image cannot be specified together.")
    if len(named) > 1:
        raise InvalidRequest("Snapshot and volume cannot be specified together.")
    if wanted.size_gib is None and not named:
        raise InvalidRequest(
            "Invalid input received: Volume size 'None' must be an integer and greater than 0"
        )


def found(
    db: Db, caller: Caller, wanted: NewVolume, backends: Backends, backend: str | None
) -> tuple[Snapshot | None, Volume | None]:
    """Return the origin of a new volume, locked; Nones for a volume without one.

    :param backend: the backend of the new volume; None for the origin's.
    :raises SnapshotNotFound: if the snapshot does not exist.
    :raises VolumeNotFound: if the other volume does not exist.
    :raises SnapshotBusy: if the snapshot is not available.
    :raises VolumeBusy: if the other volume is neither available nor in use; also if the other
        volume is in use, and no clone of one moment is possible.
    :raises SmallerThanOrigin: if the new volume would be smaller than the origin.
    """
    snapshot = volume = None
    if wanted.snapshot_id is not None:
        snapshot = snapshot_rows.get(db, caller.tenant, wanted.snapshot_id, lock=True)
        if snapshot.status is not Status.AVAILABLE:
            raise SnapshotBusy("Snapshot status must be available")
        _check_size(wanted.size_gib, "snapshot", snapshot.size_gib)
    elif wanted.source_id is not None:
        volume = volume_rows.get(db, caller.tenant, wanted.source_id, lock=True)
        _check_copied(db, volume, backends, backend)
        _check_size(wanted.size_gib, "volume", volume.size_gib)
    return snapshot, volume


def _check_copied(db: Db, volume: Volume, backends: Backends, backend: str | None) -> None:
    """Check that the data of a volume can be copied as of one moment."""
    if volume.status is Status.AVAILABLE:
        if attachment_rows.is_promised(db, volume.id):
            raise VolumeBusy("Source volume status must be available or in-use")
        return
    if volume.status is not Status.IN_USE:
        raise VolumeBusy("Source volume status must be available or in-use")
    # Only a backend that clones can capture one moment of a volume that is being written to.
    clones = backends.named(volume.backend).capabilities.clones
    if backend not in (None, volume.backend) or not clones:
        raise VolumeBusy("Source volume status must be available: no clone is possible")


def host_of(backends: Backends, backend: str, origin: Snapshot | Volume | None) -> str:
    """Return the host of new data: the origin's, or this one; empty for all hosts.

    :param backend: the backend of the new data.
    """
    if origin is not None and origin.backend == backend:
        return origin.host
    host = backends.host_of(backend)
    return origin.host if origin is not None and origin.host and host else host


def _check_size(size_gib: int | None, origin: str, least: int) -> None:
    if size_gib is not None and size_gib < least:
        raise SmallerThanOrigin(size_gib, origin, least)


def image_metadata(image: Image | None, origin: Snapshot | Volume | None) -> Mapping[str, str]:
    """Return the known facts about the image of a new volume's data."""
    if image is None:
        return {} if origin is None else origin.image_metadata
    known = {
        "image_id": without_query(image.id),
        "image_name": image.name,
        "disk_format": image.format,
        "size": image.size_bytes,
        "min_disk": image.min_disk_gib,
    }
    stated = {name: str(value) for name, value in known.items() if value is not None}
    return {**image.properties, **stated}


def check_fits(image: Image, size_gib: int) -> None:
    """Check that a volume is large enough for an image, as far as the size is known.

    :raises ImageLargerThanVolume: if the volume is too small.
    """
    size, most = image.size_bytes or 0, size_gib * GIB
    if image.format not in PLAIN:
        # The image may come in a container, which may be larger than its disk.
        most = largest_container(most)
    disk = image.disk_bytes or 0
    if image.min_disk_gib > size_gib or disk > size_gib * GIB or size > most:
        raise ImageLargerThanVolume
