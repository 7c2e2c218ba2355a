"""Volumes, snapshots and attachments, and the requests for them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import uuid4

import attrs

from bootvol.errors import ErrorReport
from bootvol.lifecycle import Status

GIB: Final = 1024**3


#: The largest id that any database may have assigned.
LARGEST_ID: Final = 2**31 - 1


def new_uuid() -> str:
    """Return a new unique UUID."""
    return str(uuid4())


@attrs.frozen
class Attachment:
    """The place of a volume in a server (a virtual machine).

    :ivar server_id: the server's id; digits if bootvol itself runs the server.
    :ivar device: device name from the caller, with or without ``/dev/``.
    :ivar delete_on_termination: whether bootvol deletes the volume with the server.
    :ivar volume_uuid: the volume's uuid, if the attachment was read from the database.
    :ivar server_uuid: the server's uuid; None if bootvol does not run the server.
    :ivar uuid: the attachment's own id.
    :ivar host: the host with the volume, if another system manages the attachment (:class:`.Hold`).
    :ivar attached_at: time of the attaching, if another system manages the attachment.
    :ivar mode: ``rw`` or ``ro``, if a client has attached the volume by hand; otherwise None.
    """

    volume_id: int
    server_id: str
    device: str
    delete_on_termination: bool = False
    volume_uuid: str = ""
    server_uuid: str | None = None
    uuid: str = attrs.field(factory=new_uuid)
    host: str | None = None
    attached_at: datetime | None = None
    mode: str | None = None

    @property
    def disk(self) -> str:
        """The device name without ``/dev/``."""
        return self.device.removeprefix("/dev/")


@attrs.frozen
class Volume:
    """A volume as stored in the database.

    :ivar name: the volume's name on its backend, never used again.  An id would not do: a new
        database starts its ids anew.
    :ivar image_id: the image that the volume was created from.
    :ivar snapshot_id: the snapshot that the volume was made from.  The snapshot may be deleted by
        now.
    :ivar volume_type: name of the volume's type.  The type may be deleted by now.
    :ivar error: reason for the status ``error``, or for the last failed attach or detach.
    :ivar uuid: a second id, used by later versions of the API.
    :ivar snapshot_uuid: uuid of the snapshot that the volume was made from.
    :ivar readonly: whether servers may only read the volume; None until the owner has said so.
    :ivar source_id: the volume that the volume was made from.  The other volume may be deleted by
        now.
    :ivar source_uuid: uuid of the volume that the volume was made from.
    :ivar updated_at: time of the last change by a caller or of the status; None without a change.
    :ivar request_id: id of the request that created the volume; empty if unknown.
    :ivar host: the host whose daemons alone reach the volume; empty if every host's daemons do.
    :ivar bootable: whether a server can boot from the volume, according to the owner.
    :ivar image_metadata: the known facts about the image of the volume's data.
    :ivar target_gib: the new size in GiB while the volume becomes larger, or is being taken over;
        otherwise None.
    :ivar place: name in the backend's store of the disk that becomes the volume; None once the disk
        has been taken over, and for all other volumes.
    :ivar moved: whether the last move to another backend succeeded; None without a move.
    :ivar volume_type_uuid: uuid of the volume's type, if the volume was read from the database for
        a caller, and if the type still exists.
    :ivar marked: what callers see instead of the status, if an operator has said so.
    """

    id: int
    name: str
    tenant: str
    user: str
    size_gib: int
    status: Status
    created_at: datetime
    availability_zone: str
    backend: str
    image_id: str | None = None
    snapshot_id: int | None = None
    volume_type: str | None = None
    display_name: str | None = None
    display_description: str | None = None
    metadata: Mapping[str, str] = attrs.Factory(dict)
    attachments: tuple[Attachment, ...] = ()
    error: ErrorReport | None = None
    uuid: str = attrs.field(factory=new_uuid)
    snapshot_uuid: str | None = None
    request_id: str = ""
    host: str = ""
    updated_at: datetime | None = None
    bootable: bool = False
    image_metadata: Mapping[str, str] = attrs.Factory(dict)
    target_gib: int | None = None
    source_id: int | None = None
    source_uuid: str | None = None
    readonly: bool | None = None
    moved: bool | None = None
    volume_type_uuid: str | None = None
    marked: str | None = None
    place: str | None = None

    @property
    def size_bytes(self) -> int:
        """The volume's size in bytes."""
        return self.size_gib * GIB


