"""The table of statuses and events of volumes, snapshots and servers.

A bootable volume goes from creating through downloading to available, from available to deleting,
and from any status to error if an operation fails (specification, section B2).  A volume without an
image goes from creating to available.  Clients may also delete a volume during its creation; this
cancels the import.  ``attaching`` and ``detaching`` come from Nova's later releases (specification,
section 3.3).

Snapshots and servers use the same table, without downloading and attaching.  Nova's ``BUILD``
stands for a server in creating.  Nova's ``ACTIVE`` or ``SHUTOFF`` stands for a server in available,
depending on whether the server runs.  An available server may be stopped, started and rebooted, and
then becomes available again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The kinds of objects that have a status."""

    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    SERVER = "server"


class Status(StrEnum):
    """The ``status`` of a volume in the API. ``GONE`` is never shown: the row no longer exists."""

    CREATING = "creating"
    DOWNLOADING = "downloading"
    AVAILABLE = "available"
    RESERVED = "reserved"
    ATTACHING = "attaching"
    IN_USE = "in-use"
    EXTENDING = "extending"
    OFFERED = "awaiting-transfer"
    UPLOADING = "uploading"
    REVERTING = "reverting"
    RESTORING = "restoring"
    RETYPING = "retyping"
    MAINTENANCE = "maintenance"
    DETACHING = "detaching"
    DELETING = "deleting"
    GIVING_UP = "unmanaging"
    ERROR = "error"
    STOPPING = "stopping"
    STARTING = "starting"
    REBOOTING = "rebooting"
    RESETTING = "resetting"
    GONE = "gone"


class Event(StrEnum):
    """An event in the life of a volume, snapshot or server."""

    DOWNLOAD = "download"
    COMPLETE = "complete"
    ATTACH = "attach"
    RESERVE = "reserve"
    CONNECT = "connect"
    ATTACHED = "attached"
    DETACH = "detach"
    DETACHED = "detached"
    EXTEND = "extend"
    EXTENDED = "extended"
    OFFER = "offer"
    SETTLE = "settle"
    UPLOAD = "upload"
    UPLOADED = "uploaded"
    REVERT = "revert"
    COPY_BACK = "copy-back"
    RETYPE = "retype"
    MIGRATE = "migrate"
    REPLACED = "replaced"
    REIMAGE = "reimage"
    DELETE = "delete"
    GIVE_UP = "give-up"
    VANISH = "vanish"
    FAIL = "fail"
    STOP = "stop"
    START = "start"
    REBOOT = "reboot"
    RESET = "reset"
    RESTORE = "restore"
    POWERED = "powered"


