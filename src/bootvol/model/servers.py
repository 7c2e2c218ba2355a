"""Servers, their flavors and their disks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import attrs

from bootvol.errors import ErrorReport
from bootvol.lifecycle import Status
from bootvol.model.callers import PublicKey
from bootvol.model.volumes import (
    ConnectionInfo,
)

#: The boot disk of a server (specification, section B1).
ROOT: Final = "vda"


@attrs.frozen
class Flavor:
    """A size of servers that callers may ask for."""

    id: str
    name: str
    ram_mib: int
    cpus: int


@attrs.frozen
class Server:
    """A virtual machine run by bootvol.

    :ivar name: the server's name in the hypervisor, never used again for another server.
    :ivar uuid: a second id.  Clients may address the server by either id.
    :ivar flavor_id: id of the requested flavor.  ``memory_mib`` and ``cpus`` keep the flavor's
        values at the time of the request.
    :ivar daemon: the daemon whose hypervisor runs the server; None until one does.
    :ivar error: reason for the status ``error``, or for the last failed stop, start or reboot.
    :ivar updated_at: time of the last change by a caller; None if no caller has changed the server.
    :ivar key: the key pair for the guest.
    :ivar user_data: the user data for the guest, in base64.
    :ivar config_drive: whether the guest has a config drive with the key pair, the user data and
        more.
    :ivar volumes: the id and uuid of each volume, if the server was read from the database.
    :ivar request_id: the id of the request that created the server; empty if unknown.
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
    """A requested disk of a new server: an existing volume, or a new one.

    A new volume is made from a snapshot or from an image.  Without either, the new volume is blank.

    :ivar device: device name; empty for the next free name.
    :ivar size_gib: size of the new volume; None for the snapshot's size.
    :ivar volume_type: type of the new volume; None for the default type.
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
    """A caller's request for a server.

    :ivar config_drive: whether the caller requires a config drive.  A hypervisor that can provide
        one always does.
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

    :ivar device: device name without ``/dev/``.  The server boots from ``vda``.
    """

    device: str
    connection: ConnectionInfo


@attrs.frozen
class Machine:
    """The parts of a server.

    :ivar disks: the server's disks, with the boot disk first.
    :ivar files: content of the config drive by path.  An empty mapping means no drive.
    """

    memory_mib: int
    cpus: int
    disks: tuple[Disk, ...]
    files: Mapping[str, bytes] = attrs.Factory(dict)
