"""The tables of quotas."""

from __future__ import annotations

from sqlalchemy import Column, Integer, Table

from bootvol.store.columns import METADATA, CleanString

# The bounds of single tenants, where they differ from the default.
quotas = Table(
    "quotas",
    METADATA,
    Column("tenant", CleanString(255), primary_key=True),
    Column("resource", CleanString(32), primary_key=True),
    Column("most", Integer, nullable=False),
)

# The same for volumes of one type. The empty name stands for volumes without a type.
type_quotas = Table(
    "type_quotas",
    METADATA,
    Column("tenant", CleanString(255), primary_key=True),
    Column("volume_type", CleanString(255), primary_key=True),
    Column("resource", CleanString(32), primary_key=True),
    Column("most", Integer, nullable=False),
)
