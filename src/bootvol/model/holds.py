"""Holds: the attachments that other systems manage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import attrs

from bootvol.jsons import JsonObject
from bootvol.model.routes import Route


class HoldState(StrEnum):
    """The state of a hold."""

    #: A server is to get the volume; nobody knows how to reach the volume yet.
    RESERVED = "reserved"
    #: A host knows how to reach the volume.
    ATTACHING = "attaching"
    #: The server has the volume.
    ATTACHED = "attached"


@attrs.frozen
class Hold:
    """The hold of another system on a volume, for one of its servers.

    For Nova, a hold is an attachment of Cinder's.  During a live migration a server has two holds
    on one volume, one for each host.

    :ivar instance: the server's uuid; None if the volume is for a host.
    :ivar host: the host that reaches the volume; None until known.
    :ivar mountpoint: the device name on the server; None if unknown.
    :ivar mode: ``rw`` or ``ro``; None until known.
    :ivar route: the route that the host was told; None if the host was told none for this hold.
    :ivar limits: the limits of speed that the host was told with the route, and must enforce; None
        without limits.
    :ivar attached_at: time at which the host was told the route, or got the volume.
    :ivar ours: whether bootvol itself manages the attachment (:class:`.Attachment`): then no other
        system changes it.
    """

    uuid: str
    volume_id: int
    volume_uuid: str
    tenant: str
    state: HoldState
    created_at: datetime
    instance: str | None = None
    host: str | None = None
    mountpoint: str | None = None
    mode: str | None = None
    route: Route | None = None
    limits: Mapping[str, str] | None = None
    attached_at: datetime | None = None
    ours: bool = False


@attrs.frozen
class NewHold:
    """A caller's request for a hold.

    :ivar mode: ``rw``, ``ro``, or None: then the connector decides.
    """

    volume_id: int
    instance: str | None = None
    mode: str | None = None


@attrs.frozen
class Connector:
    """A host that is to reach a volume.

    :ivar host: the host's name.
    :ivar mountpoint: the device name on the server; None if unknown.
    :ivar mode: ``rw``, ``ro`` or None.
    :ivar described: the whole description, as the other system states it.
    """

    host: str
    mountpoint: str | None
    mode: str | None
    described: JsonObject
