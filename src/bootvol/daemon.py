"""The daemon: starts and stops the parts that :mod:`bootvol.composition` makes.

:mod:`bootvol.tap` starts the daemon under ``twistd``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Final

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from bootvol import descriptors, locks
from bootvol.api import proxied
from bootvol.api.tls import ModernTls
from bootvol.composition import Composition
from bootvol.errors import BootvolError
from bootvol.interfaces import (
    IClosable,
)
from bootvol.reactors import IReactor
from bootvol.reload import Reloader
from bootvol.settings import Settings
from bootvol.store import claims
from bootvol.store.database import Database
from bootvol.threads import StillRunning, at_most

#: Seconds after ``stop_seconds`` until the process ends in any case.
_GRACE: Final = 10.0
#: Seconds to wait for threads whose jobs have already ended or been abandoned.
_LAST: Final = 1.0


class Daemon(Service):
    """All parts of one process: the API above, the worker below, threads and database.

    No thread starts before :meth:`startService`: twistd forks between construction and start.

    :ivar site: factory of the API's connections.
    """

    _log = Logger()

    def __init__(self, config: Settings, reactor: IReactor, warnings: Sequence[str] = ()) -> None:
        """Open the state directory, the database and the plugins.

        Blocks on the disk and the database: the reactor does not run yet.

        :raises ConfigurationError: if the machine does not match the configuration, or another
            daemon uses the same state directory.
        """
        self._config = config
        self._reactor = reactor
        self._warnings = warnings
        # If the number is lower than configured, the checks of the machine have reported that.
        connections, _ = descriptors.connections(config)
        lock, self._id = locks.take_directory(config.state.directory)
        self._locks = [lock]
        self._database = Database(config.database, reactor)
        try:
            self._prepare_database()
            self._parts = Composition(config, reactor, self._database, self._id, connections)
            self.site = self._parts.site
        except BaseException:
            self._let_go()
            raise
        self._listening = MultiService()
        certificates = {}
        for endpoint in config.api.listen:
            serving = ModernTls(reactor, endpoint)
            proxied.service(endpoint, self.site, serving).setServiceParent(self._listening)
            certificates[endpoint] = serving.reload
        files = self._parts.pool("reload")
        self._reloader = Reloader(config, self._parts.plugins, certificates, files, reactor)

    def _prepare_database(self) -> None:
        if self._database.is_sqlite:
            self._locks.append(locks.take_database(Path(self._config.database.database or "")))
            self._database.upgrade()
        else:
            self._database.check()
        # In an SQLite file all other holders of claims have ended: this daemon has the lock.
        self._database.alone(claims.release_all, None if self._database.is_sqlite else self._id)

    def reload(self) -> Deferred[None]:
        """Apply the current configuration file (see :class:`bootvol.reload.Reloader`)."""
        return self._reloader.reload()

    def startService(self) -> None:
        """Listen, then start the threads and the services.

        :raises twisted.internet.error.CannotListenError: if another process uses an endpoint.
        """
        self._log.info(
            "bootvol {version} starts: configuration {file}, database {database},"
            " backends {backends}, sources {sources}, listening at {listen}",
            version=version("bootvol"),
            file=str(self._config.file),
            database=str(self._config.database),
            backends=[each.name for each in self._config.backends],
            sources=[each.name for each in self._config.sources],
            listen=self._config.api.listen,
        )
        for warning in self._warnings:
            self._log.warn("{warning}", warning=warning)
        # Listen first: if listening fails, no other part has to be stopped.
        self._listening.startService()
        parts = self._parts
        for pool in parts.pools:
            pool.start()
        self._database.start()
        parts.stores.startService()
        parts.worker.startService()
        parts.downloads.startService()
        parts.sweeper.startService()
        parts.clock_skew.startService()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Stop listening, release all work so that work can continue later, then end the threads.

        Hanging work gets ``stop_seconds`` to end.  Then the log names the hanging work, and the
        daemon leaves the work behind.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        try:
            self._database.end_soon()
            await self._listening.stopService()
            working = Deferred.fromCoroutine(self._end_work())
            await at_most(self._reactor, self._config.stop_seconds, working)
        except StillRunning:
            for left in self._parts.worker.left() or ["a plugin that does not close"]:
                self._log.error("the daemon leaves hanging work behind: {left}", left=left)
        finally:
            for pool in self._parts.pools:
                pool.stop(_LAST)
            self._database.stop()
            self._let_go()

    def _let_go(self) -> None:
        """Unlock the state directory and the database.

        The system would unlock them only when all threads of the process have ended.
        """
        for lock in self._locks:
            os.close(lock)

    def end_in_any_case(self) -> None:
        """Make sure that the process ends, even if its end hangs.  Call at the begin of the end."""

        def end() -> None:
            time.sleep(self._config.stop_seconds + _GRACE)
            self._log.error("the daemon cannot end in order, so the process ends at once")
            os._exit(1)

        Thread(target=end, name="bootvol-end", daemon=True).start()

    async def _end_work(self) -> None:
        parts = self._parts
        parts.clock_skew.stopService()
        await gatherResults(
            [
                each.stopService()
                for each in (parts.stores, parts.worker, parts.downloads, parts.sweeper)
            ]
        )
        await self._close_plugins()

    async def _close_plugins(self) -> None:
        for plugin in filter(IClosable.providedBy, self._parts.plugins.values()):
            try:
                await IClosable(plugin).close()
            except BootvolError:
                self._log.failure("{plugin} is not closed", plugin=plugin)
