"""The life of a volume as data: which status may follow which, and nothing else.

The source of the table is section 4.4.1 of the HP Bootable Volume API: "creating" =>
"downloading" => "available" after creation, "available" => "deleting" during delete, and "in the
event of an error, during any operation, status is set to 'error'".  A volume without an image
goes from creating to available.  A volume may also be deleted while it is still being made; that
is how an import is cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """What the API shows as a volume's ``status``.  ``GONE`` is never shown: the row is no more."""

    CREATING = "creating"
    DOWNLOADING = "downloading"
    AVAILABLE = "available"
    DELETING = "deleting"
    ERROR = "error"
    GONE = "gone"


class Event(StrEnum):
    """What can happen to a volume."""

    DOWNLOAD = "download"
    COMPLETE = "complete"
    DELETE = "delete"
    VANISH = "vanish"
    FAIL = "fail"


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
        Event.DELETE: Status.DELETING,
        Event.FAIL: Status.ERROR,
    },
    Status.DELETING: {
        Event.VANISH: Status.GONE,
        Event.FAIL: Status.ERROR,
    },
    Status.ERROR: {
        Event.DELETE: Status.DELETING,
        Event.FAIL: Status.ERROR,
    },
    Status.GONE: {},
}

#: A volume in one of these is work that a worker has to bring to an end.
UNSETTLED: Final = frozenset({Status.CREATING, Status.DOWNLOADING, Status.DELETING})

#: Those of them in which a volume is being made.
MAKING: Final = UNSETTLED - {Status.DELETING}


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
