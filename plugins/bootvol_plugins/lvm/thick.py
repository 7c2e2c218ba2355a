"""Thick volumes in a volume group, which are wiped on deletion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from zope.interface import implementer

from bootvol.errors import BackendFailed
from bootvol.interfaces import (
    Capabilities,
    IAdoptingBackend,
    IBlockBackend,
    ICountingBackend,
    IGuardedBackend,
    IIdentifiedBackend,
    IMeasuredBackend,
    IRoutingBackend,
)
from bootvol_plugins.lvm.adoption import AdoptingLvm
from bootvol_plugins.lvm.backend import BLOCK
from bootvol_plugins.lvm.volumes import PREFIX, TAG, Found

#: Bytes to wipe between two looks at the clock, and seconds between two progress reports.
_WIPED: Final = 1024**3
_REPORT: Final = 10.0
#: The first attribute of volumes with extents of their own: plain, raid and mirror (lvs(8)).
_WHOLE: Final = frozenset("-rRmM")


@implementer(
    IBlockBackend,
    IMeasuredBackend,
    IIdentifiedBackend,
    IGuardedBackend,
    ICountingBackend,
    IRoutingBackend,
    IAdoptingBackend,
)
class ThickBackend(AdoptingLvm):
    """Volumes with their own extents. New extents hold old data, so deletion wipes a volume."""

    capabilities = Capabilities(reads_zero_when_new=False, block_size=BLOCK, local=True)

    async def _make(self, volume: str, size: int) -> None:
        words = ("-L", f"{size}b", "-n", f"{PREFIX}{volume}", "--addtag", TAG)
        # The core zeroes the whole volume.
        blank = ("--zero", "n", "--wipesignatures", "n")
        await self._lvm.run("lvcreate", "-y", *words, *blank, self._group)

    async def _made(self, volume: str, size: int, found: Found) -> None:
        # A guest sees whole extents. The core does not know the part beyond the size.
        await self._zero(volume, size, found.size)

    async def _unmake(self, volume: str) -> None:
        """Wipe a volume.

        After a cancellation or the end of the daemon, the next call wipes from the beginning.
        """
        found = await self._unused(volume)
        if await self._report(f'origin="{PREFIX}{volume}"'):
            # LVM would remove the snapshots together with the volume.
            raise BackendFailed(f"{self._called(volume)} has snapshots that bootvol did not make.")
        await self._zero(volume, 0, found.size)

    async def _zero(self, volume: str, start: int, end: int) -> None:
        """Make a range of a volume read as zeros durably, and log the progress."""
        if start == end:
            return
        device = await self._open_to_write(volume)
        said = self._clock.seconds()
        try:
            for offset in range(start, end, _WIPED):
                await device.zero(offset, min(_WIPED, end - offset))
                if self._clock.seconds() - said > _REPORT:
                    said = self._clock.seconds()
                    self._log.info(
                        "wiping {volume}: {done} of {all} GiB",
                        volume=self._called(volume),
                        done=offset // _WIPED + 1,
                        all=-(-end // _WIPED),
                    )
            await device.flush()
        finally:
            await device.close()

    def _kind_obstacle(self, row: Mapping[str, str]) -> str | None:
        if row["lv_attr"][:1] == "o":
            return "the volume has snapshots: delete them first"
        if row["lv_attr"][:1] not in _WHOLE:
            return "this is no volume with extents of its own"
        return None

    async def _extended(self, volume: str, start: int, found: Found) -> None:
        # New extents hold old data.
        await self._zero(volume, start, found.size)
