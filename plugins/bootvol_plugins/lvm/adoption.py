"""Takes over logical volumes of other programs, and gives volumes up.

A volume is bootvol's if it has both the tag and the prefix of its name.  The tag comes first and
goes last, so the rename decides whose the volume is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from bootvol.clocks import sleep
from bootvol.errors import DiskNotAdoptable, DiskNotFound, VolumeInUse
from bootvol.model import StoredDisk
from bootvol_plugins.lvm.backend import LOOK, LOOKS
from bootvol_plugins.lvm.growth import GrowingLvm
from bootvol_plugins.lvm.volumes import FIELDS, PREFIX, TAG, Found

#: The fields of a report on all volumes of the group.
_FIELDS: Final = (*FIELDS, "lv_name", "lv_attr", "pool_lv", "origin")
#: Names that LVM allows (lvm(8), "VALID NAMES").
_NAME: Final = re.compile(r"[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]{0,126}")
#: LVM reserves names with this beginning.  Cinder puts the sign before them, too.
_RESERVED: Final = "snapshot"
_SIGN: Final = "_"


class AdoptingLvm(GrowingLvm):
    """A backend that takes volumes over."""

    async def stored_disks(self) -> Sequence[StoredDisk]:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.stored_disks`."""
        return [_disk(row, self._obstacle(row)) for row in await self._rows()]

    async def stored_disk(self, place: str) -> StoredDisk | None:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.stored_disk`."""
        found = [each for each in await self.stored_disks() if each.place == _name(place)]
        return found[0] if found and _NAME.fullmatch(place) else None

    async def adopt(self, place: str, volume: str, unit: int) -> int:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.adopt`."""
        async with self._changing:
            if await self._find(volume) is None:
                name = f"{self._group}/{await self._closed(place)}"
                await self._lvm.run("lvchange", "--addtag", TAG, name)
                await self._prepare(name)
                await self._lvm.run("lvrename", name, self._lv(volume))
        found = await self._active(volume)
        whole = -(-(found.content or found.size) // unit) * unit
        await self.grow(volume, whole)
        return whole

    async def give_up(self, volume: str, place: str) -> None:
        """See :meth:`bootvol.interfaces.IAdoptingBackend.give_up`."""
        self._newest = None
        if await self._find(volume) is None:
            await self._untag(place)
            return
        await self._unused(volume)
        name = f"{self._group}/{_name(place)}"
        async with self._changing:
            await self._lvm.run("lvrename", self._lv(volume), name)
            await self._lvm.run("lvchange", "--deltag", TAG, name)

    async def _untag(self, place: str) -> None:
        """Remove the tag of a volume whose change of names was broken off before or after."""
        async with self._changing:
            for row in await self._rows():
                if row["lv_name"] == _name(place) and Found.of_row(row).ours and not _is_ours(row):
                    name = f"{self._group}/{row['lv_name']}"
                    await self._lvm.run("lvchange", "--deltag", TAG, name)

    async def _closed(self, place: str) -> str:
        """Return the name of a volume that may be taken over, when its device is closed.

        :raises DiskNotFound: if there is no such volume.
        :raises DiskNotAdoptable: if the volume cannot be taken over.
        :raises VolumeInUse: if another program still has the volume open after all checks.
        """
        called = f"Volume {place[:255]} of group {self._group}"
        for _ in range(LOOKS):
            rows = [row for row in await self._rows() if row["lv_name"] == _name(place)]
            if not _NAME.fullmatch(place) or not rows:
                raise DiskNotFound(f"{called} does not exist.")
            obstacle = self._obstacle(rows[0])
            if _is_ours(rows[0]):
                obstacle = "the volume belongs to bootvol"
            if obstacle is None:
                return _name(place)
            if obstacle is not _OPEN:
                raise DiskNotAdoptable(f"{called} cannot be taken over: {obstacle}.")
            await sleep(self._clock, LOOK)
        raise VolumeInUse(f"A guest or another program has volume {place} open.")

    async def _rows(self) -> Sequence[Mapping[str, str]]:
        """Return LVM's report of the group's volumes.

        :raises WrongStore: if the group is not the one with the backend's volumes.
        """
        rows = await self._lvm.report("lvs", _FIELDS, self._group)
        await self._check_store(rows)
        # A pool is no disk.
        return [row for row in rows if row["lv_attr"][:1] != "t"]

    def _obstacle(self, row: Mapping[str, str]) -> str | None:
        """Return why a volume of another program cannot be taken over now."""
        if _is_ours(row):
            return None
        obstacle = self._kind_obstacle(row)
        if obstacle is None and row["lv_attr"][1:2] != "w":
            return "the volume is read-only"
        return _OPEN if obstacle is None and Found.of_row(row).is_open else obstacle

    def _kind_obstacle(self, row: Mapping[str, str]) -> str | None:
        """Return why this kind of volume is not the backend's."""
        raise NotImplementedError

    async def _prepare(self, name: str) -> None:
        """Prepare a volume of another program for its new life.

        :param name: the volume's name in LVM's form.
        """


_OPEN: Final = "another program has the volume open"


def _name(place: str) -> str:
    return _SIGN + place if place.startswith(_RESERVED) else place


def _is_ours(row: Mapping[str, str]) -> bool:
    return row["lv_name"].startswith(PREFIX) and Found.of_row(row).ours


def _disk(row: Mapping[str, str], obstacle: str | None) -> StoredDisk:
    name, size = row["lv_name"], int(row["lv_size"])
    ours = name.removeprefix(PREFIX) if _is_ours(row) else None
    return StoredDisk(name, size, ours, obstacle, row["origin"] or None)
