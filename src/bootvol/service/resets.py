"""Statuses that operators set.

A status decides which work goes on and which bytes may go, so an operator cannot make a status
false.  A reset either fails a good object, or makes a failed object with whole data available
again.  Any other status is a mark: callers see the mark until the next change of the status, and
all work goes by the status itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import Connection as Db

from bootvol.errors import (
    BootvolError,
    InvalidRequest,
    SnapshotBusy,
    StatusSet,
    VolumeBusy,
)
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Caller, Snapshot, Volume
from bootvol.store import attachments as attachment_rows
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import states
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

#: The marks of a snapshot, and the statuses that the program behind each mark may report next.
_REPORTS: Final[Mapping[str, Collection[str]]] = {
    "creating": ("creating", "available", "error"),
    "deleting": ("deleting", "error_deleting"),
}


class Resets:
    """The statuses of the volumes and snapshots of all tenants, for operators."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def volume(self, caller: Caller, volume_id: int, status: str) -> None:
        """Set the status of a volume of the caller's tenant.

        :param status: ``available``, ``error``, or a mark.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if work on the volume goes on, if a server has or may get the volume, or
            if the volume's data is not whole.
        """

        def write(db: Db) -> None:
            found = volume_rows.get(db, caller.tenant, volume_id, lock=True)
            if found.status is Status.IN_USE and status == Status.IN_USE:
                states.mark(db, Kind.VOLUME, volume_id, None)
                return
            _check_free(db, volume_id)
            _set(db, Kind.VOLUME, found, status, VolumeBusy)

        await self._database.write(write)

    async def check_detached(self, caller: Caller, volume_id: int) -> None:
        """Check that no server has a volume, or may get the volume.

        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if a server has the volume.
        """

        def query(db: Db) -> None:
            volume_rows.get(db, caller.tenant, volume_id)
            _check_free(db, volume_id)

        await self._database.read(query)

    async def snapshot(self, caller: Caller, snapshot_id: int, status: str) -> None:
        """Set the status of a snapshot, as :meth:`volume`.

        :raises SnapshotNotFound: if the snapshot does not exist or belongs to another tenant.
        :raises SnapshotBusy: if work on the snapshot goes on, or if its data is not whole.
        """

        def write(db: Db) -> None:
            found = snapshot_rows.get(db, caller.tenant, snapshot_id, lock=True)
            _set(db, Kind.SNAPSHOT, found, status, SnapshotBusy)

        await self._database.write(write)

    async def report(
        self, caller: Caller, snapshot_id: int, status: str, progress: str | None
    ) -> None:
        """Note how far another program is with a snapshot that has a mark.

        :param progress: the progress to show, such as ``80%``; None for no change.
        :raises SnapshotNotFound: if the snapshot does not exist or belongs to another tenant.
        :raises InvalidRequest: if the snapshot's status does not allow the report.
        """

        def write(db: Db) -> None:
            found = snapshot_rows.get(db, caller.tenant, snapshot_id, lock=True)
            before = found.marked or str(found.status)
            if found.marked is None or before not in _REPORTS:
                raise InvalidRequest(
                    f"Snapshot status {before} not allowed for update_snapshot_status"
                )
            if status not in _REPORTS[before]:
                raise InvalidRequest(
                    f"Provided snapshot status {status} not allowed for snapshot with status"
                    f" {before}."
                )
            _set(db, Kind.SNAPSHOT, found, status, SnapshotBusy)
            if progress is not None:
                states.note_progress(db, snapshot_id, progress)

        await self._database.write(write)


def _check_free(db: Db, volume_id: int) -> None:
    """Check that no server has a volume, or may get the volume.

    :raises VolumeBusy: if a server has the volume.
    """
    if attachment_rows.is_promised(db, volume_id):
        raise VolumeBusy("a server has the volume: detach the volume first")


def _set(
    db: Db, kind: Kind, found: Volume | Snapshot, status: str, busy: type[BootvolError]
) -> None:
    """Set the status of a volume or snapshot that is locked.

    :raises VolumeBusy: or :class:`SnapshotBusy`, as ``busy`` says, if the status would be false.
    """
    if found.status not in (Status.AVAILABLE, Status.ERROR):
        raise busy(
            f"the {kind} is {found.status}: wait for the end of the work, or delete the {kind}"
        )
    if status == Status.ERROR:
        if found.status is not Status.ERROR:
            states.apply_event(db, kind, found.id, Event.FAIL, StatusSet().report())
        mark = None
    elif status == Status.AVAILABLE:
        if found.status is Status.ERROR:
            if not states.is_finished(db, kind, found.id):
                raise busy(f"the data of the {kind} is not whole: delete the {kind}")
            states.apply_event(db, kind, found.id, Event.RESTORE)
        mark = None
    elif status == Status.IN_USE:
        raise InvalidRequest(
            "Cannot reset-state to in-use because volume does not have any attachments."
        )
    else:
        mark = status
    states.mark(db, kind, found.id, mark)
