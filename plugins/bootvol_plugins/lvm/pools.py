"""A thin pool: how full it is, and a writer that stops before it is full.

Thin volumes promise more than there is.  A pool that is full breaks what writes to it, in the
guests of others too; so nothing new is let in from a limit on, and what writes watches it.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from bootvol.devices import OpenDevice
from bootvol.errors import BackendFailed, NoSpace
from bootvol.interfaces import IVolumeWriter
from bootvol_plugins.lvm.commands import Lvm

#: Seconds after which it is looked again: guests write, too.
_AGE: Final = 5.0
_FIELDS: Final = ("lv_size", "data_percent", "metadata_percent")

_log = Logger()


class Pool:
    """A thin pool, as all writers to it know it.

    :param clock: provides IReactorTime.
    :param backend: its name, in errors.
    :param limit: percent of data or metadata from which on the pool counts as full.
    """

    def __init__(
        self, lvm: Lvm, clock: Any, backend: str, group: str, name: str, limit: int
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
        """Return how many bytes may be written until it is full.

        :raises NoSpace: it is full.
        :raises BackendFailed: it cannot be told.
        """
        row = await self._look()
        data, metadata = float(row["data_percent"]), float(row["metadata_percent"])
        fullest = max(data, metadata)
        if fullest >= self._limit:
            what = "data" if data >= metadata else "metadata"
            # How much is used is nothing for tenants.
            _log.warn(
                "backend {name} has {fullest:.0f} % of its {what} space used",
                name=self._backend,
                fullest=fullest,
                what=what,
            )
            raise NoSpace(f"Backend {self._backend} has no {what} space left for the volume.")
        free = int(int(row["lv_size"]) * (self._limit - data) / 100)
        if self._is_old():
            self._saw(free)
        return free

    async def take(self, device: OpenDevice, length: int) -> None:
        """See that there is room for ``length`` bytes more, before they are written to a volume.

        :raises NoSpace: there is not.
        :raises BackendFailed: it cannot be told.
        """
        async with self._looking:
            if length > self._left or self._is_old():
                # What only memory has takes no space yet.
                await device.flush()
                free = await self.check()
                if length > free:
                    raise NoSpace(f"Backend {self._backend} has no room for what is written.")
                self._saw(free)
            self._left = max(0, self._left - length)

    def _is_old(self) -> bool:
        return bool(self._clock.seconds() - self._looked > _AGE)

    def _saw(self, free: int) -> None:
        # Half of it: others write as well.
        self._left, self._looked = free // 2, self._clock.seconds()

    async def _look(self) -> Any:
        rows = await self._asked()
        if rows and not rows[0]["data_percent"]:
            # Nothing of it is in use yet since the machine started.
            await self._lvm.run("lvchange", "-ay", f"{self._group}/{self._name}")
            rows = await self._asked()
        if not rows or not rows[0]["data_percent"]:
            raise BackendFailed(f"The thin pool of backend {self._backend} is gone.")
        return rows[0]

    async def _asked(self) -> Any:
        chosen = f'lv_name="{self._name}"'
        return await self._lvm.report("lvs", _FIELDS, "-S", chosen, self._group)


@implementer(IVolumeWriter)
@attrs.frozen
class PoolWriter:
    """A volume in a thin pool, held open for writing."""

    device: OpenDevice
    pool: Pool

    async def write(self, offset: int, data: memoryview) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.write`."""
        await self.pool.take(self.device, len(data))
        await self.device.write(offset, data)

    async def zero(self, offset: int, length: int) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.zero`: zeros take space here, too."""
        await self.pool.take(self.device, length)
        await self.device.zero(offset, length)

    async def flush(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.flush`."""
        await self.device.flush()

    async def close(self) -> None:
        """See :meth:`bootvol.interfaces.IVolumeWriter.close`."""
        await self.device.close()
