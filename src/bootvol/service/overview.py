"""Facts about the daemons that share the database, and about their stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from sqlalchemy import Connection as Db

from bootvol.backends import Backends
from bootvol.errors import ErrorReport, ServiceDisabled
from bootvol.interfaces import Room
from bootvol.model import Daemon, Place, StoreUsage
from bootvol.store import daemons as daemon_rows
from bootvol.store import disabled, overview
from bootvol.store.database import Database


class Waking(Protocol):
    """Wakes the workers."""

    def wake(self) -> None:
        """Look for work now."""


def disabled_reason(db: Db, backend: str, host: str) -> ErrorReport | None:
    """Return why no daemon begins a volume; None if a daemon may do so.

    :param host: the only host that reaches the volume's store; empty if all hosts do.
    """
    found = disabled.listed(db)
    hosts = {each for name, each in found if not name}
    off = (backend, host) in found or host in hosts
    if not off and hosts and not host:
        off = hosts.issuperset(daemon_rows.hosts(db))
    return ServiceDisabled().report() if off else None


class Overview:
    """The daemons and stores, for operators."""

    def __init__(self, database: Database, backends: Backends, work: Waking) -> None:
        self._database = database
        self._backends = backends
        self._work = work

    async def disabled_services(self) -> Mapping[disabled.Key, str | None]:
        """Return the reasons of the disabled services, by backend and host.

        An empty backend stands for the daemons of a host.
        """
        return await self._database.read(disabled.listed)

    async def disable(self, key: disabled.Key, reason: str | None) -> None:
        """Let no new volume be begun in a store, or by the daemons of a host.

        Work that has begun goes on, and so does all work on volumes that exist.

        :param key: a backend and its host; or an empty backend, and the host of the daemons.
        :param reason: at most 255 characters.
        """
        await self._database.write(disabled.put, key, reason)

    async def enable(self, key: disabled.Key) -> None:
        """Let volumes be begun again; change nothing if the service is enabled."""
        await self._database.write(disabled.remove, key)
        self._work.wake()

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
