"""Logs the changes of statuses that an operator wants to see."""

from __future__ import annotations

from twisted.logger import Logger

from bootvol.errors import without_query
from bootvol.lifecycle import Kind
from bootvol.model import Image
from bootvol.store.events import StateChange


class EventLog:
    """A subscriber that writes log lines."""

    _log = Logger()

    def __call__(self, change: StateChange) -> None:
        """Log a new volume, and a volume that failed since another one failed."""
        if change.before is None and change.kind is Kind.VOLUME:
            image = change.image
            # Later log entries name the volume by its id.
            self._log.info(
                "{request_id}: volume {id} of tenant {tenant} is to be made{what}",
                request_id=change.request_id or "a request",
                id=change.number,
                tenant=change.tenant,
                what=_origin(image) if image else "",
            )
        elif change.cause is not None:
            self._log.warn(
                "volume {id} ({whose}) failed as volume {first} did",
                id=change.number,
                whose=whose(change.tenant, change.request_id),
                first=change.cause,
            )


def _origin(image: Image) -> str:
    return f" from image {without_query(image.id)!r} of source {image.source}"


def whose(tenant: str, request_id: str) -> str:
    """Return the tenant, and the request id if known, for the log."""
    return f"tenant {tenant}, asked for by {request_id}" if request_id else f"tenant {tenant}"
