"""Snapshots, servers, and attachments of volumes."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the tables, and the snapshot from which a volume was made."""
    op.add_column("volumes", sa.Column("snapshot_id", sa.Integer()))
    _table(
        "snapshots",
        sa.Column("volume_id", sa.Integer(), nullable=False),
        sa.Column("size_gib", sa.Integer(), nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("display_name", sa.String(255)),
        sa.Column("display_description", sa.String(255)),
    )
    op.create_index("ix_snapshots_volume_id", "snapshots", ["volume_id"])
    _table(
        "servers",
        sa.Column("uuid", sa.String(36), nullable=False),
        sa.Column("display_name", sa.String(255), nullable=False),
        sa.Column("flavor_id", sa.String(64), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("cpus", sa.Integer(), nullable=False),
        sa.Column("daemon", sa.String(64)),
        sa.UniqueConstraint("uuid", name="uq_servers_uuid"),
    )
    op.create_table(
        "attachments",
        sa.Column("volume_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("server_id", sa.String(64), nullable=False),
        sa.Column("hosted", sa.Integer()),
        sa.Column("device", sa.String(32), nullable=False),
        sa.Column("disk", sa.String(32), nullable=False),
        sa.Column("delete_on_termination", sa.Boolean(), nullable=False),
        sa.Column("daemon", sa.String(64)),
        sa.Column("address_kind", sa.String(16)),
        sa.Column("address", sa.Text()),
        sa.PrimaryKeyConstraint("volume_id", name="pk_attachments"),
        sa.ForeignKeyConstraint(
            ["volume_id"], ["volumes.id"], name="fk_attachments_volume_id_volumes"
        ),
        sa.ForeignKeyConstraint(["hosted"], ["servers.id"], name="fk_attachments_hosted_servers"),
        sa.UniqueConstraint(
            "tenant", "server_id", "disk", name="uq_attachments_tenant_server_id_disk"
        ),
    )
    op.create_index("ix_attachments_hosted", "attachments", ["hosted"])


def _table(name: str, *columns: Any) -> None:
    """Create a table of objects that a tenant owns and a worker works on."""
    op.create_table(
        name,
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        *columns,
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text()),
        sa.Column("error_retryable", sa.Boolean()),
        sa.Column("error_remedy", sa.Text()),
        sa.Column("worker", sa.String(64)),
        sa.Column("lease_until", sa.Float()),
        sa.PrimaryKeyConstraint("id", name=f"pk_{name}"),
        sa.UniqueConstraint("name", name=f"uq_{name}_name"),
        sqlite_autoincrement=True,
    )
    op.create_index(f"ix_{name}_tenant_id", name, ["tenant", "id"])
    op.create_index(f"ix_{name}_status", name, ["status"])
