"""The tables of the work that copies or moves the bytes of volumes."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, Table

from bootvol.store.columns import METADATA, CleanJson, CleanString

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
