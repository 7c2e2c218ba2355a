"""The sizes of images as their sources stated them last, while the images arrive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the size in bytes, and the validator of the image with this size."""
    op.add_column("imports", sa.Column("stated_size", sa.BigInteger()))
    op.add_column("imports", sa.Column("stated_validator", sa.Text()))
