"""Interfaces of block backends that take over the disks of other programs, and give disks up.

A place is the name of a disk in the store of a backend: an image, a file, a logical volume.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import Interface

from bootvol.model import StoredDisk


class IAdoptingBackend(Interface):
    """Optional interface of a backend that takes disks over without a copy.

    The core remembers the place and the new name before each call.  After a crash the core makes
    the same call again, or gives the disk up.  So a disk always has one of its two names, and
    nothing is lost.
    """

    async def stored_disks() -> Sequence[StoredDisk]:
        """Return all disks in the store, in any order.

        The disks of volumes are listed, too, with the names of the volumes.

        :raises bootvol.errors.BackendFailed: if the backend cannot tell.
        """

    async def stored_disk(place: str) -> StoredDisk | None:
        """Return one disk as :meth:`stored_disks` lists it; None if the store has no such disk.

        :param place: the disk's name in the store.  The name comes from a caller.
        :raises bootvol.errors.BackendFailed: if the backend cannot tell.
        """

    async def adopt(place: str, volume: str, unit: int) -> int:
        """Turn a disk into a volume: rename the disk, and copy no byte.  Idempotent.

        The disk becomes larger, up to a whole number of units; zeros follow the content.  The
        volume survives a loss of power with its new name when the call returns.  After a cancelled
        or failed call, the disk has its former name or the new one.  Then the core makes the same
        call again, or calls :meth:`give_up`.

        :param place: the disk's name in the store.  The name comes from a caller, and may be
            anything: a path, a name in another pool, a volume of bootvol.
        :param volume: name of the new volume.  If the volume exists, an earlier call has made the
            volume of this place.
        :param unit: a size in bytes, a multiple of the block size.
        :returns: the volume's size in bytes, a multiple of ``unit``.
        :raises bootvol.errors.DiskNotFound: if the store has no disk of this name.
        :raises bootvol.errors.DiskNotAdoptable: if the disk is not a whole disk, or belongs to
            bootvol.
        :raises bootvol.errors.VolumeInUse: if another program has the disk open, as far as the
            backend can tell.
        :raises bootvol.errors.BackendFailed: if the device fails.
        """

    async def give_up(volume: str, place: str) -> None:
        """Rename a volume to a name that is not bootvol's, and leave the content as it is.

        Idempotent: the call does nothing if the volume does not exist.  Afterwards no method takes
        the disk for a volume, and :meth:`adopt` may take the disk over again.

        :param place: the new name in the store, of letters, digits and ``-``.
        :raises bootvol.errors.VolumeInUse: if another program has the volume open, as far as the
            backend can tell.
        :raises bootvol.errors.BackendFailed: if another disk has the name, or the device fails.
        """


class ISnapshotAdoptingBackend(Interface):
    """Optional interface of a backend whose disks have snapshots within themselves."""

    async def stored_snapshots() -> Sequence[StoredDisk]:
        """Return the snapshots within all disks of the store, in any order.

        The origin of each is the disk with the snapshot.

        :raises bootvol.errors.BackendFailed: if the backend cannot tell.
        """

    async def adopt_snapshot(volume: str, place: str, snapshot: str, unit: int) -> int | None:
        """Turn a snapshot within a volume into a volume of its own, without a copy.  Idempotent.

        Afterwards the two volumes are independent, as after a clone, and the snapshot within the
        first one is gone.  Sizes and failures are those of :meth:`IAdoptingBackend.adopt`.

        :param volume: name of the volume with the snapshot.
        :param place: name of the snapshot.  The name comes from a caller.
        :param snapshot: name of the new volume.
        :returns: the new volume's size in bytes; None if the volume has no such snapshot.  After
            None the new volume does not exist.
        :raises bootvol.errors.DiskNotAdoptable: if others need the snapshot where it is.
        :raises bootvol.errors.BackendFailed: if ``volume`` does not exist, or the device fails.
        """
