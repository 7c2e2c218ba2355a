"""A request to detach during another transition changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from bootvol.errors import AttachmentNotFound
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Attachment, Caller, Volume
from bootvol.service.attachments import Attachments
from bootvol.store import attachments, schema, states, volumes
from bootvol.store.database import Database

ANN = Caller("ann", "t")


def test_only_what_was_named_is_detached(database: Database) -> None:
    no: Any = None
    service = Attachments(database, False, no)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with database._engine.begin() as db:
        wanted = Volume(0, "v", "t", "u", 1, Status.IN_USE, now, "nova", "b")
        volume = volumes.add(db, wanted)
        attachments.add(db, "t", Attachment(volume.id, "one", "vdb"), None)

    def detach() -> None:
        with database._engine.begin() as db:
            service._mark(db, ANN, "one", volume.id)

    with ThreadPoolExecutor() as pool:
        with database._engine.begin() as db:
            # The worker and two callers act at once in between.
            states.apply_event(db, Kind.VOLUME, volume.id, Event.DETACH)
            db.execute(update(schema.attachments).values(server_id="two"))
            states.apply_event(db, Kind.VOLUME, volume.id, Event.ATTACHED)
            detaching = pool.submit(detach)
            wait([detaching], 0.5)
        with pytest.raises(AttachmentNotFound):
            detaching.result()
    with database._engine.begin() as db:
        assert volumes.get(db, "t", volume.id).status is Status.IN_USE
