"""The rules of holds, within a transaction that has locked the volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection as Db

from bootvol.backends import Backends
from bootvol.errors import HoldProtected, InvalidRequest, VolumeCopied, VolumeTaken
from bootvol.lifecycle import HELD, MAKING, Status
from bootvol.model import Caller, Consumer, Hold, Volume
from bootvol.store import attachments as attachment_rows
from bootvol.store import holds, qos_specs
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows

#: The most holds on one volume: more than any move of a server needs.
MOST: Final = 16


def locked(
    db: Db, caller: Caller, volume_id: int, *, lock: bool = True, taking: bool = False
) -> tuple[Volume, Sequence[Hold]]:
    """Return a volume and its holds; nobody else changes them until the transaction ends.

    :param lock: False in a transaction that only reads: then others may change them.
    :param taking: whether the caller wants the volume for another server.
    :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
    :raises HoldProtected: if bootvol itself attaches the volume to a server.
    :raises VolumeTaken: instead, with ``taking``.
    """
    volume = volume_rows.get(db, caller.tenant, volume_id, lock=lock)
    ours = attachment_rows.find(db, volume_id)
    if ours is not None:
        if taking:
            held = volume.status if volume.status in HELD else Status.RESERVED
            raise VolumeTaken(volume.uuid, held)
        raise HoldProtected(ours.server_uuid or ours.server_id)
    return volume, holds.of_volume(db, volume_id)


def check_free_for(volume: Volume, found: Sequence[Hold], instance: str | None) -> None:
    """Check whether a server may reserve a volume.

    A server with the volume may reserve the volume once more: for its move to another host, say.

    :param found: the present holds.
    :raises VolumeTaken: if the volume is not free.
    :raises InvalidRequest: if the volume has too many holds.
    """
    theirs = instance is not None and any(each.instance == instance for each in found)
    of_image = volume.status in MAKING and volume.image_id is not None
    if volume.status is Status.AVAILABLE or (of_image and not found):
        return
    again = volume.status in (Status.IN_USE, Status.RESERVED) or of_image
    if not (again and theirs):
        # The image is still coming, but a server is to get the volume already.
        raise VolumeTaken(volume.uuid, Status.RESERVED if of_image else volume.status)
    if len(found) >= MOST:
        raise InvalidRequest(f"Volume {volume.uuid} has {MOST} attachments already.")


def check_reachable(db: Db, backends: Backends, volume: Volume) -> None:
    """Check whether a host may reach a volume, and write to the volume.

    :raises VolumeTaken: if the volume's status does not allow so.
    :raises VolumeCopied: if a copy needs the volume at rest.
    :raises BackendGone: if the backend is not configured any more.
    """
    if volume.status not in holds.FOLLOWING:
        raise VolumeTaken(volume.uuid, volume.status)
    # A backend that clones captures one moment of a volume, also while a server writes.
    clones = backends.clones(volume.backend)
    if not clones and snapshot_rows.are_made(db, volume.id):
        raise VolumeCopied
    if volume_rows.is_copied(db, volume.id, beside=volume.backend if clones else None):
        raise VolumeCopied


def limits(db: Db, volume: Volume) -> Mapping[str, str] | None:
    """Return the limits of speed that a host of a volume must enforce; None without limits."""
    found = None if volume.volume_type is None else qos_specs.of_type(db, volume.volume_type)
    if found is None or found.consumer is Consumer.BACK_END:
        return None
    return found.specs


def check_freeable(hold: Hold, *, trusted: bool) -> None:
    """Check whether a caller may end a hold (CVE-2023-2088).

    :param trusted: whether the caller speaks for the service that runs the servers.
    :raises HoldProtected: if a server may use the volume.
    """
    in_use = hold.instance is not None and hold.route is not None
    if hold.ours or (in_use and not trusted):
        raise HoldProtected(hold.instance)
