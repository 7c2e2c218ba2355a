"""Failures of work, for the callers who asked for the work."""

from __future__ import annotations

from datetime import datetime

import attrs

from bootvol.errors import ErrorReport
from bootvol.lifecycle import Kind, Status


@attrs.frozen
class Failure:
    """The failure of work on a volume or snapshot.

    :ivar object_uuid: uuid of the volume or snapshot, which may be gone.
    :ivar status: the status of the object until the failure: the work that failed.
    :ivar of_image: whether the failed work was an import.
    :ivar request_id: id of the request that created the object; empty if unknown.
    :ivar expires_at: time when bootvol forgets the failure.
    """

    id: int
    uuid: str
    tenant: str
    kind: Kind
    object_uuid: str
    status: Status
    of_image: bool
    request_id: str
    error: ErrorReport
    created_at: datetime
    expires_at: datetime
