"""Data for clients of Nova v2 and Cinder v1: uuids, key pairs, and more about servers."""

from __future__ import annotations

from uuid import NAMESPACE_OID, uuid5

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the uuids of volumes and snapshots, the client settings of servers, and key pairs."""
    op.add_column("volumes", sa.Column("uuid", sa.String(36)))
    op.add_column("volumes", sa.Column("snapshot_uuid", sa.String(36)))
    op.add_column("snapshots", sa.Column("uuid", sa.String(36)))
    op.add_column("snapshots", sa.Column("volume_uuid", sa.String(36)))
    op.add_column("servers", sa.Column("updated_at", sa.DateTime()))
    op.add_column("servers", sa.Column("metadata", sa.JSON()))
    op.add_column("servers", sa.Column("key_name", sa.String(255)))
    op.add_column("servers", sa.Column("public_key", sa.Text()))
    op.add_column("servers", sa.Column("user_data", sa.Text()))
    op.add_column("servers", sa.Column("config_drive", sa.Boolean()))
    _fill()
    for table in "volumes", "snapshots":
        # For a constraint SQLite would make the table anew, and forget the ids given so far.
        op.create_index(f"ix_{table}_uuid", table, ["uuid"], unique=True)
    op.create_table(
        "keypairs",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_keypairs"),
        sa.UniqueConstraint("tenant", "user", "name", name="uq_keypairs_tenant_user_name"),
        sqlite_autoincrement=True,
    )


def _fill() -> None:
    """Make uuids from names, which are unique for ever.  A deleted volume gets one from its id."""
    db = op.get_bind()
    volumes = sa.table("volumes", *map(sa.column, ("id", "name", "uuid", "snapshot_id")))
    volumes.append_column(sa.column("snapshot_uuid"))
    snapshots = sa.table("snapshots", *map(sa.column, ("id", "name", "uuid", "volume_id")))
    snapshots.append_column(sa.column("volume_uuid"))
    servers = sa.table("servers", *map(sa.column, ("created_at", "updated_at", "config_drive")))
    servers.append_column(sa.column("metadata", sa.JSON()))
    names: dict[str, dict[int, str]] = {}
    for table in volumes, snapshots:
        rows = db.execute(sa.select(table.c.id, table.c.name)).all()
        names[table.name] = {row.id: str(uuid5(NAMESPACE_OID, row.name)) for row in rows}
        for number, uuid in names[table.name].items():
            db.execute(sa.update(table).where(table.c.id == number).values(uuid=uuid))
    for table, other, of, column in (
        (volumes, "snapshots", volumes.c.snapshot_id, "snapshot_uuid"),
        (snapshots, "volumes", snapshots.c.volume_id, "volume_uuid"),
    ):
        for row in db.execute(sa.select(table.c.id, of.label("of")).where(of.is_not(None))).all():
            gone = str(uuid5(NAMESPACE_OID, f"{other}/{row.of}"))
            known = names[other].get(row.of, gone)
            db.execute(sa.update(table).where(table.c.id == row.id).values({column: known}))
    db.execute(
        sa.update(servers).values(
            updated_at=servers.c.created_at, config_drive=sa.false(), metadata={}
        )
    )
