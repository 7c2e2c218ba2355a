"""The tables of the work that copies or moves the bytes of volumes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, Table, false

from bootvol.store.columns import METADATA, CleanJson, CleanString, CleanText

# Images that are made of volumes.
volume_uploads = Table(
    "volume_uploads",
    METADATA,
    Column(
        "volume_id",
        Integer,
        ForeignKey("volumes.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    # The source that takes the image.
    Column("source", CleanString(64), nullable=False),
    # The image's record, as described by the caller.
    Column("image", CleanJson, nullable=False),
    # The daemon that knows the caller's token; null if the source needs no token.
    Column("daemon", CleanString(64)),
)

# Data that are to take the place of a volume's data: see Replacement.
replacements = Table(
    "replacements",
    METADATA,
    Column(
        "volume_id",
        Integer,
        ForeignKey("volumes.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    # The name on the backend, like that of a volume.
    Column("name", CleanString(64), nullable=False, unique=True),
    Column("backend", CleanString(64), nullable=False),
    Column("host", CleanString(64), nullable=False, server_default=""),
    # The snapshot whose data come; null for the volume's own data.
    Column("snapshot_id", Integer, index=True),
    # Whether the volume gets another type with the data; and the name of the type.
    Column("retypes", Boolean, nullable=False, server_default=false()),
    Column("volume_type", CleanString(255)),
    # The checkpoint from which the copy may resume; null without a checkpoint.
    Column("durable_bytes", BigInteger),
    Column("durable_digest", CleanString(128)),
    Column("durable_blank", Boolean),
    Column("validator", CleanText),
)
