"""Volumes in a volume group: the common part of thick and thin ones.

The backend touches only logical volumes with bootvol's tag.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Final

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from bootvol.clocks import sleep
from bootvol.devices import OpenDevice, check_unused, failures
from bootvol.errors import (
    BackendFailed,
    ConfigurationError,
    VolumeInUse,
    VolumeMissing,
    WrongStore,
)
from bootvol.interfaces import (
    IVolumeReader,
    IVolumeWriter,
    PluginContext,
    Room,
)
from bootvol.model import ConnectionInfo, LocalRoute
from bootvol_plugins.lvm.commands import Lvm
from bootvol_plugins.lvm.holders import is_left_open
from bootvol_plugins.lvm.volumes import FIELDS, PREFIX, Found

#: Blocks of 4 KiB suit direct I/O on any disk.
BLOCK: Final = 4096
#: How many times the backend checks that a volume is closed, and the seconds between two checks.
#: udev opens a device that another program has just closed.
LOOKS: Final = 5
LOOK: Final = 1.0
#: One lock for each volume group: one command at a time changes a group.
_LOCKS: Final[dict[str, DeferredLock]] = {}


class LvmBackend:
    """The common part of the thick and the thin backend.

    :param binary: the path of LVM's program.
    :param group: the name of the volume group.
    :param store: the identity of the store: the UUID of the group, and of the pool if thin.
    :param reduce: LVM's command to shrink a volume, up to the size.
    """

    _log = Logger()

    def __init__(
        self, context: PluginContext, binary: str, group: str, store: str, reduce: Sequence[str]
    ) -> None:
        self.name = context.name
        self._group = group
        self._threads = context.threads
        self._clock = context.reactor
        self._lvm = Lvm(context.reactor, binary, context.name)
        self._changing = _LOCKS.setdefault(group, DeferredLock())
        self._newest: tuple[str, Found] | None = None
        self._store = store
        self._reduce = reduce
        self._expected: str | None = None
        #: Volumes with a log line that an ended process has the volume open.
        self._hanging: set[str] = set()

    async def identity(self) -> str:
        """See :meth:`bootvol.interfaces.IIdentifiedBackend.identity`."""
        await self._check_store(())
        return self._store

    def expect(self, identity: str) -> None:
        """See :meth:`bootvol.interfaces.IIdentifiedBackend.expect`."""
        self._expected = identity
        if self._store != identity:
            raise ConfigurationError(
                f"backend {self.name!r}: the volumes lie in the store {identity}, but volume group"
                f" {self._group} is the store {self._store}. Connect the right disks, or name the"
                " right group and pool. To continue with the present store, without those"
                " volumes: bootvol db"
                f" forget-store {self.name}"
            )

    async def room(self) -> Room:
        """See :meth:`bootvol.interfaces.IMeasuredBackend.room`."""
        (row,) = await self._lvm.report("vgs", ("vg_size", "vg_free"), self._group)
        return Room(int(row["vg_size"]), int(row["vg_free"]))

    async def allocate(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.allocate`."""
        async with self._changing:
            if await self._find(volume) is None:
                await self._make(volume, size)
        found = await self._active(volume)
        if found.size != found.whole(size):
            raise BackendFailed(f"The place of {self._called(volume)} is taken by something else.")
        await self._made(volume, size, found)
        self._newest = volume, found

    async def _make(self, volume: str, size: int) -> None:
        """Make a volume that does not exist yet."""
        raise NotImplementedError

    async def _made(self, volume: str, size: int, found: Found) -> None:
        """Finish a new volume. Idempotent: an earlier call may have finished the volume already."""

    async def open_writer(self, volume: str) -> IVolumeWriter:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_writer`."""
        return await self._open_to_write(volume)

    async def open_reader(self, volume: str) -> IVolumeReader:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_reader`."""
        found = await self._good(volume)

        def opened() -> OpenDevice:
            with failures(f"Opening {self._called(volume)} failed"):
                descriptor = found.open(os.O_RDONLY)
            return OpenDevice.to_read(self._threads, descriptor, self._called(volume))

        return await self._threads.obtain(OpenDevice.shut, opened)

    async def _open_to_write(self, volume: str) -> OpenDevice:
        # A volume that was just allocated needs no second lookup: Found.open checks that the
        # device is still the volume's.
        newest, self._newest = self._newest, None
        if newest is not None and newest[0] == volume:
            found = newest[1]
        else:
            found = await self._active(volume)

        def opened() -> OpenDevice:
            # With O_EXCL a block device has one such opener only, and no mounted file system.
            with failures(f"Opening {self._called(volume)} failed"):
                descriptor = found.open(os.O_RDWR | os.O_EXCL)
            return OpenDevice.to_write(self._threads, descriptor, self._called(volume))

        looks = LOOKS
        while True:
            try:
                return await self._threads.obtain(OpenDevice.shut, opened)
            except BackendFailed as error:
                cause = error.__cause__
                if not isinstance(cause, OSError) or cause.errno != errno.EBUSY:
                    raise
                # The last opener may just have ended, and a check opens the device for a moment.
                if not await self._is_left_open(volume, found):
                    looks -= 1
                if not looks:
                    raise
            await sleep(self._clock, LOOK)

    async def _is_left_open(self, volume: str, found: Found) -> bool:
        """Return whether only a process that has ended has the volume open: an earlier daemon.

        Such a process lets go of the volume when the disk answers.  Until then the work waits.
        """
        if found.number is None or not await self._threads.run(is_left_open, found.number):
            self._hanging.discard(volume)
            return False
        if volume not in self._hanging:
            self._hanging.add(volume)
            self._log.warn(
                "work waits for the disk of {volume}: a thread of an ended process hangs there",
                volume=self._called(volume),
            )
        return True

    async def delete(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.delete`."""
        self._newest = None
        while (found := await self._find(volume)) is not None and found.is_open:
            if not await self._is_left_open(volume, found):
                break
            await sleep(self._clock, LOOK)
        if found is None:
            return
        await self._unmake(volume)
        async with self._changing:
            await self._lvm.run("lvremove", "-y", self._lv(volume))

    async def _unmake(self, volume: str) -> None:
        """Prepare a volume for its removal."""

    async def check_unused(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IGuardedBackend.check_unused`.

        Check QEMU's locks, and whether the system uses the device, for example for a mounted
        file system.  A second check at the same time, also of another daemon, looks like such a
        use for a moment.
        """
        for left in reversed(range(LOOKS)):
            found = await self._active(volume)
            try:
                await self._threads.run(self._check_unused, volume, found)
            except VolumeInUse:
                if not left:
                    raise
                await sleep(self._clock, LOOK)
            else:
                break

    def _check_unused(self, volume: str, found: Found) -> None:
        called = self._called(volume)
        with failures(f"Opening {called} failed"):
            try:
                descriptor = found.open(os.O_RDONLY | os.O_EXCL)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise VolumeInUse(f"Another program has {called} open.") from error
            try:
                check_unused(descriptor, called)
            finally:
                os.close(descriptor)

    async def check_closed(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.ICountingBackend.check_closed`.

        The device mapper counts the openers of a device.
        """
        await self._unused(volume)

    async def _unused(self, volume: str) -> Found:
        """Return a volume when its device is closed.

        :raises VolumeInUse: if another program still has the volume open after all checks.
        """
        for _ in range(LOOKS):
            found = await self._active(volume)
            if not found.is_open:
                return found
            await sleep(self._clock, LOOK)
        raise VolumeInUse(f"A guest or another program has {self._called(volume)} open.")

    async def connection(self, volume: str) -> ConnectionInfo:
        """See :meth:`bootvol.interfaces.IBlockBackend.connection`."""
        return ConnectionInfo("block", (await self._good(volume)).path)

    async def route(self, volume: str) -> LocalRoute:
        """See :meth:`bootvol.interfaces.IRoutingBackend.route`."""
        return LocalRoute((await self._good(volume)).path)

    async def _good(self, volume: str) -> Found:
        """Return a volume without old data of others.

        :raises BackendFailed: if the volume does not exist, or its growth has not ended.
        """
        found = await self._active(volume)
        if found.content is not None:
            raise BackendFailed(
                f"{self._called(volume)} has become larger, and its new part is not zeroed yet."
            )
        return found

    async def _active(self, volume: str) -> Found:
        """Return a volume, activated if necessary.

        :raises BackendFailed: if the volume does not exist.
        """
        found = await self._find(volume)
        if found is not None and found.number is None:
            # The machine was restarted, or the command that made the volume was killed.
            await self._lvm.run("lvchange", "-ay", self._lv(volume))
            found = await self._find(volume)
        if found is None:
            raise VolumeMissing(f"{self._called(volume)} does not exist.")
        return found

    async def _find(self, volume: str) -> Found | None:
        """Return the logical volume of a volume's name; None if there is none.

        :raises BackendFailed: if the logical volume lacks bootvol's tag.
        :raises WrongStore: if the group is not the one with the backend's volumes.
        """
        rows = await self._report(f'lv_name="{PREFIX}{volume}"')
        await self._check_store(rows)
        if not rows:
            return None
        found = Found.of_row(rows[0])
        if not found.ours:
            raise BackendFailed(
                f"{self._lv(volume)} on backend {self.name} does not belong to bootvol: the tag is"
                " missing."
            )
        return found

    async def _check_store(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Check that the group is the expected one.

        :param rows: rows of a report on the group; if empty, LVM is asked for the group's UUID.
        :raises WrongStore: if the group or the pool is another one.
        """
        if self._expected is None:
            return
        if not rows:
            rows = await self._lvm.report("vgs", ("vg_uuid",), self._group)
        if self._store != self._expected or rows[0]["vg_uuid"] != self._expected.split("/")[0]:
            raise WrongStore(
                f"Backend {self.name} has another volume group or pool than the one with its"
                " volumes."
            )

    async def _report(self, chosen: str) -> list[Mapping[str, str]]:
        """Return LVM's report of the group's volumes that match a selection (``-S``)."""
        return await self._lvm.report("lvs", FIELDS, "-S", chosen, self._group)

    def _lv(self, volume: str) -> str:
        """Return the name of a volume in LVM's form."""
        return f"{self._group}/{PREFIX}{volume}"

    def _called(self, volume: str) -> str:
        return f"{volume} on backend {self.name}"
