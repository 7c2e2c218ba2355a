"""The hosts of volumes, snapshots, cached images, strays and stores; and the daemons."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_HAVE_DATA = ("available", "in-use", "attaching", "detaching")


def upgrade() -> None:
    """Add the hosts.

    An empty host stands for all hosts.  The first daemon that finds a store on its own disks
    becomes the host of the store's rows (``bootvol.store.stores.settle``).
    """
    for table in "volumes", "snapshots", "goldens", "strays":
        op.add_column(table, _host())
    for table in "volumes", "snapshots":
        finished: sa.Column[bool] = sa.Column(
            "finished", sa.Boolean(), nullable=False, server_default=sa.false()
        )
        op.add_column(table, finished)
        rows = sa.table(table, sa.column("status"), sa.column("finished"))
        op.execute(sa.update(rows).where(rows.c.status.in_(_HAVE_DATA)).values(finished=sa.true()))
    known = op.get_bind().execute(sa.text("SELECT backend, identity FROM stores")).all()
    op.drop_table("stores")
    stores = op.create_table(
        "stores",
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("host", sa.String(64), nullable=False, server_default=""),
        sa.Column("identity", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("backend", "host", name="pk_stores"),
    )
    if known:
        op.bulk_insert(
            stores, [{"backend": name, "identity": identity} for name, identity in known]
        )
    op.create_table(
        "daemons",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("host", sa.String(64), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_daemons"),
    )


def _host() -> sa.Column[str]:
    return sa.Column("host", sa.String(64), nullable=False, server_default="")
