"""The cache of images: one cached image spares later and parallel downloads.

When an import has finished, no user has its volume yet. At this moment a cached image is made from
the volume. That happens if the cache has room, or if other imports wait for the same image. These
imports then clone the cached image, or copy it if the backend does not clone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final
from uuid import uuid4

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from bootvol.backends import Backends
from bootvol.errors import (
    BackendFailed,
    BackendInterrupted,
    BootvolError,
    DatabaseUnavailable,
    DigestMismatch,
    NoSpace,
    WrongStore,
    without_query,
)
from bootvol.imaging.containers import too_large
from bootvol.imaging.target import VolumeTarget
from bootvol.interfaces import IBlockBackend
from bootvol.model import (
    ENCRYPTED,
    GIB,
    STARTED_OVER,
    UNIDENTIFIED,
    CachedImage,
    CacheUse,
    Caution,
    Digest,
    DiskIndex,
    Image,
    Phase,
    Volume,
)
from bootvol.shortage import short_of
from bootvol.store import image_cache as rows
from bootvol.store import strays
from bootvol.store.database import Database
from bootvol.worker.claims import Claim, ClaimLost
from bootvol.worker.clone_or_copy import Origin, clone_or_copy
from bootvol.worker.copier import Copier
from bootvol.worker.progress import Heartbeat, Progress

#: Default limit in GiB of the cached images on a backend that clones.
DEFAULT_GIB: Final = 20
#: Seconds after which a failed removal of a cached image ends the removal of others: the whole
#: backend may be silent.
_PATIENCE: Final = 10.0
#: The warnings about images that `strict_images` refuses.
_LAX: Final = frozenset({UNIDENTIFIED, ENCRYPTED})


class ImageCache:
    """The cached images on all backends.

    :param limits: the limits in GiB of each backend's cached images, by its name. For a backend
        without an entry the limit is :data:`DEFAULT_GIB` if the backend clones, else 0.
    :param use: counts the hits and misses.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        backends: Backends,
        copier: Copier,
        limits: Mapping[str, int],
        use: CacheUse,
    ) -> None:
        self._use = use
        self._database = database
        self._backends = backends
        self._copier = copier
        self._limits = limits
        #: The cached images whose failed removal the log has told.
        self._stuck: set[str] = set()

    async def fill(
        self, volume: Volume, content: str, progress: Progress, heartbeat: Heartbeat
    ) -> bool:
        """Fill a volume from the cached image of some content.

        :param heartbeat: records ``progress`` durably.
        :returns: False if no usable cached image exists; the volume then has to be filled anew.
        :raises ImageTooLarge: if the image's disk is larger than the volume.
        :raises NoSpace: if the backend has no room for the volume.
        :raises BackendFailed: if the backend fails in more than reading the cached image.
        """
        cached = await self._database.write(
            rows.use, volume.backend, volume.host, content, self._now()
        )
        if cached is not None and self._copier.limits.strict and _LAX & {*cached.warnings}:
            # The cached image was made while such images were allowed; now the image is refused.
            cached = None
        progress.cached = cached is not None
        if cached is not None:
            if cached.size > volume.size_bytes:
                raise too_large(cached.size, volume.size_bytes)
            backend = self._backends.named(volume.backend)
            progress.phase = Phase.CLONING
            await progress.forget(heartbeat)
            target = VolumeTarget(backend, volume.name, volume.size_bytes)
            if not await self._is_filled(target, cached, progress):
                await self._database.write(rows.mark_for_eviction, cached.name)
                progress.cached = False
            else:
                progress.warn(*cached.warnings)
        (self._use.hits if progress.cached else self._use.misses)[volume.backend] += 1
        return progress.cached

    async def _is_filled(
        self, target: VolumeTarget, cached: CachedImage, progress: Progress
    ) -> bool:
        """Try to fill a volume from a cached image; return whether that succeeded.

        The method tries twice: a backend may fail for a moment, which says nothing about the golden
        volume.

        :raises BackendFailed: if the backend fails to make any volume.
        """
        origin = Origin(target.backend, cached.name, cached.size, cached.digest)
        for _ in range(2):
            try:
                await target.backend.delete(target.name)
                await clone_or_copy(self._copier, origin, target, progress)
                if self._copier.limits.read_back and cached.digest is not None:
                    await self._copier.verify(target, cached.digest, cached.size)
            except (NoSpace, WrongStore, BackendInterrupted):
                # The work waits for the right store or begins again, and the cached image stays.
                raise
            except (BackendFailed, DigestMismatch) as error:
                if short_of(error):
                    raise
                # The operator may have removed the volume: that is no fault of the program.
                self._log.warn(
                    "golden volume {name} of image {image} is of no use: {error}",
                    name=cached.name,
                    image=without_query(cached.image_id),
                    error=error,
                )
                # If the backend itself fails, this call most likely fails as well, and its error
                # ends the loop.
                await target.renew()
            else:
                return True
        return False

    async def add(
        self,
        volume: Volume,
        image: Image,
        content: str,
        size: int,
        digest: Digest | None,
        warnings: Sequence[Caution],
        claim: Claim,
        index: DiskIndex | None = None,
    ) -> None:
        """Make a cached image from a volume that has just been filled, if that is of use.

        A failure does not affect the volume itself.

        :param size: size of the disk in bytes.
        :param digest: digest of the disk, if known.
        :param warnings: warnings about the image.
        :param claim: the claim on the volume; without the claim nothing is begun.
        :param index: the index of the disk, if known.
        """
        backend = self._backends.named(volume.backend)
        name = f"golden-{uuid4()}"
        cached = CachedImage(
            name,
            volume.backend,
            image.id,
            content,
            size,
            digest,
            0,
            self._now(),
            tuple(each for each in warnings if each != STARTED_OVER),
            volume.host,
        )
        target = VolumeTarget(backend, name, cached.volume_size)
        try:
            awaited = await self._database.read(rows.is_awaited, volume, content)
            if not awaited and size > self._limit(backend):
                return
            if await claim.in_transaction(rows.begin, cached, volume.id):
                origin = Origin(backend, volume.name, size, digest)
                await clone_or_copy(self._copier, origin, target)
                if not await self._database.write(rows.complete, name, index):
                    # Another task gave the cached image up, and may have deleted it before it was
                    # complete.
                    await backend.delete(name)
                    await self._database.write(strays.forget, name)
        except (CancelledError, ClaimLost):
            raise
        except BootvolError as error:
            self._log.warn("golden volume {name} is not made: {error}", name=name, error=error)
            if isinstance(error, NoSpace):
                # At once: the database may lie on the same disk, and takes nothing before.
                with suppress(BackendFailed):
                    await backend.delete(name)
        except Exception:
            self._log.failure("golden volume {name} is not made", name=name)

    async def let_go(self, volume_id: int) -> None:
        """Give up the incomplete cached image that was begun from a volume, if any."""
        await self._database.write(rows.mark_unfinished_for_eviction, volume_id)

    async def tidy(self, name: str) -> None:
        """Remove doomed, incomplete and surplus cached images from a backend.

        Surplus cached images exceed the backend's limit. Failed removals are retried the next
        time.
        """
        await self._remove(name, self._limit(self._backends.named(name)))

    async def make_room(self, name: str, but_for: int = 0) -> bool:
        """Remove all cached images that no import wants from a backend.

        :param but_for: id of a volume whose own import does not count.
        :returns: whether any cached image was removed.
        """
        try:
            return await self._remove(name, 0, but_for)
        except DatabaseUnavailable:
            # The database may lie on the full disk.  Then the caller has to give space back first.
            return False

    async def _remove(self, name: str, limit: int, but_for: int = 0) -> bool:
        """Remove doomed cached images from a backend, and those beyond ``limit`` bytes."""
        host = self._backends.host_of(name)
        doomed = await self._database.write(
            rows.mark_surplus_for_eviction, name, host, limit, but_for
        )
        began, removed = self._copier.clock.seconds(), False
        for cached in doomed:
            try:
                await self._backends.named(name).delete(cached)
                await self._database.write(rows.forget, cached)
            except BackendFailed as error:
                # A program may have this one open, and the others can go.
                if cached not in self._stuck:
                    self._stuck.add(cached)
                    self._log.warn(
                        "golden volume {cached} on backend {name} is not removed yet: {error}",
                        cached=cached,
                        name=name,
                        error=error,
                    )
                if self._copier.clock.seconds() - began > _PATIENCE:
                    break
            else:
                removed = True
                self._stuck.discard(cached)
        return removed

    def _limit(self, backend: IBlockBackend) -> int:
        """Return the limit of a backend's cached images, in bytes."""
        default = DEFAULT_GIB if backend.capabilities.clones else 0
        return self._limits.get(backend.name, default) * GIB

    def _now(self) -> float:
        return time.time()
