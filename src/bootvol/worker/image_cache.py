"""The cache of images: one cached image (golden volume) spares later and parallel downloads.

When an import has finished, no user has its volume yet. At this moment a golden volume is made from
the volume. That happens if the cache has room, or if other imports wait for the same image. These
imports then clone the golden volume, or copy it if the backend does not clone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import uuid4

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from bootvol.backends import Backends
from bootvol.errors import BackendFailed, BootvolError, DigestMismatch, NoSpace, WrongStore
from bootvol.imaging.containers import too_large
from bootvol.imaging.target import OnBackend
from bootvol.interfaces import IBlockBackend
from bootvol.model import (
    GIB,
    STARTED_OVER,
    UNIDENTIFIED,
    CacheUse,
    Caution,
    Digest,
    Golden,
    Image,
    Phase,
    Volume,
)
from bootvol.shortage import short_of
from bootvol.store import goldens as rows
from bootvol.store import strays
from bootvol.store.database import Database
from bootvol.worker.claims import Held, Unwanted
from bootvol.worker.clone_or_copy import Origin, duplicate
from bootvol.worker.copier import Copier
from bootvol.worker.progress import Keep, Progress

#: Default limit in GiB of the golden volumes on a backend that clones.
DEFAULT_GIB: Final = 20


class Goldens:
    """The golden volumes on all backends.

    :param limits: the limits in GiB of each backend's golden volumes, by its name. For a backend
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

    async def fill(self, volume: Volume, content: str, progress: Progress, keep: Keep) -> bool:
        """Fill a volume from the golden volume of some content.

        :param keep: records ``progress`` durably.
        :returns: False if no usable golden volume exists; the volume then has to be filled anew.
        :raises ImageTooLarge: if the image's disk is larger than the volume.
        :raises NoSpace: if the backend has no room for the volume.
        :raises BackendFailed: if the backend fails in more than reading the golden volume.
        """
        golden = await self._database.write(rows.take, volume.backend, content, self._now())
        if golden is not None and self._copier.limits.strict and UNIDENTIFIED in golden.warnings:
            # The golden volume was made while unidentified images were allowed; now the image is
            # refused.
            golden = None
        progress.cached = golden is not None
        if golden is not None:
            if golden.size > volume.size_bytes:
                raise too_large(golden.size, volume.size_bytes)
            backend = self._backends.named(volume.backend)
            progress.phase = Phase.CLONING
            await progress.forget(keep)
            place = OnBackend(backend, volume.name, volume.size_bytes)
            if not await self._is_filled(place, golden, progress):
                await self._database.write(rows.doom, golden.name)
                progress.cached = False
            else:
                progress.warn(*golden.warnings)
        (self._use.hits if progress.cached else self._use.misses)[volume.backend] += 1
        return progress.cached

    async def _is_filled(self, place: OnBackend, golden: Golden, progress: Progress) -> bool:
        """Try to fill a volume from a golden volume; return whether that succeeded.

        The method tries twice: a backend may fail for a moment, which says nothing about the golden
        volume.

        :raises BackendFailed: if the backend fails to make any volume.
        """
        origin = Origin(place.backend, golden.name, golden.size, golden.digest)
        for _ in range(2):
            try:
                await place.backend.delete(place.name)
                await duplicate(self._copier, origin, place, progress)
                if self._copier.limits.read_back and golden.digest is not None:
                    await self._copier.verify(place, golden.digest, golden.size)
            except (NoSpace, WrongStore):
                # The work waits for the right store, and the golden volume stays.
                raise
            except (BackendFailed, DigestMismatch) as error:
                if short_of(error):
                    raise
                # The operator may have removed the volume: that is no fault of the program.
                self._log.warn(
                    "golden volume {name} of image {image} is of no use: {error}",
                    name=golden.name,
                    image=golden.image_id,
                    error=error,
                )
                # If the backend itself fails, this call most likely fails as well, and its error
                # ends the loop.
                await place.renew()
            else:
                return True
        return False

    async def keep(
        self,
        volume: Volume,
        image: Image,
        content: str,
        size: int,
        digest: Digest | None,
        warnings: Sequence[Caution],
        claim: Held,
    ) -> None:
        """Make a golden volume from a volume that has just been filled, if that is of use.

        A failure does not affect the volume itself.

        :param size: size of the disk in bytes.
        :param digest: digest of the disk, if known.
        :param warnings: warnings about the image.
        :param claim: the claim on the volume; without the claim nothing is begun.
        """
        backend = self._backends.named(volume.backend)
        name = f"golden-{uuid4()}"
        golden = Golden(
            name,
            volume.backend,
            image.id,
            content,
            size,
            digest,
            0,
            self._now(),
            tuple(each for each in warnings if each != STARTED_OVER),
        )
        place = OnBackend(backend, name, golden.volume_size)
        try:
            awaited = await self._database.read(rows.is_awaited, volume.backend, content, volume.id)
            if not awaited and size > self._limit(backend):
                return
            if await claim.note(rows.begin, golden, volume.id):
                origin = Origin(backend, volume.name, size, digest)
                await duplicate(self._copier, origin, place)
                if not await self._database.write(rows.complete, name):
                    # Another task gave the golden volume up, and may have deleted it before it was
                    # complete.
                    await backend.delete(name)
                    await self._database.write(strays.forget, name)
        except (CancelledError, Unwanted):
            raise
        except BootvolError as error:
            self._log.warn("golden volume {name} is not made: {error}", name=name, error=error)
        except Exception:
            self._log.failure("golden volume {name} is not made", name=name)

    async def let_go(self, volume_id: int) -> None:
        """Give up the incomplete golden volume that was begun from a volume, if any."""
        await self._database.write(rows.doom_unfinished, volume_id)

    async def tidy(self, name: str) -> None:
        """Remove doomed, incomplete and surplus golden volumes from a backend.

        Surplus golden volumes exceed the backend's limit. Failed removals are retried the next
        time.
        """
        await self._remove(name, self._limit(self._backends.named(name)))

    async def make_room(self, name: str, but_for: int = 0) -> bool:
        """Remove all golden volumes that no import wants from a backend.

        :param but_for: id of a volume whose own import does not count.
        :returns: whether any such golden volumes existed.
        """
        return await self._remove(name, 0, but_for)

    async def _remove(self, name: str, limit: int, but_for: int = 0) -> bool:
        """Remove doomed golden volumes from a backend, and those beyond ``limit`` bytes."""
        doomed = await self._database.write(rows.doom_surplus, name, limit, but_for)
        try:
            for golden in doomed:
                await self._backends.named(name).delete(golden)
                await self._database.write(rows.forget, golden)
        except BackendFailed as error:
            self._log.warn("golden volumes are not removed: {error}", error=error)
        return bool(doomed)

    def _limit(self, backend: IBlockBackend) -> int:
        """Return the limit of a backend's golden volumes, in bytes."""
        default = DEFAULT_GIB if backend.capabilities.clones else 0
        return self._limits.get(backend.name, default) * GIB

    def _now(self) -> float:
        return time.time()
