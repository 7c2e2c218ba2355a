"""The content of imports, to find imports of the same; and cached images (golden volumes)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the content that imports have in common, and the table of golden volumes."""
    op.add_column("imports", sa.Column("content", sa.String(64)))
    op.add_column("imports", sa.Column("cached", sa.Boolean()))
    op.create_index("ix_imports_content", "imports", ["content"])
    op.create_table(
        "goldens",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest_algorithm", sa.String(32)),
        sa.Column("digest", sa.String(128)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("volume_id", sa.Integer()),
        sa.Column("hits", sa.Integer(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_goldens"),
        sa.UniqueConstraint("name", name="uq_goldens_name"),
    )
    op.create_index("ix_goldens_backend_content", "goldens", ["backend", "content"])
