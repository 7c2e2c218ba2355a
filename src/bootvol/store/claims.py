"""Who works on an unsettled volume: a lease that its worker renews, and others respect.

The status of a volume is the intent (creating, downloading: make it; deleting: remove it), so
the claim is on the volume.  One worker at a time may touch what lies under it: an import and a
delete can never run at once, not even on two machines.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from bootvol.lifecycle import UNSETTLED, Status
from bootvol.model import Volume
from bootvol.store.schema import volumes
from bootvol.store.volumes import of_row


def claim(
    connection: Connection, worker: str, *, bootable: bool, now: float, until: float
) -> Volume | None:
    """Claim the oldest unsettled volume that nobody holds; return it, or None.

    :param worker: who claims.
    :param bootable: True for imports; False for the quick work: removals, and volumes without an
        image.
    :param now: seconds since 1970; a lease that ended before then is nobody's.
    :param until: seconds since 1970 when this lease ends unless it is renewed.
    """
    removal = volumes.c.status == Status.DELETING
    imported = and_(~removal, volumes.c.image_id.is_not(None))
    query = (
        select(volumes)
        .where(
            volumes.c.status.in_(UNSETTLED),
            imported if bootable else ~imported,
            or_(volumes.c.worker.is_(None), volumes.c.lease_until < now),
        )
        .order_by(volumes.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    connection.execute(
        update(volumes).where(volumes.c.id == row.id).values(worker=worker, lease_until=until)
    )
    return of_row(row)


def renew(
    connection: Connection, worker: str, volume_id: int, statuses: Collection[Status], until: float
) -> bool:
    """Renew a lease.  False means: stop, another has it, or the volume is wanted otherwise."""
    mine = _held(worker, volume_id) & volumes.c.status.in_(statuses)
    return connection.execute(update(volumes).where(mine).values(lease_until=until)).rowcount == 1


def release(connection: Connection, worker: str, volume_id: int) -> None:
    """Let go of a volume, so that anyone may claim it if it is still unsettled."""
    connection.execute(
        update(volumes).where(_held(worker, volume_id)).values(worker=None, lease_until=None)
    )


def release_all(connection: Connection, worker: str) -> None:
    """End every lease of ``worker``: for a daemon that starts again after it was killed."""
    mine = volumes.c.worker == worker
    connection.execute(update(volumes).where(mine).values(worker=None, lease_until=None))


def held(connection: Connection, worker: str, volume_id: int) -> bool:
    """Tell whether ``worker`` still has the volume, and keep it so until the transaction ends."""
    query = select(volumes.c.id).where(_held(worker, volume_id)).with_for_update()
    return connection.execute(query).one_or_none() is not None


def _held(worker: str, volume_id: int) -> ColumnElement[bool]:
    return and_(volumes.c.id == volume_id, volumes.c.worker == worker)
