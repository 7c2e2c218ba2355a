"""Makes logical volumes larger.  New extents of the group hold old data, so they are zeroed."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from bootvol.devices import OpenDevice
from bootvol.errors import BackendFailed
from bootvol_plugins.lvm.backend import LvmBackend
from bootvol_plugins.lvm.volumes import CONTENT, Found

#: Bytes to zero between two looks at the clock, and seconds between two progress reports.
_ZEROED: Final = 1024**3
_REPORT: Final = 10.0


class GrowingLvm(LvmBackend):
    """A backend of volumes that become larger."""

    async def grow(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IGrowingBackend.grow`."""
        self._newest = None
        found = await self._active(volume)
        if found.content is not None or found.size < found.whole(size):
            await self._grow(volume, found, size)

    async def _grow(self, volume: str, found: Found, size: int) -> None:
        """Make a volume larger, whose size is too small or whose growth has begun."""
        raise NotImplementedError

    async def _lengthen(self, volume: str, whole: int) -> None:
        """Make a volume at least ``whole`` bytes long."""
        async with self._changing:
            try:
                await self._lvm.run("lvextend", "-y", "-L", f"{whole}b", self._lv(volume))
            except BackendFailed:
                # LVM refuses a size that another daemon has set meanwhile.
                if (await self._active(volume)).size < whole:
                    raise

    async def _lengthen_with_zeros(self, volume: str, size: int) -> None:
        """Make a volume larger, and zero the new extents.

        The device is open exclusively from the first look to the last change.  So a late call of a
        daemon without its claim zeroes nothing that a guest has written.
        """
        device = await self._open_to_write(volume)
        try:
            found = await self._active(volume)
            if found.content is None and found.size < found.whole(size):
                # Without the tag, a crash would hide which part has to be zeroed.
                await self._tag("--addtag", volume, found.size)
                found = await self._active(volume)
            if found.content is not None:
                await self._lengthen_from(volume, found.content, found.whole(size), device)
        finally:
            await device.close()

    async def _lengthen_from(
        self, volume: str, content: int, whole: int, device: OpenDevice
    ) -> None:
        try:
            await self._lengthen(volume, whole)
            end = (await self._active(volume)).size
            await self._zero(volume, content, end, device)
        except BackendFailed:
            # The old data must not stay.  If this fails, too, the tag keeps everybody away.
            with suppress(BackendFailed):
                await self._shorten(volume, content)
                await self._tag("--deltag", volume, content)
            raise
        await self._tag("--deltag", volume, content)

    async def _shorten(self, volume: str, size: int) -> None:
        async with self._changing:
            if (await self._active(volume)).size > size:
                await self._lvm.run(*self._reduce, "-L", f"{size}b", self._lv(volume))

    async def _tag(self, option: str, volume: str, content: int) -> None:
        """Add or remove the tag of a volume whose first ``content`` bytes are good."""
        async with self._changing:
            await self._lvm.run("lvchange", option, f"{CONTENT}{content}", self._lv(volume))

    async def _zero(self, volume: str, start: int, end: int, device: OpenDevice) -> None:
        """Make a range of a volume read as zeros durably, and log the progress."""
        said = self._clock.seconds()
        for offset in range(start, end, _ZEROED):
            await device.zero(offset, min(_ZEROED, end - offset))
            if self._clock.seconds() - said > _REPORT:
                said = self._clock.seconds()
                self._log.info(
                    "wiping {volume}: {done} of {all} GiB",
                    volume=self._called(volume),
                    done=offset // _ZEROED + 1,
                    all=-(-end // _ZEROED),
                )
        await device.flush()
