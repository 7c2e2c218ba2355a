"""Ensure that each backend uses the store that holds its volumes.

The database remembers an identity of each backend's store. A backend does no work while its store
is not known to be the right one. A store without a remembered identity has to state its identity
first. A backend whose store turns out to be another one stops its work. A backend that has not
answered since the daemon started does no work either. Work on such a backend waits.

The store of a local backend belongs to one host. The rows of its volumes have the host's name, and
only the daemons of that host work on them. So several hosts may each have a backend of one name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from sqlalchemy import Connection as Db
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.backends import Backends
from bootvol.errors import (
    BackendFailed,
    BackendSilent,
    ConfigurationError,
    DatabaseUnavailable,
    WrongStore,
)
from bootvol.interfaces import IBlockBackend, IIdentifiedBackend
from bootvol.store import daemons, stores
from bootvol.store.database import Database
from bootvol.store.stores import Store
from bootvol.worker.repeating import Repeating

#: Seconds between two questions to a store that has not answered yet.
POLL: Final = 5.0


class Stores(Service):
    """The stores of all backends.

    :param daemon: id of the daemon.
    :param remembered: the stores in the database that this host reaches, by the names of the
        backends.
    :param late: a function for each :class:`bootvol.backends.Absent` backend, by its name.
        The function returns the backend itself as soon as the backend answers, or raises
        ConfigurationError if the backend cannot be used.
    :param restore: serves the attached volumes of a backend, by its name, before other work begins.
    :param wake: called when a backend may do work that could not before.
    :param serves: whether the daemon runs servers.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        backends: Backends,
        daemon: str,
        remembered: Mapping[str, Store],
        late: Mapping[str, Callable[[], Awaitable[IBlockBackend]]],
        restore: Callable[[str], Awaitable[None]],
        clock: IReactorTime,
        wake: Callable[[], None],
        *,
        serves: bool,
    ) -> None:
        self._database = database
        self._backends = backends
        self._daemon = daemon
        self._late = dict(late)
        self._restore = restore
        self._wake = wake
        self._serves = serves
        self._asking: dict[str, Deferred[None]] = {}
        self._announcing: Deferred[None] = succeed(None)
        self._announced = False
        self._telling = Repeating(
            self._log,
            "other daemons are not told that this one runs",
            "other daemons are told again that this one runs",
        )
        self._faults = {
            name: Repeating(
                self._log,
                "backend {name} is suspended",
                "backend {name} tells its store again",
                name=name,
            )
            for name in backends.names
        }
        self._polling = LoopingCall(self._ask_all)
        self._polling.clock = clock
        #: Backends whose store has not been checked since the daemon started.
        self._unseen: set[str] = set(backends.names)
        #: Backends whose store is in the database, and whose rows have the right host.
        self._settled: set[str] = set()
        for name in backends.names:
            if name in late:
                backends.suspend(name, BackendSilent(name))
            elif not IIdentifiedBackend.providedBy(backends.named(name)):
                continue
            elif name in remembered and remembered[name].host == backends.host_of(name):
                self._settled.add(name)
            else:
                backends.suspend(name)

    def startService(self) -> None:
        """Ask the stores that are not known to be the right ones, until each has answered.

        Meanwhile and later, tell the other daemons that this one runs.
        """
        super().startService()
        self._polling.start(POLL)

    def stopService(self) -> Deferred[None]:
        """Stop asking."""
        super().stopService()
        if self._polling.running:
            self._polling.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        under_way = [*self._asking.values(), self._announcing]
        for each in under_way:
            each.cancel()
        await gatherResults(under_way)

    def _ask_all(self) -> None:
        # Nobody else reads an SQLite file.
        again = not (self._announced and self._database.is_sqlite)
        if again and self._announcing.called:
            self._announcing = Deferred.fromCoroutine(self._announce())
        for name in self._unseen.union(self._backends.suspended).difference(self._asking):
            asked = Deferred.fromCoroutine(self._ask(name))
            if not asked.called:
                self._asking[name] = asked

    async def _announce(self) -> None:
        try:
            await self._database.write_without_invalidation(
                daemons.announce, self._daemon, self._backends.host, serves=self._serves
            )
            self._announced = True
        except (CancelledError, DatabaseUnavailable):
            # The database layer has logged its failures.
            pass
        except Exception as error:
            self._telling.failed(error)
        else:
            self._telling.succeeded()

    async def _ask(self, name: str) -> None:
        try:
            await self._identify(name)
            if name in self._backends.suspended:
                await self._restore(name)
        except (CancelledError, DatabaseUnavailable):
            # The database layer has logged its failures.
            return
        except (WrongStore, ConfigurationError) as error:
            self._backends.suspend(name, error)
        except BackendFailed as error:
            # If the store's identity is remembered, each operation checks the store.
            if name in self._backends.suspended:
                self._backends.suspend(name, error)
        except Exception as error:
            self._faults[name].failed(error)
        else:
            self._faults[name].succeeded()
            self._unseen.discard(name)
            if name in self._backends.suspended:
                self._backends.resume(name)
                self._wake()
        finally:
            self._asking.pop(name, None)

    async def _identify(self, name: str) -> None:
        """Check that the backend's store is the right one.

        :raises WrongStore: if the store is another one.
        :raises BackendFailed: if the store does not answer.
        :raises ConfigurationError: if the backend cannot be used as configured, or if another
            host's daemon uses the same store as its own.
        """
        if name in self._late:
            self._backends.replace(await self._late[name]())
            del self._late[name]
        found = self._backends.named(name)
        store = IIdentifiedBackend(found) if IIdentifiedBackend.providedBy(found) else None
        identity = await store.identity() if store is not None else None
        if name in self._settled:
            return
        # Another daemon may have stored an identity first.
        known = await self._database.write(self._settle, name, identity)
        if store is not None and known is not None:
            store.expect(known)
        self._settled.add(name)

    def _settle(self, db: Db, name: str, identity: str | None) -> str | None:
        host, local = self._backends.host, self._backends.is_local(name)
        # Without this, a former life of the daemon could count as another daemon.
        daemons.announce(db, self._daemon, host, serves=self._serves)
        return stores.settle(db, name, host, local, identity)
