"""Servers, and what they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import attrs

from bootvol.errors import ErrorReport
from bootvol.lifecycle import Status
from bootvol.model.callers import PublicKey
from bootvol.model.volumes import (
    Connection,
)

#: The disk that a server boots from (HP Bootable Volume API, section 2.2: "/dev/vda").
ROOT: Final = "vda"


@attrs.frozen
class Flavor:
    """How large a server may be asked for."""

    id: str
    name: str
    ram_mib: int
    cpus: int


@attrs.frozen
class Server:
    """A virtual machine that bootvol runs.

    :ivar name: what the hypervisor knows it by; unique for ever.
    :ivar uuid: another id, by which it may be addressed as well.
    :ivar flavor_id: the flavor's that was asked for; what it meant then follows.
    :ivar daemon: the one whose hypervisor runs it; None until one does.
    :ivar error: why the status is ``error``, or why the last stop, start or reboot failed.
    :ivar updated_at: when a caller last changed it; None if never.
    :ivar key: the key pair that its guest is given.
    :ivar user_data: what its guest is given, in base64.
    :ivar config_drive: whether the guest finds these, and more, on a config drive.
    :ivar volumes: the id and uuid of each of its volumes, where it was read from the database.
    :ivar request_id: the id of the request that asked for the server; empty if unknown.
    """

    id: int
    name: str
    uuid: str
    tenant: str
    user: str
    status: Status
    created_at: datetime
    display_name: str
    flavor_id: str
    memory_mib: int
    cpus: int
    daemon: str | None = None
    error: ErrorReport | None = None
    updated_at: datetime | None = None
    metadata: Mapping[str, str] = attrs.Factory(dict)
    key: PublicKey | None = None
    user_data: str | None = None
    config_drive: bool = False
    volumes: tuple[tuple[int, str], ...] = ()
    request_id: str = ""


@attrs.frozen
class NewDisk:
    """A volume that a new server should have: one that there is, or a new one.

    A new one is made of a snapshot, of an image, or of neither: then it is blank.

    :ivar device: empty is the next free name.
    :ivar size_gib: of the new one; None is the snapshot's.
    :ivar volume_type: of the new one; None is the default.
    """

    device: str
    volume_id: int | None = None
    snapshot_id: int | None = None
    size_gib: int | None = None
    delete_on_termination: bool = False
    image_ref: str | None = None
    volume_type: str | None = None


@attrs.frozen
class NewServer:
    """What a caller asks for.

    :ivar config_drive: whether the guest must have a config drive; where one can be, it has.
    """

    display_name: str
    flavor_id: str
    disks: tuple[NewDisk, ...]
    metadata: Mapping[str, str] = attrs.Factory(dict)
    key_name: str | None = None
    user_data: str | None = None
    availability_zone: str | None = None
    config_drive: bool = False


@attrs.frozen
class Disk:
    """A volume as a server sees it.

    :ivar device: the disk's name without ``/dev/``: ``vda`` is the one that a server boots from.
    """

    device: str
    connection: Connection


@attrs.frozen
class Machine:
    """What a server is made of.

    :ivar disks: the one that it boots from comes first.
    :ivar files: what its guest finds on a config drive, by path; without any there is no drive.
    """

    memory_mib: int
    cpus: int
    disks: tuple[Disk, ...]
    files: Mapping[str, bytes] = attrs.Factory(dict)
