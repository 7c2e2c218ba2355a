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
    IGrowingBackend,
    IGuardedBackend,
    IIdentifiedBackend,
    IMeasuredBackend,
    IRoutingBackend,
)
from bootvol_plugins.lvm.adoption import AdoptingLvm
from bootvol_plugins.lvm.backend import BLOCK
from bootvol_plugins.lvm.volumes import PREFIX, TAG, Found

#: The first attribute of volumes with extents of their own: plain, raid and mirror (lvs(8)).
_WHOLE: Final = frozenset("-rRmM")


@implementer(
    IBlockBackend,
    IMeasuredBackend,
    IIdentifiedBackend,
    IGuardedBackend,
    ICountingBackend,
    IRoutingBackend,
    IGrowingBackend,
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
        await self._wipe(volume, size, found.size)

    async def _unmake(self, volume: str) -> None:
        """Wipe a volume.

        After a cancellation or the end of the daemon, the next call wipes from the beginning.
        """
        found = await self._unused(volume)
        if await self._report(f'origin="{PREFIX}{volume}"'):
            # LVM would remove the snapshots together with the volume.
            raise BackendFailed(f"{self._called(volume)} has snapshots that bootvol did not make.")
        await self._wipe(volume, 0, found.size)

    async def _wipe(self, volume: str, start: int, end: int) -> None:
        if start == end:
            return
        device = await self._open_to_write(volume)
        try:
            await self._zero(volume, start, end, device)
        finally:
            await device.close()

    def _kind_obstacle(self, row: Mapping[str, str]) -> str | None:
        if row["lv_attr"][:1] == "o":
            return "the volume has snapshots: delete them first"
        if row["lv_attr"][:1] not in _WHOLE:
            return "this is no volume with extents of its own"
        return None

    async def _grow(self, volume: str, found: Found, size: int) -> None:
        await self._lengthen_with_zeros(volume, size)
