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
    connection: Connection,
    holder: str,
    *,
    bootable: bool,
    backends: Collection[str],
    busy: Collection[int],
    now: float,
    until: float,
) -> Volume | None:
    """Claim the oldest unsettled volume that nobody holds; return it, or None.

    :param holder: who claims: a name for this one claim, ``WORKER/…``, never used again.
    :param bootable: True for imports; False for the quick work: removals, and volumes without an
        image.
    :param backends: names of the backends that the claimer can reach.
    :param busy: ids of volumes that it works on already, whatever the clock says of their leases.
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
            volumes.c.backend.in_(backends),
            volumes.c.id.not_in(busy),
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
        update(volumes).where(volumes.c.id == row.id).values(worker=holder, lease_until=until)
    )
    return of_row(row)


def renew(
    connection: Connection, holder: str, volume_id: int, statuses: Collection[Status], until: float
) -> bool:
    """Renew a lease, and lock the row until the transaction ends.

    :param statuses: what the claim is for.
    :returns: False means: stop, another has it, or the volume is wanted otherwise.
    """
    mine = _held(holder, volume_id) & volumes.c.status.in_(statuses)
    return connection.execute(update(volumes).where(mine).values(lease_until=until)).rowcount == 1


def release(connection: Connection, holder: str, volume_id: int) -> None:
    """Let go of a volume, so that anyone may claim it if it is still unsettled."""
    connection.execute(
        update(volumes).where(_held(holder, volume_id)).values(worker=None, lease_until=None)
    )


def release_all(connection: Connection, worker: str) -> None:
    """End every lease of ``worker``: for a daemon that starts again after it was killed."""
    mine = volumes.c.worker.startswith(f"{worker}/", autoescape=True)
    connection.execute(update(volumes).where(mine).values(worker=None, lease_until=None))


def _held(holder: str, volume_id: int) -> ColumnElement[bool]:
    return and_(volumes.c.id == volume_id, volumes.c.worker == holder)
