"""Makes volumes from a cached image of an earlier release: only what differs is written."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Final

from twisted.logger import Logger

from bootvol.backends import Backends
from bootvol.imaging.chunk_index import ChunkIndex
from bootvol.imaging.delta import Base, DeltaTarget
from bootvol.imaging.target import VolumeTarget
from bootvol.model import DiskIndex, Image, Volume, family_of
from bootvol.store import disk_indexes as rows
from bootvol.store.database import Database
from bootvol.threads import Threads

#: Bytes of a MiB.
MIB: Final = 1024 * 1024
#: The largest depth of a base.  On RBD a clone reads through all images that it was made from, and
#: bootvol copies the data of a clone with more than eight.  Each release adds two.
_DEEPEST: Final = 1


class Deltas:
    """The targets of imports, with the bases that they are made from.

    :param threads: threads for hashing.
    :param enabled: names of the backends whose volumes are made from earlier releases.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        backends: Backends,
        threads: Threads,
        enabled: Collection[str] = (),
    ) -> None:
        self._database = database
        self._backends = backends
        self._threads = threads
        self._enabled = enabled
        #: Backends whose missing ability the log has told.
        self._unable: set[str] = set()

    def target(self, volume: Volume, image: Image, content: str | None) -> VolumeTarget:
        """Return the target of an import.

        :param content: key of the image's bytes; without a key no cached image is made.
        """
        backend = self._backends.named(volume.backend)
        able = backend.capabilities.clones and backend.capabilities.reads_zero_when_new
        name, size = volume.name, volume.size_bytes
        if volume.backend in self._enabled and not able and volume.backend not in self._unable:
            self._unable.add(volume.backend)
            self._log.warn(
                "delta = true has no effect on backend {name}, which makes no clones of volumes",
                name=volume.backend,
            )
        if content is None or not able or volume.backend not in self._enabled:
            return VolumeTarget(backend, name, size)
        find = partial(self._base, volume, family_of(image))
        return DeltaTarget(backend, name, size, self._threads, find)

    async def index_of(
        self, target: VolumeTarget, volume: Volume, image: Image
    ) -> DiskIndex | None:
        """Return the index of a volume that an import has just filled; None without an index."""
        if not isinstance(target, DeltaTarget) or target.contents is None:
            return None
        contents, base = target.contents, target.base
        if base is not None:
            self._log.info(
                "{volume} kept {kept} MiB of {base}, and {written} MiB were written",
                volume=volume.name,
                kept=contents.kept // MIB,
                base=base.name,
                written=contents.written // MIB,
            )
        index = await self._threads.run(contents.index)
        if index is None:
            return None
        chunks = await self._threads.run(index.to_bytes)
        depth = 0 if base is None else base.depth + 1
        return DiskIndex(family_of(image), volume.tenant, depth, chunks)

    async def _base(self, volume: Volume, family: str) -> Base | None:
        """Return the cached image to make a volume from; None if none fits."""
        found = await self._database.read(rows.find, volume, family, _DEEPEST)
        if found is None:
            return None
        name, size, stored = found
        try:
            index = await self._threads.run(ChunkIndex.of_bytes, stored.chunks)
        except ValueError as error:
            self._log.warn("golden volume {name} is no base: {error}", name=name, error=error)
            return None
        return Base(name, index, size, stored.depth)
