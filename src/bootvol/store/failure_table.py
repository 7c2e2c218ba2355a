"""The table of failures; :mod:`.schema` has the other tables."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, Table

from bootvol.store.columns import METADATA, CleanString, CleanText, UtcTime

# Why work on volumes and snapshots failed.  The volumes and snapshots may be gone.
failures = Table(
    "failures",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("uuid", CleanString(36), nullable=False, unique=True),
    Column("tenant", CleanString(255), nullable=False),
    # The failed object, and its status until then.
    Column("kind", CleanString(16), nullable=False),
    Column("object_uuid", CleanString(36), nullable=False),
    Column("status", CleanString(32), nullable=False),
    Column("of_image", Boolean, nullable=False),
    Column("request_id", CleanString(64), nullable=False),
    Column("error_code", CleanString(64), nullable=False),
    Column("error_message", CleanText, nullable=False),
    Column("error_retryable", Boolean, nullable=False),
    Column("error_remedy", CleanText, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False, index=True),
    Index(None, "tenant", "id"),
    sqlite_autoincrement=True,
)