TRANSITIONS: Final[Mapping[Status, Mapping[Event, Status]]] = {
    Status.CREATING: {
        Event.DOWNLOAD: Status.DOWNLOADING,
        Event.COMPLETE: Status.AVAILABLE,
        Event.DELETE: Status.DELETING,
        Event.FAIL: Status.ERROR,
    },
    Status.DOWNLOADING: {
        # An import that resumes after the end of its daemon is downloading already.
        Event.DOWNLOAD: Status.DOWNLOADING,
        Event.COMPLETE: Status.AVAILABLE,
        Event.DELETE: Status.DELETING,
        Event.FAIL: Status.ERROR,
    },
    Status.AVAILABLE: {
        Event.ATTACH: Status.ATTACHING,
        Event.RESERVE: Status.RESERVED,
        Event.CONNECT: Status.ATTACHING,
        Event.EXTEND: Status.EXTENDING,
        Event.OFFER: Status.OFFERED,
        Event.UPLOAD: Status.UPLOADING,
        Event.REVERT: Status.REVERTING,
        Event.COPY_BACK: Status.RESTORING,
        Event.RETYPE: Status.RETYPING,
        Event.MIGRATE: Status.MAINTENANCE,
        Event.REIMAGE: Status.DOWNLOADING,
        Event.DELETE: Status.DELETING,
        Event.GIVE_UP: Status.GIVING_UP,
        Event.FAIL: Status.ERROR,
        Event.STOP: Status.STOPPING,
        Event.START: Status.STARTING,
        Event.REBOOT: Status.REBOOTING,
        Event.RESET: Status.RESETTING,
    },
    # Another system holds the volume for a server (see bootvol.service.holding).  The next three
    # statuses follow such holds as they come and go, too.
    Status.RESERVED: {
        Event.REIMAGE: Status.DOWNLOADING,
        Event.CONNECT: Status.ATTACHING,
        Event.ATTACHED: Status.IN_USE,
        Event.DETACHED: Status.AVAILABLE,
    },
    # After a failed attach the volume is available again, and stores the reason.
    Status.ATTACHING: {
        Event.ATTACHED: Status.IN_USE,
        Event.DETACHED: Status.AVAILABLE,
        Event.RESERVE: Status.RESERVED,
    },
    # After a failure without a change the volume is as before, and stores the reason.  A volume of
    # a server follows the attachment, which may have ended meanwhile.
    Status.EXTENDING: {
        Event.EXTENDED: Status.AVAILABLE,
        Event.ATTACHED: Status.IN_USE,
        Event.CONNECT: Status.ATTACHING,
        Event.RESERVE: Status.RESERVED,
        Event.FAIL: Status.ERROR,
    },
    # The volume itself stays as it is. After a failure the volume stores the reason.
    Status.UPLOADING: {
        Event.UPLOADED: Status.AVAILABLE,
        Event.FAIL: Status.ERROR,
    },
    **{
        # A replacement of the volume's data is made.  After a failure without a change the volume
        # is available again, and stores the reason.  A snapshot is restoring meanwhile.
        status: {Event.REPLACED: Status.AVAILABLE, Event.FAIL: Status.ERROR}
        for status in (Status.REVERTING, Status.RESTORING, Status.RETYPING, Status.MAINTENANCE)
    },
    # The taker has accepted the volume, or the giver has withdrawn the offer.
    Status.OFFERED: {
        Event.SETTLE: Status.AVAILABLE,
        Event.FAIL: Status.ERROR,
    },
    Status.IN_USE: {
        Event.EXTEND: Status.EXTENDING,
        Event.DETACH: Status.DETACHING,
        # The server was deleted.
        Event.DETACHED: Status.AVAILABLE,
        Event.RESERVE: Status.RESERVED,
        Event.CONNECT: Status.ATTACHING,
    },
    Status.DETACHING: {
        Event.DETACHED: Status.AVAILABLE,
        # The server did not release the volume.
        Event.ATTACHED: Status.IN_USE,
        Event.RESERVE: Status.RESERVED,
        Event.CONNECT: Status.ATTACHING,
    },
    Status.DELETING: {
        Event.VANISH: Status.GONE,
        Event.FAIL: Status.ERROR,
    },
    # The data stays on the backend, and the row goes.
    Status.GIVING_UP: {
        Event.VANISH: Status.GONE,
        Event.FAIL: Status.ERROR,
    },
    Status.ERROR: {
        Event.REIMAGE: Status.DOWNLOADING,
        Event.DELETE: Status.DELETING,
        Event.GIVE_UP: Status.GIVING_UP,
        Event.FAIL: Status.ERROR,
        # An operator has found the data good.
        Event.RESTORE: Status.AVAILABLE,
    },
    **{
        # Whether the server runs is never stored: its hypervisor knows.
        status: {
            Event.POWERED: Status.AVAILABLE,
            Event.DELETE: Status.DELETING,
            Event.FAIL: Status.ERROR,
        }
        for status in (Status.STOPPING, Status.STARTING, Status.REBOOTING, Status.RESETTING)
    },
    Status.GONE: {},
}

#: The statuses of an object during its creation.
MAKING: Final = frozenset({Status.CREATING, Status.DOWNLOADING})

#: The statuses of a server that is being turned off, on, or both.
POWERING: Final = frozenset({Status.STOPPING, Status.STARTING, Status.REBOOTING, Status.RESETTING})

#: The statuses of a volume whose data are replaced.
REPLACING: Final = frozenset({Status.REVERTING, Status.RETYPING, Status.MAINTENANCE})

#: The statuses of a volume during attach and detach.
MOVING: Final = frozenset({Status.ATTACHING, Status.DETACHING})

#: The statuses of a volume that a server uses or may use.
HELD: Final = MOVING | {Status.RESERVED, Status.IN_USE}


class IllegalTransition(Exception):
    """The event cannot happen in this status."""

    def __init__(self, status: Status, event: Event) -> None:
        super().__init__(f"a volume that is {status} cannot {event}")
        self.status = status
        self.event = event


def after(status: Status, event: Event) -> Status:
    """Return the status that follows ``status`` when ``event`` happens.

    :raises IllegalTransition: if the table has no such transition.
    """
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        raise IllegalTransition(status, event) from None
