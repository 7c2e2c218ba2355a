"""Golden volumes: the second volume of an image needs no download, and many at once only one.

When an import has come to its end, the volume is still nobody's: that is when a golden volume is
made of it, if it is worth keeping or if other imports wait for the same image.  Those then are
clones of it, or copies where the backend does not clone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import uuid4

import attrs
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from bootvol.errors import BackendFailed, BootvolError, DigestMismatch, NoSpace, WrongStore
from bootvol.imaging.containers import too_large
from bootvol.interfaces import IBlockBackend
from bootvol.model import (
    GIB,
    STARTED_OVER,
    UNIDENTIFIED,
    Caution,
    Digest,
    Golden,
    Image,
    Phase,
    Volume,
)
from bootvol.service.backends import Backends
from bootvol.service.duplicates import Origin, duplicate
from bootvol.service.held import Held, Unwanted
from bootvol.service.places import Copier, OnBackend
from bootvol.service.progress import Keep, Progress
from bootvol.shortage import short_of
from bootvol.store import goldens as rows
from bootvol.store import strays
from bootvol.store.database import Database

#: What golden volumes may take of a backend that clones, unless the operator says otherwise: GiB.
DEFAULT_GIB: Final = 20


def content_of(image: Image) -> str | None:
    """Return what stands for an image's bytes as its source gives them; None if nothing does.

    Two images are the same only if they are one image of one source: that a source gave it to a
    tenant is what says that the tenant may have it.  A digest alone would let whoever knows one
    have the image.
    """
    known = image.digest.value if image.digest else image.validator
    if known is None:
        return None
    said = json.dumps([image.source, image.id, image.format, bool(image.digest), known])
    return hashlib.sha256(said.encode()).hexdigest()


@attrs.frozen
class CacheUse:
    """What golden volumes were good for since the daemon started.

    :ivar hits: imports that needed no download, by backend.
    :ivar misses: those that did, though their image is one that can be told from others.
    """

    hits: Counter[str] = attrs.Factory(Counter)
    misses: Counter[str] = attrs.Factory(Counter)


class Goldens:
    """The golden volumes on all backends.

    :param limits: the GiB that they may take of a backend, by its name; of one that is not there
        :data:`DEFAULT_GIB` if it clones, and nothing if it does not.
    :ivar use: what they were good for.
    """

    _log = Logger()

    def __init__(
        self, database: Database, backends: Backends, copier: Copier, limits: Mapping[str, int]
    ) -> None:
        self.use = CacheUse()
        self._database = database
        self._backends = backends
        self._copier = copier
        self._limits = limits

    async def fill(self, volume: Volume, content: str, progress: Progress, keep: Keep) -> bool:
        """Fill a volume from the golden one of some content.

        :param keep: writes ``progress`` down durably.
        :returns: False if there is none that is of use; the volume then has to be filled anew.
        :raises ImageTooLarge: the image's disk is larger than the volume.
        :raises NoSpace: there is no room for the volume.
        :raises BackendFailed: the backend fails in more than reading the golden volume.
        """
        golden = await self._database.write(rows.take, volume.backend, content, self._now())
        if golden is not None and self._copier.limits.strict and UNIDENTIFIED in golden.warnings:
            # It was made while that was allowed; the image itself is refused.
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
        (self.use.hits if progress.cached else self.use.misses)[volume.backend] += 1
        return progress.cached

    async def _is_filled(self, place: OnBackend, golden: Golden, progress: Progress) -> bool:
        """Fill a volume from a golden one, and tell whether that can be done.

        It is tried twice: a backend may fail for a moment, which says nothing of the golden volume.

        :raises BackendFailed: the backend fails in making any volume.
        """
        origin = Origin(place.backend, golden.name, golden.size, golden.digest)
        for _ in range(2):
            try:
                await place.backend.delete(place.name)
                await duplicate(self._copier, origin, place, progress)
                if self._copier.limits.read_back and golden.digest is not None:
                    await self._copier.verify(place, golden.digest, golden.size)
            except (NoSpace, WrongStore):
                # The work waits for the right store, and so does the golden volume.
                raise
            except (BackendFailed, DigestMismatch) as error:
                if short_of(error):
                    raise
                self._log.failure("golden volume {name} is of no use", name=golden.name)
                # What is the backend's own failure most likely fails here as well, and ends this.
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
        """Make a golden volume of one that has just been filled, if that is of use.

        Whatever fails, the volume itself is right.

        :param size: of the disk in bytes.
        :param digest: of the disk, where it is known.
        :param warnings: of the image.
        :param claim: the one on the volume; without it nothing is begun.
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
                    # Whoever let it go may have deleted it before it was whole.
                    await backend.delete(name)
                    await self._database.write(strays.forget, name)
        except (CancelledError, Unwanted):
            raise
        except BootvolError as error:
            self._log.warn("golden volume {name} is not made: {error}", name=name, error=error)
        except Exception:
            self._log.failure("golden volume {name} is not made", name=name)

    async def let_go(self, volume_id: int) -> None:
        """Give up what was begun from a volume and never completed, if anything."""
        await self._database.write(rows.doom_unfinished, volume_id)

    async def tidy(self, name: str) -> None:
        """Remove from a backend what is doomed, what was begun and never completed, and what is
        more than it should keep.

        What fails is tried again next time.
        """
        await self._remove(name, self._limit(self._backends.named(name)))

    async def make_room(self, name: str, but_for: int = 0) -> bool:
        """Remove all golden volumes from a backend that no import wants.

        :param but_for: a volume whose own import does not count.
        :returns: whether there were any.
        """
        return await self._remove(name, 0, but_for)

    async def _remove(self, name: str, limit: int, but_for: int = 0) -> bool:
        """Remove what is doomed from a backend, and what is beyond ``limit`` bytes."""
        doomed = await self._database.write(rows.doom_surplus, name, limit, but_for)
        try:
            for golden in doomed:
                await self._backends.named(name).delete(golden)
                await self._database.write(rows.forget, golden)
        except BackendFailed as error:
            self._log.warn("golden volumes are not removed: {error}", error=error)
        return bool(doomed)

    async def listed(self) -> Sequence[Golden]:
        """Return all golden volumes, the last used ones first."""
        return await self._database.read(rows.listed)

    def _limit(self, backend: IBlockBackend) -> int:
        """Return what golden volumes may take of a backend, in bytes."""
        default = DEFAULT_GIB if backend.capabilities.clones else 0
        return self._limits.get(backend.name, default) * GIB

    def _now(self) -> float:
        return time.time()
