"""The cached images (golden volumes), as operators see them."""

from __future__ import annotations

from collections.abc import Sequence

from bootvol.model import CacheUse, Golden
from bootvol.store import goldens as rows
from bootvol.store.database import Database


class Goldens:
    """The golden volumes on all backends.

    :param use: the hits and misses, which the worker counts.
    """

    def __init__(self, database: Database, use: CacheUse) -> None:
        self._database = database
        self.use = use

    async def listed(self) -> Sequence[Golden]:
        """Return all golden volumes, the most recently used first."""
        return await self._database.read(rows.listed)
