"""A thin pool: how full the pool is, and a writer that stops before the pool is full.

Thin volumes promise more space than the pool has. A full pool breaks the writes of all its guests.
So from a limit on the pool takes no new volumes, and each writer watches the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from bootvol.devices import OpenDevice
from bootvol.errors import BackendFailed, NoSpace
from bootvol.interfaces import IVolumeWriter, Room
from bootvol_plugins.lvm.commands import Lvm

#: Seconds until the pool is asked again: guests write, too.
_AGE: Final = 5.0
_FIELDS: Final = ("lv_size", "data_percent", "metadata_percent")

_log = Logger()


class Pool:
    """A thin pool, shared by all its writers.

    :param clock: provides IReactorTime.
    :param backend: the backend's name, for errors.
    :param limit: the percentage of used data or metadata space at which the pool counts as full.
    """

    def __init__(
        self, lvm: Lvm, clock: IReactorTime, backend: str, group: str, name: str, limit: int
    ) -> None:
        self._lvm = lvm
        self._clock = clock
        self._backend = backend
        self._group = group
        self._name = name
        self._limit = limit
        self._looking = DeferredLock()
        self._left = 0
        self._looked = 0.0

    async def check(self) -> int:
        """Return how many bytes may be written until the pool is full.

        :raises NoSpace: if the pool is full.
        :raises BackendFailed: if LVM fails, or the pool is gone.
        """
        row = await self._look()
        data, metadata = float(row["data_percent"]), float(row["metadata_percent"])
        fullest = max(data, metadata)
        if fullest >= self._limit:
            what = "data" if data >= metadata else "metadata"
            # Tenants must not learn how much space is used.
            _log.warn(
                "backend {name} has {fullest:.0f} % of its {what} space used",
                name=self._backend,
                fullest=fullest,
                what=what,
            )
            raise NoSpace(f"Backend {self._backend} has no {what} space left.")
        free = int(int(row["lv_size"]) * (self._limit - data) / 100)
        if self._is_old():
            self._saw(free)
        return free

    async def room(self) -> Room:
        """Return the space of the pool.

        :raises BackendFailed: if LVM fails, or the pool is gone.
        """
        row = await self._look()
        size = int(row["lv_size"])
        return Room(size, int(size * (100 - float(row["data_percent"])) / 100))

    async def take(self, device: OpenDevice, length: int) -> None:
        """Reserve room for ``length`` bytes, before they are written to a volume.

        :raises NoSpace: if the pool has no room for them.
        :raises BackendFailed: if LVM fails, or the pool is gone.
        """
        async with self._looking:
            if length > self._left or self._is_old():
                # Unflushed data is in memory only, and takes no space in the pool yet.
                await device.flush()
                free = await self.check()
                if length > free:
                    raise NoSpace(f"Backend {self._backend} has no space left for writes.")
                self._saw(free)
            self._left = max(0, self._left - length)

    def _is_old(self) -> bool:
        return bool(self._clock.seconds() - self._looked > _AGE)

    def _saw(self, free: int) -> None:
        # Use half of the free space: others write as well.
        self._left, self._looked = free // 2, self._clock.seconds()

    async def _look(self) -> Mapping[str, str]:
        rows = await self._asked()
        if rows and not rows[0]["data_percent"]:
            # No volume of the pool has been used since the machine started.
            await self._lvm.run("lvchange", "-ay", f"{self._group}/{self._name}")
            rows = await self._asked()
        if not rows or not rows[0]["data_percent"]:
            raise BackendFailed(f"The thin pool of backend {self._backend} is gone.")
        return rows[0]

    async def _asked(self) -> Sequence[Mapping[str, str]]:
        chosen = f'lv_name="{self._name}"'
        return await self._lvm.report("lvs", _FIELDS, "-S", chosen, self._group)


@implementer(IVolumeWriter)
@attrs.frozen
class PoolWriter:
    """An open writer of a volume in a thin pool."""

    device: OpenDevice
    pool: Pool

    async def write(self, offset: int, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.write`."""
        await self.pool.take(self.device, len(data))
        await self.device.write(offset, data)

    async def zero(self, offset: int, length: int) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.zero`: here zeros take space, too."""
        await self.pool.take(self.device, length)
        await self.device.zero(offset, length)

    async def flush(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.flush`."""
        await self.device.flush()

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.close`."""
        await self.device.close()
