"""Volumes and their imports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "volumes",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("size_gib", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("availability_zone", sa.String(255), nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("image_id", sa.Text()),
        sa.Column("display_name", sa.String(255)),
        sa.Column("display_description", sa.String(255)),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text()),
        sa.Column("error_retryable", sa.Boolean()),
        sa.Column("error_remedy", sa.Text()),
        sa.Column("worker", sa.String(64)),
        sa.Column("lease_until", sa.Float()),
        sa.PrimaryKeyConstraint("id", name="pk_volumes"),
        sa.UniqueConstraint("name", name="uq_volumes_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_volumes_tenant_id", "volumes", ["tenant", "id"])
    op.create_index("ix_volumes_status", "volumes", ["status"])
    op.create_table(
        "imports",
        sa.Column("volume_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("image", sa.JSON(), nullable=False),
        sa.Column("phase", sa.String(32), nullable=False),
        sa.Column("bytes_done", sa.BigInteger(), nullable=False),
        sa.Column("bytes_total", sa.BigInteger()),
        sa.Column("bytes_per_second", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("volume_id", name="pk_imports"),
        sa.ForeignKeyConstraint(
            ["volume_id"], ["volumes.id"], name="fk_imports_volume_id_volumes", ondelete="CASCADE"
        ),
    )
