"""Rows of cached images (golden volumes): hidden volumes with one image each, to make others from.

A golden volume is first ``making``: a worker fills the golden volume.  The worker holds the claim
on the origin, the volume from which the golden volume is made.  Then the golden volume is
``ready`` for use.  A ``doomed`` golden volume is to be removed.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    exists,
    insert,
    select,
    update,
)
from sqlalchemy import delete as delete_from

from bootvol.lifecycle import MAKING, Status
from bootvol.model import Digest, Golden
from bootvol.store.cautions import warnings_of
from bootvol.store.schema import goldens, imports, volumes

_MAKING, _READY, _DOOMED = "making", "ready", "doomed"


def begin(connection: Connection, golden: Golden, volume_id: int) -> bool:
    """Insert a golden volume that is about to be made from the volume ``volume_id``.

    :returns: False if the backend already has a golden volume of the same content.
    """
    same = and_(
        goldens.c.backend == golden.backend,
        goldens.c.content == golden.content,
        goldens.c.state != _DOOMED,
    )
    if connection.execute(select(exists().where(same))).scalar():
        return False
    connection.execute(
        insert(goldens).values(
            name=golden.name,
            backend=golden.backend,
            image_id=golden.image_id,
            content=golden.content,
            bytes=golden.size,
            digest_algorithm=golden.digest.algorithm if golden.digest else None,
            digest=golden.digest.value if golden.digest else None,
            state=_MAKING,
            volume_id=volume_id,
            hits=0,
            used_at=golden.used_at,
            warnings=[attrs.asdict(each) for each in golden.warnings],
        )
    )
    return True


def complete(connection: Connection, name: str) -> bool:
    """Mark a golden volume as ready.  Return False for one that was given up meanwhile."""
    mine = and_(goldens.c.name == name, goldens.c.state == _MAKING)
    made = update(goldens).where(mine).values(state=_READY, volume_id=None)
    return connection.execute(made).rowcount > 0


def take(connection: Connection, backend: str, content: str, now: float) -> Golden | None:
    """Return the golden volume of a content on a backend, and count the use.

    The golden volume stays while an import of the content goes on there.

    :param now: seconds since 1970.
    """
    same = and_(goldens.c.backend == backend, goldens.c.content == content)
    ready = and_(same, goldens.c.state == _READY)
    name = select(goldens.c.name).where(ready).order_by(goldens.c.id).limit(1).scalar_subquery()
    row = connection.execute(
        update(goldens)
        .where(goldens.c.name == name, goldens.c.state == _READY)
        .values(hits=goldens.c.hits + 1, used_at=now)
        .returning(*goldens.c)
    ).one_or_none()
    return None if row is None else _of_row(row)


def doom(connection: Connection, name: str) -> None:
    """Mark a golden volume for removal, and end its use."""
    connection.execute(update(goldens).where(goldens.c.name == name).values(state=_DOOMED))


def doom_unfinished(connection: Connection, volume_id: int) -> bool:
    """Doom the unfinished golden volumes of a volume.  Return whether any existed."""
    begun = and_(goldens.c.volume_id == volume_id, goldens.c.state == _MAKING)
    return connection.execute(update(goldens).where(begun).values(state=_DOOMED)).rowcount > 0


def doom_surplus(
    connection: Connection, backend: str, limit: int, but_for: int = 0
) -> Sequence[str]:
    """Doom the least recently used golden volumes of a backend beyond ``limit`` bytes in total.

    Keep a golden volume whose content is still wanted by an import there.  Doom unfinished golden
    volumes, too, if the work on their origin volume has ended: nothing will complete them.

    :param but_for: id of a volume whose import does not count.
    :returns: the names of all doomed golden volumes of the backend.
    """
    here = goldens.c.backend == backend
    # During the removal of a volume, the work on the volume may not have stopped yet.
    at_work = volumes.c.status.in_({*MAKING, Status.DELETING})
    ended = exists().where(volumes.c.id == goldens.c.volume_id, ~at_work)
    left = and_(here, goldens.c.state == _MAKING, ended)
    connection.execute(update(goldens).where(left).values(state=_DOOMED))
    rows = connection.execute(
        select(goldens.c.name, goldens.c.bytes, goldens.c.used_at, _wanted(but_for).label("wanted"))
        .where(here, goldens.c.state == _READY)
        .order_by(goldens.c.used_at)
    ).all()
    total = sum(row.bytes for row in rows)
    for row in rows:
        if total > limit and not row.wanted:
            # A golden volume that was used meanwhile has another time, and stays.
            unused = and_(goldens.c.name == row.name, goldens.c.used_at == row.used_at)
            connection.execute(update(goldens).where(unused).values(state=_DOOMED))
            total -= row.bytes
    doomed = select(goldens.c.name).where(here, goldens.c.state == _DOOMED)
    return connection.execute(doomed).scalars().all()


def forget(connection: Connection, name: str) -> None:
    """Delete the row of a removed golden volume."""
    connection.execute(delete_from(goldens).where(goldens.c.name == name))


def is_awaited(connection: Connection, backend: str, content: str, volume_id: int) -> bool:
    """Return whether another import than ``volume_id``'s wants the same content on a backend."""
    others = and_(imports.c.content == content, volumes.c.backend == backend)
    return bool(
        connection.execute(
            select(exists().where(_unsettled(), others, volumes.c.id != volume_id))
        ).scalar()
    )


def listed(connection: Connection) -> Sequence[Golden]:
    """Return all ready golden volumes, the last used ones first."""
    query = select(goldens).where(goldens.c.state == _READY).order_by(goldens.c.used_at.desc())
    return [_of_row(row) for row in connection.execute(query)]


def ready() -> Select[tuple[str, str]]:
    """Return the query for the backend and content of all ready golden volumes."""
    return select(goldens.c.backend, goldens.c.content).where(goldens.c.state == _READY)


def _wanted(but_for: int) -> ColumnElement[bool]:
    same = and_(imports.c.content == goldens.c.content, volumes.c.backend == goldens.c.backend)
    return exists().where(_unsettled(), same, volumes.c.id != but_for)


def _unsettled() -> ColumnElement[bool]:
    return and_(imports.c.volume_id == volumes.c.id, volumes.c.status.in_(MAKING))


def _of_row(row: Row[tuple[object, ...]]) -> Golden:
    return Golden(
        name=row.name,
        backend=row.backend,
        image_id=row.image_id,
        content=row.content,
        size=row.bytes,
        digest=Digest(row.digest_algorithm, row.digest) if row.digest else None,
        hits=row.hits,
        used_at=row.used_at,
        warnings=warnings_of(row),
    )
