"""The life of volumes, snapshots and servers as data: which status may follow which.

The source of the table is section 4.4.1 of the HP Bootable Volume API: "creating" =>
"downloading" => "available" after creation, "available" => "deleting" during delete, and "in the
event of an error, during any operation, status is set to 'error'".  A volume without an image
goes from creating to available.  A volume may also be deleted while it is still being made; that
is how an import is cancelled.  ``attaching`` and ``detaching`` are those of Nova's later releases
(reference, section 3.3).

Snapshots and servers live the same life without downloading and attaching.  What a server shows of
it is Nova's ``BUILD`` for creating, and ``ACTIVE`` or ``SHUTOFF`` for available: whether it runs.
A server that is available may be stopped, started and rebooted, and is available again after that.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What has a life."""

    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    SERVER = "server"


class Status(StrEnum):
    """What the API shows as a volume's ``status``.  ``GONE`` is never shown: the row is no more."""

    CREATING = "creating"
    DOWNLOADING = "downloading"
    AVAILABLE = "available"
    ATTACHING = "attaching"
    IN_USE = "in-use"
    DETACHING = "detaching"
    DELETING = "deleting"
    ERROR = "error"
    STOPPING = "stopping"
    STARTING = "starting"
    REBOOTING = "rebooting"
    RESETTING = "resetting"
    GONE = "gone"


class Event(StrEnum):
    """What can happen to a volume."""

    DOWNLOAD = "download"
    COMPLETE = "complete"
    ATTACH = "attach"
    ATTACHED = "attached"
    DETACH = "detach"
    DETACHED = "detached"
    DELETE = "delete"
    VANISH = "vanish"
    FAIL = "fail"
    STOP = "stop"
    START = "start"
    REBOOT = "reboot"
    RESET = "reset"
    POWERED = "powered"


TRANSITIONS: Final[Mapping[Status, Mapping[Event, Status]]] = {
    Status.CREATING: {
        Event.DOWNLOAD: Status.DOWNLOADING,
        Event.COMPLETE: Status.AVAILABLE,
        Event.DELETE: Status.DELETING,
        Event.FAIL: Status.ERROR,
    },
    Status.DOWNLOADING: {
        # An import that starts again after its daemon ended is downloading already.
        Event.DOWNLOAD: Status.DOWNLOADING,
        Event.COMPLETE: Status.AVAILABLE,
        Event.DELETE: Status.DELETING,
        Event.FAIL: Status.ERROR,
    },
    Status.AVAILABLE: {
        Event.ATTACH: Status.ATTACHING,
        Event.DELETE: Status.DELETING,
        Event.FAIL: Status.ERROR,
        Event.STOP: Status.STOPPING,
        Event.START: Status.STARTING,
        Event.REBOOT: Status.REBOOTING,
        Event.RESET: Status.RESETTING,
    },
    # Attached to nothing, a volume is as it was: what failed is kept with it as the reason.
    Status.ATTACHING: {
        Event.ATTACHED: Status.IN_USE,
        Event.DETACHED: Status.AVAILABLE,
    },
    Status.IN_USE: {
        Event.DETACH: Status.DETACHING,
        # With its server.
        Event.DETACHED: Status.AVAILABLE,
    },
    Status.DETACHING: {
        Event.DETACHED: Status.AVAILABLE,
        # The server did not let go.
        Event.ATTACHED: Status.IN_USE,
    },
    Status.DELETING: {
        Event.VANISH: Status.GONE,
        Event.FAIL: Status.ERROR,
    },
    Status.ERROR: {
        Event.DELETE: Status.DELETING,
        Event.FAIL: Status.ERROR,
    },
    **{
        # Whether the server runs after that is asked of its hypervisor, never remembered.
        status: {
            Event.POWERED: Status.AVAILABLE,
            Event.DELETE: Status.DELETING,
            Event.FAIL: Status.ERROR,
        }
        for status in (Status.STOPPING, Status.STARTING, Status.REBOOTING, Status.RESETTING)
    },
    Status.GONE: {},
}

#: What is in one of these is being made.
MAKING: Final = frozenset({Status.CREATING, Status.DOWNLOADING})

#: A server in one of these is being turned off, or on, or both.
POWERING: Final = frozenset({Status.STOPPING, Status.STARTING, Status.REBOOTING, Status.RESETTING})

#: A volume in one of these is on its way to a server, or from it.
MOVING: Final = frozenset({Status.ATTACHING, Status.DETACHING})

#: A volume in one of these is a server's, or may be.
HELD: Final = MOVING | {Status.IN_USE}


class IllegalTransition(Exception):
    """The event cannot happen to a volume of that status."""

    def __init__(self, status: Status, event: Event) -> None:
        super().__init__(f"a volume that is {status} cannot {event}")
        self.status = status
        self.event = event


def after(status: Status, event: Event) -> Status:
    """Return the status that follows ``status`` when ``event`` happens.

    :raises IllegalTransition: the table has no such transition.
    """
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        raise IllegalTransition(status, event) from None
