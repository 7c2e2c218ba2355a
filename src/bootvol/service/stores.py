"""Sees to it that each backend uses the store on which its volumes lie.

The database remembers what tells a backend's store from every other one.  A backend whose store is
not remembered does no work until its store has said what that is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from bootvol.errors import BackendFailed, ConfigurationError, DatabaseUnavailable
from bootvol.interfaces import IIdentifiedBackend
from bootvol.service.backends import Backends
from bootvol.store import stores
from bootvol.store.database import Database

#: Seconds between two questions to a store that has not answered yet.
POLL: Final = 5.0


class Stores(Service):
    """The stores of all backends.

    :param wake: called when a backend may do work that could not before.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        backends: Backends,
        clock: IReactorTime,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._backends = backends
        self._wake = wake
        self._asking: dict[str, Deferred[None]] = {}
        #: Why a backend does no work, as the log has it: once is enough.
        self._told: dict[str, str] = {}
        self._polling = LoopingCall(self._ask_all)
        self._polling.clock = clock

    def recall(self) -> None:
        """Tell each backend which store it has.  Blocks: the reactor does not run yet.

        :raises ConfigurationError: a backend has another store now.
        """
        remembered = self._database.alone(stores.remembered)
        for name in self._backends.names:
            backend = self._backends.named(name)
            if not IIdentifiedBackend.providedBy(backend):
                continue
            if name in remembered:
                IIdentifiedBackend(backend).expect(remembered[name])
            else:
                self._backends.unknown.add(name)

    def startService(self) -> None:
        """Ask the stores that are not known yet, until each has answered."""
        super().startService()
        self._polling.start(POLL)

    def stopService(self) -> Deferred[None]:
        """Stop asking."""
        super().stopService()
        if self._polling.running:
            self._polling.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        under_way = list(self._asking.values())
        for each in under_way:
            each.cancel()
        await gatherResults(under_way)

    def _ask_all(self) -> None:
        for name in self._backends.unknown.difference(self._asking):
            asked = Deferred.fromCoroutine(self._ask(name))
            if not asked.called:
                self._asking[name] = asked
        if not self._backends.unknown:
            self._polling.stop()

    async def _ask(self, name: str) -> None:
        backend = IIdentifiedBackend(self._backends.named(name))
        try:
            identity = await backend.identity()
            # Another daemon may have been first.
            identity = await self._database.write_unseen(stores.remember, name, identity)
            backend.expect(identity)
        except (CancelledError, DatabaseUnavailable):
            # The database has told the log.
            return
        except (BackendFailed, ConfigurationError) as error:
            if self._told.get(name) != str(error):
                self._told[name] = str(error)
                self._log.error("backend {name} does no work yet: {error}", name=name, error=error)
        except Exception:
            self._log.failure("backend {name} does no work yet", name=name)
        else:
            self._backends.unknown.discard(name)
            self._wake()
        finally:
            self._asking.pop(name, None)
