"""The cached images, as operators see them."""

from __future__ import annotations

from collections.abc import Sequence

from bootvol.model import CachedImage, CacheUse
from bootvol.store import image_cache as rows
from bootvol.store.database import Database


class CachedImages:
    """The cached images on all backends.

    :param use: the hits and misses, which the worker counts.
    """

    def __init__(self, database: Database, use: CacheUse) -> None:
        self._database = database
        self.use = use

    async def listed(self) -> Sequence[CachedImage]:
        """Return all cached images, the most recently used first."""
        return await self._database.read(rows.listed)
