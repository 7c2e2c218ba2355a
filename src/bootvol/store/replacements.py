"""Rows of replacements: data that are to take the place of a volume's data."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from sqlalchemy import Connection, and_, delete, insert, select, update

from bootvol.lifecycle import Kind
from bootvol.model import Checkpoint, Replacement
from bootvol.store import states, strays
from bootvol.store.schema import replacements, volumes


def add(connection: Connection, replacement: Replacement) -> None:
    """Insert a replacement without a checkpoint."""
    values = attrs.asdict(replacement, filter=attrs.filters.exclude("checkpoint"), recurse=False)
    connection.execute(insert(replacements).values(values))


def get(connection: Connection, volume_id: int, *, lock: bool = False) -> Replacement | None:
    """Return the replacement of a volume's data; None without one.

    :param lock: whether to lock the replacement against other changes until the transaction ends.
    """
    query = select(replacements).where(replacements.c.volume_id == volume_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        return None
    checkpoint = None
    if row.durable_bytes is not None:
        checkpoint = Checkpoint(
            row.durable_bytes, row.durable_digest, row.validator, bool(row.durable_blank)
        )
    return Replacement(
        row.volume_id,
        row.name,
        row.backend,
        row.host,
        row.snapshot_id,
        row.retypes,
        row.volume_type,
        checkpoint,
    )


def record(connection: Connection, volume_id: int, columns: Mapping[str, object]) -> None:
    """Write the checkpoint of a replacement."""
    mine = replacements.c.volume_id == volume_id
    connection.execute(update(replacements).where(mine).values(columns))


def complete(connection: Connection, replacement: Replacement) -> None:
    """Give a volume the data of its replacement.  The former data become a stray."""
    mine = volumes.c.id == replacement.volume_id
    row = connection.execute(
        select(volumes.c.name, volumes.c.backend, volumes.c.host).where(mine)
    ).one()
    changed: dict[str, object] = {}
    if replacement.retypes:
        changed["volume_type"] = replacement.volume_type
    if replacement.backend != row.backend:
        changed["moved"] = True
    connection.execute(
        update(volumes)
        .where(mine)
        .values(
            name=replacement.name,
            backend=replacement.backend,
            host=replacement.host,
            **changed,
            **states.change_noted(Kind.VOLUME),
        )
    )
    _remove(connection, replacement)
    strays.leave_behind(connection, row.backend, row.host, row.name)


def expect_image(connection: Connection, volume_id: int) -> None:
    """Note that the data of a volume go, and that an image comes in their place."""
    emptied = {"finished": False, "snapshot_id": None, "source_id": None}
    connection.execute(update(volumes).where(volumes.c.id == volume_id).values(emptied))


def give_up(connection: Connection, replacement: Replacement) -> None:
    """Drop a replacement, which becomes a stray."""
    mine = and_(volumes.c.id == replacement.volume_id, volumes.c.backend != replacement.backend)
    connection.execute(update(volumes).where(mine).values(moved=False))
    _remove(connection, replacement)
    strays.leave_behind(connection, replacement.backend, replacement.host, replacement.name)


def _remove(connection: Connection, replacement: Replacement) -> None:
    mine = replacements.c.volume_id == replacement.volume_id
    connection.execute(delete(replacements).where(mine))
