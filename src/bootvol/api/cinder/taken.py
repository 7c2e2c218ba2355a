"""Refusals of attachments, in Cinder's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bootvol.errors import (
    AttachmentNotFound,
    BootvolError,
    HoldProtected,
    HostTaken,
    NotFound,
    VolumeBusy,
    VolumeTaken,
)
from bootvol.lifecycle import Status


def missing(uuid: str) -> NotFound:
    """Return the error for an attachment that does not exist."""
    return NotFound(f"Volume attachment could not be found with filter: attachment_id = {uuid}.")


def protected(error: HoldProtected | HostTaken) -> BootvolError:
    """Return a refusal to take a volume away from a server or host, or to give it a second way."""
    if isinstance(error, HostTaken):
        error.message = f"duplicate connectors detected on volume {error.volume}"
    else:
        error.message = (
            "ConflictNovaUsingAttachment: Detach volume from instance"
            f" {error.instance or ''} using the Compute API"
        )
    return error


@contextmanager
def attachment(uuid: str = "") -> Iterator[None]:
    """Raise the errors of calls on an attachment in Cinder's words.

    :param uuid: the attachment's id; empty for a new attachment.
    """
    done, free = ("updated", "reserved, attaching or in-use") if uuid else ("created", "")
    try:
        yield
    except AttachmentNotFound:
        raise missing(uuid) from None
    except VolumeTaken as error:
        if error.status == Status.ERROR:
            raise VolumeBusy(
                f"Volume attachments can not be {done} if the volume is in an error state. The"
                f" Volume {error.volume} currently has a status of: error "
            ) from None
        wanted = f"{free} to attach" if uuid else "available or downloading to reserve"
        raise VolumeBusy(
            f"Volume {error.volume} status must be {wanted}, but the current status is"
            f" {error.status}."
        ) from None


@contextmanager
def worded(text: str) -> Iterator[None]:
    """Raise the refusal of a volume that is not free with other words.

    :param text: the words, with places for the ``volume`` and the ``status``.
    """
    try:
        yield
    except VolumeTaken as error:
        raise VolumeBusy(text.format(volume=error.volume, status=error.status)) from None
