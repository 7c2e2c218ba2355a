"""Failures are kept for a month, and not without end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pytest_twisted import ensureDeferred
from sqlalchemy import Connection

from bootvol.errors import ErrorReport, FailureNotFound
from bootvol.lifecycle import Kind, Status
from bootvol.model import new_uuid
from bootvol.store import failures
from bootvol.store.database import Database

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def add(db: Connection, tenant: str, code: str, now: datetime = NOW) -> None:
    """Add a failure with its own code."""
    report = ErrorReport(code, "message", False, "remedy")
    uuid = new_uuid()
    failures.add(db, tenant, Kind.VOLUME, uuid, Status.CREATING, "req-1", report, now)


def codes(db: Connection, tenant: str, now: datetime = NOW) -> list[str]:
    return [each.error.code for each in failures.listed(db, tenant, now)]


@ensureDeferred
async def test_a_failure_is_forgotten_after_a_month(database: Database) -> None:
    """Also without another failure.

    Break: `src/bootvol/store/failures.py`: `return failures.c.tenant == tenant,
    failures.c.expires_at >= now` -> `return (failures.c.tenant == tenant,)`.
    """
    database.start()
    try:
        later = NOW + failures.LIFE + timedelta(seconds=1)
        await database.write(add, "t", "old")
        assert await database.read(codes, "t") == ["old"]
        (found,) = await database.read(failures.listed, "t", NOW)
        assert await database.read(codes, "t", later) == []
        with pytest.raises(FailureNotFound):
            await database.read(failures.get, "t", found.uuid, later)
        # The next failure of anybody makes room.
        await database.write(add, "u", "new", later)
        assert await database.read(codes, "t") == []
    finally:
        database.stop()


@ensureDeferred
async def test_a_tenant_keeps_its_newest_failures(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break: `src/bootvol/store/failures.py`: `(failures.c.id <= last)` ->
    `(failures.c.id < 0)`.
    """
    monkeypatch.setattr(failures, "MOST", 3)
    database.start()
    try:
        await database.write(add, "u", "theirs")
        for n in range(5):
            await database.write(add, "t", f"n{n}")
        assert await database.read(codes, "t") == ["n2", "n3", "n4"]
        assert await database.read(codes, "u") == ["theirs"]
    finally:
        database.stop()


@ensureDeferred
async def test_no_tenant_reaches_anothers_failures(database: Database) -> None:
    database.start()
    try:
        await database.write(add, "t", "code")
        (found,) = await database.read(failures.listed, "t", NOW)
        for call in (
            lambda db: failures.get(db, "u", found.uuid, NOW),
            lambda db: failures.remove(db, "u", found.uuid),
        ):
            with pytest.raises(FailureNotFound):
                await database.write(call)
        await database.write(failures.remove, "t", found.uuid)
        assert await database.read(codes, "t") == []
    finally:
        database.stop()
