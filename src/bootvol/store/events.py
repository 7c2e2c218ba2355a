"""Changes of statuses: collected on a transaction, and published after the commit.

Whoever follows the life of volumes, snapshots and servers subscribes: the log, for example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
from sqlalchemy import Connection
from twisted.logger import Logger

from bootvol.errors import ErrorReport
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Image

#: The option of a connection with the changes that the transaction has made so far.
_OPTION: Final = "bootvol_changes"


@attrs.frozen
class StateChange:
    """A change of the status of a volume, snapshot or server.

    :ivar number: id of the row.
    :ivar request_id: id of the request that asked for the resource; empty if unknown.
    :ivar event: None for a new row.
    :ivar before: the former status; None for a new row.
    :ivar after: the new status; :attr:`Status.GONE` if the row is deleted.
    :ivar error: the reason of a failure.
    :ivar image: the image that a new volume is made from.
    :ivar cause: id of the volume whose failure made this volume fail, too.
    """

    kind: Kind
    number: int
    tenant: str
    request_id: str
    event: Event | None
    before: Status | None
    after: Status
    error: ErrorReport | None = None
    image: Image | None = None
    cause: int | None = None


Subscriber = Callable[[StateChange], None]


def options(changes: list[StateChange]) -> dict[str, list[StateChange]]:
    """Return the options of a connection that collects its changes in ``changes``."""
    return {_OPTION: changes}


def collect(connection: Connection, change: StateChange) -> None:
    """Note a change, to be published if the transaction commits."""
    changes: list[StateChange] | None = connection.get_execution_options().get(_OPTION)
    if changes is not None:
        changes.append(change)


class Publisher:
    """Passes changes to subscribers. Call all methods from the reactor thread."""

    _log = Logger()

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` with each later change."""
        self._subscribers.append(subscriber)

    def publish(self, changes: list[StateChange]) -> None:
        """Pass on the changes of one transaction. The failure of a subscriber is only logged."""
        for change in changes:
            for subscriber in self._subscribers:
                try:
                    subscriber(change)
                except Exception:
                    self._log.failure("a subscriber fails to take {change}", change=change)
