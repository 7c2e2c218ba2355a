"""Facts about the daemons that share the database, and about their stores."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection as Db

from bootvol.backends import Backends
from bootvol.interfaces import Room
from bootvol.model import Daemon, Place, StoreUsage
from bootvol.store import overview
from bootvol.store.database import Database


class Overview:
    """The daemons and stores, for operators."""

    def __init__(self, database: Database, backends: Backends) -> None:
        self._database = database
        self._backends = backends

    async def daemons(self) -> Sequence[Daemon]:
        """Return all known daemons, by host."""
        return await self._database.read(overview.running)

    async def places(self) -> Sequence[Place]:
        """Return the stores of all daemons, and those of this daemon's backends without any."""
        return await self._database.read(self._places)

    def _places(self, db: Db) -> Sequence[Place]:
        daemons = overview.running(db)
        mine = {(name, self._backends.host_of(name)) for name in self._backends.names}
        found = []
        for backend, host in sorted({*overview.known_stores(db), *mine}):
            reaching = [each for each in daemons if host in ("", each.host)]
            here = (backend, host) in mine
            found.append(
                Place(
                    backend,
                    host,
                    any(each.runs for each in reaching),
                    max((each.seen_at for each in reaching), default=None),
                    here,
                    here and backend in self._backends.usable,
                )
            )
        return found

    async def usage(self, place: Place) -> Sequence[StoreUsage]:
        """Return the usage of a store by each tenant, by the tenants' names."""
        return await self._database.read(overview.usage, place.backend, place.host)

    async def room(self, place: Place) -> Room | None:
        """Return the space of a store; None if this daemon cannot tell."""
        return await self._backends.room(place.backend) if place.here else None
