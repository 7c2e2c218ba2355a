"""Errors about the use of volumes by servers of other systems."""

from __future__ import annotations

from bootvol.errors.base import BootvolError
from bootvol.errors.requests import InvalidRequest, VolumeBusy


class VolumeTaken(VolumeBusy):
    """The volume's status does not allow that another server gets the volume.

    :param volume: the volume's uuid.
    :param status: the volume's status.
    """

    code = "volume-taken"
    remedy = "Detach the volume from its server first, or use another volume."

    def __init__(self, volume: str, status: str) -> None:
        super().__init__(f"Volume {volume} is {status}: nobody else can have it now.")
        self.volume = volume
        self.status = status


class VolumeCopied(VolumeBusy):
    """No server may write to the volume now, because the volume is being copied."""

    code = "volume-copied"
    remedy = "Wait until the copies of the volume are available, then send the request again."
    default_message = "The volume is being copied, so no server can have it yet."


class VolumeReadOnly(InvalidRequest):
    """The owner allows servers to read the volume only."""

    code = "volume-read-only"
    remedy = "Attach the volume in the mode ro, or have the owner allow writes."

    def __init__(self, volume: str) -> None:
        super().__init__(f"Volume {volume} is for reading only.")
        self.volume = volume


class HoldProtected(BootvolError):
    """A server may use the volume, and only the service of that server may take the volume away.

    :param instance: the server's uuid; None if several servers may use the volume.
    """

    code = "attachment-protected"
    retryable = False
    remedy = "Detach the volume from the server, by the service that runs the server."

    def __init__(self, instance: str | None) -> None:
        super().__init__(f"Server {instance or ''} may use the volume: detach the volume there.")
        self.instance = instance


class HostTaken(BootvolError):
    """The host has the volume already, by another attachment.

    :param volume: the volume's uuid.
    """

    code = "host-taken"
    retryable = False
    remedy = "Delete the host's other attachment of the volume first."

    def __init__(self, volume: str) -> None:
        super().__init__(f"The host has volume {volume} already, by another attachment.")
        self.volume = volume


class NoRoute(InvalidRequest):
    """The volume's backend names no route for hosts of other systems."""

    code = "no-route"
    remedy = (
        "Use a volume on another backend, or attach the volume by the API of bootvol's servers."
    )
    default_message = "Hosts of other systems cannot reach volumes on this backend."
