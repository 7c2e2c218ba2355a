"""Thin volumes in a volume group.  A thin pool holds them, and clones share their space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zope.interface import implementer

from bootvol.devices import failures
from bootvol.errors import BackendFailed, VolumeCutOff
from bootvol.interfaces import (
    Capabilities,
    IAdoptingBackend,
    IBlockBackend,
    ICloningBackend,
    ICountingBackend,
    IGrowingBackend,
    IGuardedBackend,
    IIdentifiedBackend,
    IMeasuredBackend,
    IRoutingBackend,
    IVolumeWriter,
    PluginContext,
    Room,
)
from bootvol_plugins.lvm.adoption import AdoptingLvm
from bootvol_plugins.lvm.backend import BLOCK
from bootvol_plugins.lvm.pools import Pool, PoolWriter
from bootvol_plugins.lvm.volumes import PREFIX, TAG, Found


@implementer(
    IBlockBackend,
    IMeasuredBackend,
    ICloningBackend,
    IIdentifiedBackend,
    IGuardedBackend,
    ICountingBackend,
    IRoutingBackend,
    IGrowingBackend,
    IAdoptingBackend,
)
class ThinBackend(AdoptingLvm):
    """Volumes in a thin pool. Volumes take space when they are written, and share it with clones.

    :param pool: the name of the pool.
    :param chunk: the pool's chunk size in bytes.
    :param limit: the percentage of used space at which the pool counts as full.
    :param reduce: LVM's command to shrink a volume, up to the size.
    """

    capabilities = Capabilities(reads_zero_when_new=True, block_size=BLOCK, clones=True, local=True)

    def __init__(
        self,
        context: PluginContext,
        binary: str,
        group: str,
        store: str,
        pool: str,
        chunk: int,
        limit: int,
        reduce: Sequence[str],
    ) -> None:
        super().__init__(context, binary, group, store, reduce)
        self._pool_name = pool
        self._chunk = chunk
        self._pool = Pool(self._lvm, context.reactor, context.name, group, pool, limit)

    async def room(self) -> Room:
        """See :meth:`bootvol.interfaces.IMeasuredBackend.room`."""
        return await self._pool.room()

    async def open_writer(self, volume: str) -> IVolumeWriter:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_writer`."""
        return PoolWriter(await self._open_to_write(volume), self._pool)

    async def _make(self, volume: str, size: int) -> None:
        await self._pool.check()
        words = ("-V", f"{size}b", "-n", f"{PREFIX}{volume}", "--addtag", TAG)
        await self._lvm.run("lvcreate", "-y", *words, "--thinpool", self._pool_name, self._group)

    async def clone(self, source: str, target: str, size: int, held: int = 0) -> None:
        """See :meth:`bootvol.interfaces.ICloningBackend.clone`."""
        async with self._changing:
            if await self._find(target) is not None:
                raise BackendFailed(f"{self._called(target)} already exists.")
            if (await self._active(source)).size < held:
                raise VolumeCutOff(self._called(source), held)
            await self._pool.check()
            # Without -kn LVM would skip the snapshot at later activations.
            words = ("-s", "-kn", "-n", f"{PREFIX}{target}", "--addtag", TAG)
            await self._lvm.run("lvcreate", "-y", *words, self._lv(source))
            await self._resize(target, size)

    async def _resize(self, volume: str, size: int) -> None:
        """Resize a clone.

        :param size: the new size in bytes.
        """
        found = await self._active(volume)
        if size < found.size:
            await self._threads.run(self._cut, volume, found, size)
        whole = found.whole(size)
        if whole < found.size:
            await self._lvm.run(*self._reduce, "-L", f"{whole}b", self._lv(volume))
        elif whole > found.size:
            await self._lvm.run("lvextend", "-y", "-L", f"{whole}b", self._lv(volume))

    async def _grow(self, volume: str, found: Found, size: int) -> None:
        # The pool zeroes new chunks.
        await self._pool.check()
        await self._lengthen(volume, found.whole(size))
        if found.content is not None:
            # An earlier version of bootvol had begun.
            await self._tag("--deltag", volume, found.content)

    def _cut(self, volume: str, found: Found, size: int) -> None:
        # Otherwise the cut-off data would stay in the pool, and return when the volume grows.
        with failures(f"Cloning {self._called(volume)} failed"):
            found.cut(size, self._chunk)

    def _kind_obstacle(self, row: Mapping[str, str]) -> str | None:
        if row["lv_attr"][:1] != "V" or row["pool_lv"] != self._pool_name:
            return "the volume is not in the backend's thin pool"
        return None

    async def _prepare(self, name: str) -> None:
        # LVM skips snapshots at activations, unless the flag is taken away.
        await self._lvm.run("lvchange", "-kn", name)
