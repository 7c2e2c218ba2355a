"""The table of holds; :mod:`.schema` has the other tables."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, Table

from bootvol.store.columns import METADATA, CleanJson, CleanString, UtcTime

# The attachments that other systems manage: see Hold.  A volume with a hold has no attachment.
holds = Table(
    "holds",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("uuid", CleanString(36), nullable=False, unique=True),
    # Nobody deletes a volume with a hold.
    Column("volume_id", Integer, ForeignKey("volumes.id"), nullable=False, index=True),
    Column("tenant", CleanString(255), nullable=False),
    Column("state", CleanString(16), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("instance", CleanString(36)),
    Column("host", CleanString(255)),
    Column("mountpoint", CleanString(255)),
    Column("mode", CleanString(8)),
    Column("connector", CleanJson),
    # The route that the host was told, without a keyring.
    Column("route", CleanJson),
    # The limits of speed that the host was told with the route.
    Column("limits", CleanJson),
    Column("attached_at", UtcTime),
    Index(None, "tenant", "id"),
    sqlite_autoincrement=True,
)
