"""The origins of new volumes in Cinder's dialect: snapshots and other volumes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from bootvol.api.cinder.bodies import CreateVolume
from bootvol.api.cinder.context import CinderContext
from bootvol.errors import InvalidRequest, NotFound, SmallerThanOrigin, SnapshotBusy, VolumeBusy
from bootvol.lifecycle import Status


@attrs.frozen
class Origin:
    """The snapshot or volume that a new volume is made from; Nones without an origin."""

    snapshot: int | None = None
    volume: int | None = None

    @property
    def is_known(self) -> bool:
        """True if the new volume has an origin, and with it a size."""
        return self.snapshot is not None or self.volume is not None


async def of_body(context: CinderContext, body: CreateVolume) -> Origin:
    """Return the origin that a create request names.

    :raises NotFound: if the snapshot or volume does not exist, or for a backup or a group: the API
        has none.
    :raises InvalidRequest: if the body names several origins.
    """
    origins = (body.snapshot_id, body.source_volid, body.backup_id, body.image)
    snapshot = volume = None
    if body.snapshot_id is not None:
        snapshot = await context.row("snapshots", body.snapshot_id)
    if body.source_volid is not None:
        volume = await context.row("volumes", body.source_volid)
    for kind, named in (
        ("Backup", body.backup_id),
        ("Group", body.group_id),
        ("Group", body.consistencygroup_id),
    ):
        if named is not None:
            raise NotFound(f"{kind} {named} could not be found.")
    if len([each for each in origins if each is not None]) > 1:
        raise InvalidRequest(
            "Invalid input received: May specify only one of backup, imageRef, snapshot, source"
            " volume"
        )
    return Origin(snapshot, volume)


@asynccontextmanager
async def reworded(context: CinderContext, origin: Origin) -> AsyncIterator[None]:
    """Raise the refusals of an origin in Cinder's words."""
    try:
        yield
    except SmallerThanOrigin as error:
        raise InvalidRequest(_too_small(error)) from error
    except SnapshotBusy:
        raise SnapshotBusy(
            "Originating snapshot status must be one of 'available' values"
        ) from None
    except VolumeBusy:
        if origin.volume is None:
            raise
        source = await context.services.volumes.get(context.caller, origin.volume)
        # A volume in use was refused because its backend cannot clone it.
        able = "available" if source.status is Status.IN_USE else "available, in-use"
        raise VolumeBusy(
            f"Originating source volume status must be one of '{able}' values"
        ) from None


def _too_small(error: SmallerThanOrigin) -> str:
    # The two blanks are Cinder's.
    origin = "the snapshot size " if error.origin == "snapshot" else "original volume size  "
    return (
        f"Invalid input received: Volume size '{error.size}'GB cannot be smaller than"
        f" {origin}{error.least}GB. They must be >= original {error.origin} size."
    )
