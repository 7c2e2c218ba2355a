"""Errors of the storage under volumes."""

from __future__ import annotations

from collections.abc import Sequence

from bootvol.errors.base import BootvolError
from bootvol.errors.requests import InvalidRequest


class BackendFailed(BootvolError):
    """The storage backend refused or failed."""

    code = "backend-failed"
    # The failed resource may be a snapshot of a good volume.
    remedy = "Ask the operator to check the backend. Then repeat the call that failed."
    default_message = "The storage backend failed."


class BackendSilent(BackendFailed):
    """The storage backend does not answer in time.

    :param name: the backend's name.
    """

    code = "backend-silent"
    remedy = "Try again later. If the error persists, ask the operator to check the backend."

    def __init__(self, name: str) -> None:
        super().__init__(f"The backend {name} does not answer.")


class BackendInterrupted(BackendFailed):
    """The storage backend broke the work off, and takes new work at once.

    For example, a cluster has shut a client out that was taken for dead.  The work begins again,
    as after a restart of the daemon.  A backend raises this error only if nothing of the work takes
    effect later.
    """

    code = "backend-interrupted"
    remedy = (
        "Try again. If the error persists, ask the operator why the backend breaks the work off."
    )


class BackendGone(BackendFailed):
    """The backend is not in the configuration of this daemon.

    The operator may have removed or renamed the backend, or only other daemons have the backend.

    :param name: the backend's name.
    """

    code = "backend-gone"
    retryable = False
    remedy = (
        "Ask a daemon that has the backend, or have the operator put the backend back into the"
        " configuration, under the same name: the waiting work then continues."
    )

    def __init__(self, name: str) -> None:
        super().__init__(f"The backend {name} is not in the configuration of this daemon.")


class NoFittingBackend(BootvolError):
    """No backend has what the volume's type asks for.

    :param type_name: the name of the type.
    :param unmet: the extra specs of the type that the backend does not meet.
    """

    code = "no-fitting-backend"
    retryable = False
    remedy = "Name another volume type, or have the operator correct the type's extra specs."

    def __init__(self, type_name: str, unmet: Sequence[str]) -> None:
        super().__init__(
            f"No backend has what the volume type {type_name} asks for: {', '.join(unmet)}."
        )


class NoSpace(BackendFailed):
    """The backend has no room for a volume or snapshot.

    :param never_fits: whether the volume is larger than the whole store, so that no deletion makes
        enough room.
    """

    code = "no-space"
    remedy = (
        "Delete unneeded volumes and snapshots, request a smaller volume, or have the operator add"
        " space."
    )
    default_message = "The storage backend has no space left."

    def __init__(self, message: str | None = None, *, never_fits: bool = False) -> None:
        super().__init__(message)
        self.never_fits = never_fits


class FileTooLarge(BackendFailed):
    """The system or the file system allows no file as large as the volume or snapshot."""

    code = "file-too-large"
    remedy = (
        "Request a smaller volume, or have the operator raise the daemon's limit for the size of"
        " files (LimitFSIZE of systemd, ulimit -f), or take a file system for larger files."
    )
    default_message = "The storage backend may not write a file as large as the volume."


class WrongStore(BackendFailed):
    """The backend's store is missing, or is another one.

    bootvol reads, writes and deletes nothing there.
    """

    code = "wrong-store"
    remedy = (
        "Have the operator restore the store, for example mount its disk; or accept"
        " the other store with `bootvol db forget-store`, then restart the daemon."
    )
    default_message = "The storage backend has another store than the store with its volumes."


class StoreUnusable(WrongStore):
    """The backend's store is the right one, but read-only, forbidden or broken as a whole."""

    code = "store-unusable"
    remedy = (
        "Have the operator make the store usable: writable, with its owner and mode, on a sound"
        " disk. The waiting work then continues."
    )
    default_message = "The store of the storage backend cannot be used."


class VolumeMissing(BackendFailed):
    """The backend has no data of a volume or snapshot that should have data."""

    code = "volume-missing"
    retryable = False
    remedy = (
        "Have the operator look where the data went: another program or person has removed or"
        " renamed the data. To remove the record alone, delete the volume or snapshot again."
    )
    default_message = "The volume's data is missing on its backend."


class VolumeCutOff(BackendFailed):
    """A volume or snapshot is smaller on its backend than bootvol made it.

    :param called: the name for the message.
    :param size: the size in bytes that the data should have.
    """

    code = "volume-cut-off"
    retryable = False
    remedy = (
        "Have the operator look for the program or person that made the data smaller, and restore"
        " the data from a backup."
    )

    def __init__(self, called: str, size: int) -> None:
        super().__init__(f"{called} has lost bytes: the data should have {size} bytes.")


class DiskNotFound(BackendFailed):
    """The store has no disk of the name that bootvol should take over."""

    code = "disk-not-found"
    retryable = False
    remedy = "List the disks that bootvol can take over, and name one of them."
    default_message = "The store of the backend has no such disk."


class DiskNotAdoptable(BackendFailed):
    """The disk belongs to bootvol already, or is no whole disk by itself."""

    code = "disk-not-adoptable"
    retryable = False
    remedy = "Remove the obstacle in the message, or name another disk."
    default_message = "The disk cannot be taken over."


class ServiceDisabled(BackendFailed):
    """The operator has disabled the service that would make the volume."""

    code = "service-disabled"
    remedy = "Have the operator enable the service: then the work goes on. Or use another type."
    default_message = "The operator lets no new volume be made on this backend now."


class HostAway(BackendFailed):
    """No daemon runs on the only host that reaches the data.

    :param host: the host's name.
    """

    code = "host-away"
    remedy = (
        "Have the operator start the daemon of that host: then the work goes on. If the disks have"
        " moved to another host, have the operator start a daemon there, with the same backend."
    )

    def __init__(self, host: str) -> None:
        super().__init__(f"The data is on host {host}, where no daemon runs.")


class VolumeElsewhere(InvalidRequest):
    """Only another host reaches the volume.

    :param host: the host's name.
    """

    code = "volume-elsewhere"
    remedy = "Ask the daemon of that host, or use volumes and servers of one host together."

    def __init__(self, host: str) -> None:
        super().__init__(f"The volume can be reached on host {host} only.")


class VolumeInUse(BackendFailed):
    """A program that bootvol does not know, or no longer knows, has the volume open."""

    code = "volume-in-use"
    remedy = (
        "End the program that has the volume open (a guest, `bootvol volume boot`, a host program),"
        " then try again."
    )
    default_message = "A program has the volume open."


class SpoolFull(BackendFailed):
    """The spool has no room for a container during its conversion."""

    code = "spool-full"
    remedy = (
        "Have the operator free space on the disk of `[imports] spool`, or raise `spool_gib`,"
        " or use a raw image."
    )
    default_message = "The daemon has no space to convert the image."


class SpoolSilent(BackendFailed):
    """The spool did not give back a container in time, although bootvol asked several times."""

    code = "spool-silent"
    remedy = "Have the operator check the disk of `[imports] spool`, then create the volume again."
    default_message = "The daemon's disk for converting images does not answer."
