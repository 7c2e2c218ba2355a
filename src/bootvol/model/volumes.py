"""Volumes and snapshots, and what callers ask for of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import uuid4

import attrs

from bootvol.errors import ErrorReport
from bootvol.lifecycle import Status

GIB: Final = 1024**3


#: The largest id that a database may ever have given.
LARGEST_ID: Final = 2**31 - 1


def new_uuid() -> str:
    """Return a uuid that nothing else has."""
    return str(uuid4())


@attrs.frozen
class Attachment:
    """A volume's place in a server (a virtual machine).

    :ivar server_id: the server's; digits where bootvol runs it itself.
    :ivar device: as the caller named it, with or without ``/dev/``.
    :ivar delete_on_termination: whether the volume goes with the server.
    :ivar volume_uuid: the volume's uuid, where the attachment was read from the database.
    :ivar server_uuid: the server's uuid; None where others run the server.
    """

    volume_id: int
    server_id: str
    device: str
    delete_on_termination: bool = False
    volume_uuid: str = ""
    server_uuid: str | None = None

    @property
    def disk(self) -> str:
        """The device's name without ``/dev/``."""
        return self.device.removeprefix("/dev/")


@attrs.frozen
class Volume:
    """A volume as its row says.

    :ivar name: what backends know it by; unique for ever, so never the id (an id may come
        again with a new database).
    :ivar image_id: the image it was created from; a volume is bootable if and only if it has one.
    :ivar snapshot_id: the snapshot it was made from, which may be gone by now.
    :ivar volume_type: the name of the type it was made as, which may be gone by now.
    :ivar error: why the status is ``error``, or why the last attaching or detaching failed.
    :ivar uuid: another id, by which later versions of the API know the volume.
    :ivar snapshot_uuid: the uuid of the snapshot it was made from.
    :ivar request_id: the id of the request that asked for the volume; empty if unknown.
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

    @property
    def size_bytes(self) -> int:
        """The volume's size in bytes."""
        return self.size_gib * GIB


@attrs.frozen
class Snapshot:
    """What a volume held at one moment.

    :ivar name: of the hidden volume on the backend that holds it.
    :ivar volume_id: the volume it was made of, which may be gone by now.
    :ivar uuid: another id, by which later versions of the API know the snapshot.
    :ivar volume_uuid: the uuid of the volume.
    :ivar request_id: the id of the request that asked for the snapshot; empty if unknown.
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

    @property
    def size_bytes(self) -> int:
        """The snapshot's size in bytes."""
        return self.size_gib * GIB


@attrs.frozen
class NewSnapshot:
    """What a caller asks for."""

    volume_id: int
    display_name: str | None = None
    display_description: str | None = None
    force: bool = False


@attrs.frozen
class NewVolume:
    """What a caller asks for; everything else of a volume is the service's to say.

    :ivar size_gib: may be left out where there is a snapshot.
    :ivar volume_type: the name of a type; None leaves the backend to the service.
    """

    size_gib: int | None
    image_ref: str | None = None
    snapshot_id: int | None = None
    volume_type: str | None = None
    display_name: str | None = None
    display_description: str | None = None
    availability_zone: str | None = None
    metadata: Mapping[str, str] = attrs.Factory(dict)


@attrs.frozen
class VolumeType:
    """A kind of volume that callers ask for by its name.

    :ivar extra_specs: what operators say of it; ``volume_backend_name`` names its backend.
    """

    id: int
    name: str
    extra_specs: Mapping[str, str]


@attrs.frozen
class Usage:
    """What a tenant has of that which quotas limit."""

    volumes: int
    gigabytes: int


@attrs.frozen
class Connection:
    """How a hypervisor on the backend's side reaches a volume.

    A volume's bytes are its disk's, from the first on.  A guest may write there what looks like the
    header of another format: a program that opens a volume states the format ``raw``, and never
    has the bytes probed.

    :ivar kind: ``file`` or ``block`` (``address`` is an absolute path); ``nbd`` (``address`` is a
        URI: ``nbd+unix:///NAME?socket=PATH`` or ``nbds://HOST:PORT/NAME``); ``rbd`` (``address`` is
        what QEMU takes for a file name: ``rbd:POOL/NAMESPACE/IMAGE:id=USER:conf=PATH``).
    """

    kind: str
    address: str