@attrs.frozen
class Snapshot:
    """The content of a volume at one moment.

    :ivar name: name of the hidden volume on the backend that holds the content.
    :ivar volume_id: id of the original volume.  The volume may be deleted by now.
    :ivar uuid: a second id, used by later versions of the API.
    :ivar volume_uuid: uuid of the original volume.
    :ivar request_id: id of the request that created the snapshot; empty if unknown.
    :ivar host: the host whose daemons alone reach the content; empty if every host's daemons do.
    :ivar bootable: whether the original volume was bootable.
    :ivar image_metadata: the known facts about the image of the original volume's data.
    :ivar updated_at: time of the last change by a caller or of the status; None without a change.
    :ivar marked: what callers see instead of the status, if an operator has said so.
    :ivar progress: the progress that another program has reported, such as ``80%``.
    :ivar place: name in the backend's store of the disk, or of the snapshot within the volume's
        disk, that becomes the snapshot; as for volumes.
    """

    id: int
    name: str
    tenant: str
    user: str
    volume_id: int
    size_gib: int
    status: Status
    created_at: datetime
    backend: str
    display_name: str | None = None
    display_description: str | None = None
    error: ErrorReport | None = None
    uuid: str = attrs.field(factory=new_uuid)
    volume_uuid: str = ""
    request_id: str = ""
    host: str = ""
    updated_at: datetime | None = None
    metadata: Mapping[str, str] = attrs.Factory(dict)
    bootable: bool = False
    image_metadata: Mapping[str, str] = attrs.Factory(dict)
    marked: str | None = None
    progress: str | None = None
    place: str | None = None

    @property
    def size_bytes(self) -> int:
        """The snapshot's size in bytes."""
        return self.size_gib * GIB


@attrs.frozen
class NewSnapshot:
    """A caller's request for a snapshot."""

    volume_id: int
    display_name: str | None = None
    display_description: str | None = None
    force: bool = False
    metadata: Mapping[str, str] = attrs.Factory(dict)


@attrs.frozen
class NewVolume:
    """A caller's request for a volume.  The service decides everything else.

    :ivar size_gib: size in GiB; optional if the request names a snapshot or another volume.
    :ivar source_id: another volume, whose data the volume begins with.
    :ivar volume_type: name of a volume type.  With None the service chooses the backend.
    """

    size_gib: int | None
    image_ref: str | None = None
    snapshot_id: int | None = None
    volume_type: str | None = None
    display_name: str | None = None
    display_description: str | None = None
    availability_zone: str | None = None
    metadata: Mapping[str, str] = attrs.Factory(dict)
    source_id: int | None = None


@attrs.frozen
class VolumeType:
    """A kind of volume that callers choose by name.

    :ivar extra_specs: settings by the operator.  ``volume_backend_name`` names the type's backend.
    :ivar uuid: a second id, used by later versions of the API.
    :ivar is_public: False if only some tenants may see and use the type.
    :ivar qos: the id of the type's limits of speed; None for no limits.
    """

    id: int
    name: str
    extra_specs: Mapping[str, str]
    uuid: str
    description: str | None = None
    is_public: bool = True
    qos: str | None = None


class Consumer(StrEnum):
    """The side that must enforce limits of speed."""

    #: The hypervisor.
    FRONT_END = "front-end"
    #: The storage.
    BACK_END = "back-end"
    BOTH = "both"


@attrs.frozen
class QosSpecs:
    """Limits of speed for the volumes of some types.  bootvol hands the limits to hypervisors.

    :ivar specs: the limits by their names, as the operator wrote them.
    """

    id: int
    uuid: str
    name: str
    consumer: Consumer
    specs: Mapping[str, str]


@attrs.frozen
class Transfer:
    """The offer of a volume to another tenant.

    :ivar tenant: the offering tenant.
    :ivar key_hash: hash of the key that the taker shows.
    :ivar no_snapshots: whether the volume's snapshots stay with the offering tenant.
    """

    uuid: str
    volume_id: int
    volume_uuid: str
    tenant: str
    name: str | None
    key_hash: str
    created_at: datetime
    no_snapshots: bool = False


@attrs.frozen
class Usage:
    """A tenant's usage of the resources under quota."""

    volumes: int
    gigabytes: int


@attrs.frozen
class ConnectionInfo:
    """The route of a hypervisor on the backend's side to a volume.

    A volume holds exactly the bytes of its disk.  A guest may write bytes that look like the header
    of another format.  So a program that opens a volume states the format ``raw`` and never probes.

    :ivar kind: ``file`` or ``block`` (``address`` is an absolute path); ``nbd`` (``address`` is a
        URI: ``nbd+unix:///NAME?socket=PATH`` or ``nbds://HOST:PORT/NAME``); ``rbd`` (``address`` is
        a file name for QEMU: ``rbd:POOL/NAMESPACE/IMAGE:id=USER:conf=PATH``).
    :ivar read_only: whether the guest may only read the volume.  Backends leave this out.
    """

    kind: str
    address: str
    read_only: bool = False
