"""Errors in requests that copy or move volumes."""

from __future__ import annotations

from bootvol.errors.base import BootvolError
from bootvol.errors.requests import InvalidRequest, VolumeBusy


class SmallerThanOrigin(InvalidRequest):
    """The volume would be smaller than the data that it is to be made from.

    :param size: the requested size in GiB.
    :param origin: the kind of the origin.
    :param least: the size of the origin in GiB.
    :ivar size: the requested size in GiB.
    :ivar origin: the kind of the origin.
    :ivar least: the size of the origin in GiB.
    """

    code = "smaller-than-origin"
    remedy = "Ask for at least the size of the origin."

    def __init__(self, size: int, origin: str, least: int) -> None:
        self.size, self.origin, self.least = size, origin, least
        super().__init__(
            f"Invalid input received: Volume size '{size}' must not be less than the"
            f" {origin}'s, {least}"
        )


class NotLatestSnapshot(InvalidRequest):
    """A volume goes back to its latest snapshot only.

    :param exists: whether the volume has any snapshot.
    :ivar exists: whether the volume has any snapshot.
    """

    code = "not-latest-snapshot"
    remedy = "Name the latest snapshot of the volume, or make a volume from the other one."

    def __init__(self, *, exists: bool) -> None:
        self.exists = exists
        super().__init__(
            "The snapshot is not the latest one of the volume."
            if exists
            else "The volume has no snapshots."
        )


class RevertConflict(BootvolError):
    """The status of the volume or of the snapshot does not allow to go back to the snapshot."""

    code = "revert-conflict"
    retryable = False
    remedy = "Wait until the volume and the snapshot are available, then send the request again."
    default_message = "The volume and its latest snapshot must be available."


class MoveNeeded(InvalidRequest):
    """The volume would have to move to another backend, and the request does not allow that."""

    code = "move-needed"
    remedy = "Allow the move (on-demand), or ask for a type with the backend of the volume."
    default_message = "The type needs another backend, and a move is not allowed."


class VolumeHasSnapshots(VolumeBusy):
    """The volume cannot move, because its snapshots would stay behind."""

    code = "volume-has-snapshots"
    remedy = "Delete the snapshots of the volume first, or make volumes from them."
    default_message = "The volume has snapshots, which do not move."
