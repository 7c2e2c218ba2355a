"""The daemon: the only module that puts the parts together, as Twisted services.

:mod:`bootvol.tap` starts the daemon under ``twistd``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any, Final

from pydantic import BaseModel
from twisted.application import strports
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from bootvol import descriptors, locks, plugins
from bootvol.api.cache import Answers
from bootvol.api.channels import ApiSite
from bootvol.api.context import Services
from bootvol.api.door import Door
from bootvol.api.embedded.identity import mounts
from bootvol.api.embedded.images import ImageApi
from bootvol.api.nova import dialect as nova
from bootvol.api.root import ApiRoot
from bootvol.api.tls import ModernTls
from bootvol.backends import Absent, Backends
from bootvol.errors import BootvolError
from bootvol.exports.exports import Exports
from bootvol.imaging.bandwidth import Bandwidth
from bootvol.imaging.buffers import Memory
from bootvol.imaging.containers import Containers
from bootvol.imaging.sandbox import Sandbox
from bootvol.interfaces import (
    BackendPlugin,
    IBlockBackend,
    IClosable,
    IHypervisor,
    PluginContext,
)
from bootvol.login import ILogin
from bootvol.model import GIB, CacheUse, Flavor
from bootvol.reactors import IReactor
from bootvol.reload import Reloader
from bootvol.service.attachments import Attachments
from bootvol.service.ids import Ids
from bootvol.service.image_cache import Goldens as CachedImages
from bootvol.service.images import Images
from bootvol.service.inflight import Bounds
from bootvol.service.keypairs import KeyPairs
from bootvol.service.quotas import Quota, Quotas
from bootvol.service.rates import RateLimits
from bootvol.service.servers import Servers
from bootvol.service.snapshots import Snapshots
from bootvol.service.volume_types import VolumeTypes
from bootvol.service.volumes import Volumes
from bootvol.settings import PluginSettings, Settings
from bootvol.store import claims, stores
from bootvol.store.database import Database
from bootvol.threads import Shared, StillRunning, Threads, at_most, within
from bootvol.worker.clock_skew import SkewWatch
from bootvol.worker.copier import Copier, Limits
from bootvol.worker.export_recovery import restore_on
from bootvol.worker.image_cache import Goldens
from bootvol.worker.importer import Importer
from bootvol.worker.stores import Stores
from bootvol.worker.sweeper import Sweeper
from bootvol.worker.tasks.task import Tools
from bootvol.worker.worker import Concurrency, Worker

#: Threads for the blocking calls of one plugin, and as many for hashing and decompression.
_THREADS: Final = 4
#: More of these threads for each import, which seldom reads, writes and flushes all at once.
_THREADS_OF_AN_IMPORT: Final = 4
#: Seconds after ``stop_seconds`` until the process ends in any case.
_GRACE: Final = 10.0
#: Seconds to wait for threads whose jobs have already ended or been abandoned.
_LAST: Final = 1.0
_MIB: Final = 1024 * 1024


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
        self._plugins: dict[str, Any] = {}
        #: Functions that make the backends that have not answered yet, by backend name.
        self._late: dict[str, Callable[[], Awaitable[IBlockBackend]]] = {}
        self._pools: list[Threads] = []
        # If the number is lower than configured, the checks of the machine have reported that.
        self._connections, _ = descriptors.connections(config)
        lock, self._worker_id = locks.take_directory(config.state.directory)
        self._locks = [lock]
        self._cache_use = CacheUse()
        self._threads = self._pool("data")
        self._database = Database(config.database, reactor)
        try:
            self._prepare_database()
            self._worker, self.site = self._put_together()
        except BaseException:
            self._let_go()
            raise
        self._listening = MultiService()
        certificates = {}
        for endpoint in config.api.listen:
            serving: Any = ModernTls(reactor, endpoint)
            strports.service(endpoint, self.site, serving).setServiceParent(self._listening)
            certificates[endpoint] = serving.reload
        files = self._pool("reload")
        self._reloader = Reloader(config, self._plugins, certificates, files, reactor)

    def _prepare_database(self) -> None:
        if self._database.embedded:
            self._locks.append(locks.take_database(Path(self._config.database.database or "")))
            self._database.upgrade()
        else:
            self._database.check()
        # In an SQLite file all other holders of claims have ended: this daemon has the lock.
        self._database.alone(
            claims.release_all, None if self._database.embedded else self._worker_id
        )

    def _put_together(self) -> tuple[Worker, ApiSite]:
        config = self._config
        remembered = self._database.alone(stores.remembered)
        for place, configured in config.plugins():
            descriptor = configured.descriptor
            if isinstance(descriptor, BackendPlugin):
                identity = remembered.get(configured.name)
                self._plugins[place] = self._backend(place, descriptor, configured, identity)
            else:
                self._plugins[place] = self._plugin(configured)
        identity = self._plugins["identity"]
        bounds = Bounds.of(self._connections)
        door = Door(identity, bounds, self._reactor)
        hypervisor = self._plugins.get("hypervisor")
        images = Images(
            {each.name: self._plugins[f"sources[{n}]"] for n, each in enumerate(config.sources)},
            self._reactor,
            bounds.dependency,
        )
        backends = Backends(
            [self._plugins[f"backends[{n}]"] for n in range(len(config.backends))], self._reactor
        )
        tools = self._tools(images, backends, hypervisor)
        concurrency = Concurrency(
            config.imports.concurrent,
            {each.name: each.concurrent for each in config.backends if each.concurrent},
            {each.name: each.concurrent for each in config.sources if each.concurrent},
            config.imports.least_kib * 1024,
        )
        worker = Worker(concurrency, tools)
        database = self._database
        self._sweeper = Sweeper(database, backends, self._reactor, claims.shared_time)
        self._stores = Stores(
            database,
            backends,
            remembered,
            self._late,
            partial(restore_on, tools),
            self._reactor,
            worker.wake,
        )
        self._skew = SkewWatch(database, self._reactor, time.time)
        quotas = Quotas(
            database,
            Quota(**config.quota.model_dump(exclude={"snapshots_in_gigabytes"})),
            snapshots_in_gigabytes=config.quota.snapshots_in_gigabytes,
        )
        types = VolumeTypes(database, backends)
        volumes = Volumes(
            database, images, backends, quotas, types, config.availability_zone, worker, _now
        )
        flavors = [Flavor(each.id, each.name, each.ram, each.cpus) for each in config.flavors]
        services = Services(
            volumes,
            Snapshots(database, backends, quotas, worker, _now),
            Attachments(database, hypervisor is not None, worker),
            Servers(
                database,
                volumes,
                self._worker_id,
                hypervisor,
                flavors,
                quotas,
                worker,
                self._reactor,
                bounds.dependency,
                _now,
            ),
            images,
            CachedImages(database, self._cache_use),
            types,
            quotas,
            RateLimits.configured(config.rate_limits, self._reactor),
            KeyPairs(database, quotas, self._threads, _now),
            Ids(database),
        )
        answers = Answers(lambda: database.version)
        root = ApiRoot(
            *mounts(
                ILogin(identity, None),
                config.policy,
                config.availability_zone,
                bounds.strangers,
                self._reactor,
            ),
            ImageApi(door, config.policy, images, services.rates).mount,
            *nova.application(door, config.policy, services, answers).mounts,
            public_url=config.api.public_url,
        )
        return worker, ApiSite(root, self._reactor, self._connections, descriptors.SPARE)

    def _tools(self, images: Images, backends: Backends, hypervisor: IHypervisor | None) -> Tools:
        """Return the tools of the worker's tasks."""
        config = self._config
        bandwidth = Bandwidth(
            config.imports.bandwidth_mib,
            {each.name: each.bandwidth_mib for each in config.sources if each.bandwidth_mib},
            self._reactor,
        )
        limits = Limits(
            config.imports.checkpoint_mib * _MIB,
            config.imports.retries,
            config.imports.spool,
            int(config.imports.spool_gib * GIB) if config.imports.spool_gib else None,
            config.imports.verify == "read-back",
            config.imports.strict_images,
        )
        memory = Memory(config.imports.buffers, config.imports.buffer_kib * 1024)
        copier = Copier(limits, memory, self._threads, self._reactor)
        caches = {each.name: each.cache_gib for each in config.backends}
        goldens = Goldens(
            self._database,
            backends,
            copier,
            {name: gib for name, gib in caches.items() if gib is not None},
            self._cache_use,
        )
        jail, table = config.sandbox.jail, config.exports
        sandbox = Sandbox(self._reactor, config.imports.converter_mib * _MIB, jail)
        containers = Containers(sandbox, self._threads)
        importer = Importer(images.source, backends, goldens, containers, bandwidth, copier)
        return Tools(
            self._worker_id,
            self._database,
            backends,
            copier,
            importer,
            goldens,
            [each.name for each in config.sources],
            hypervisor,
            Exports(table, self._pool("nbd"), self._reactor, jail) if table else None,
            self._reactor,
            config.availability_zone,
        )

    def _pool(self, name: str) -> Threads:
        """Return a new pool of threads.  The daemon starts and stops the pool."""
        size = _THREADS + _THREADS_OF_AN_IMPORT * self._config.imports.concurrent
        pool = Threads(self._reactor, f"bootvol-{name}", size)
        self._pools.append(pool)
        return pool

    def _context(self, name: str) -> PluginContext:
        jail = self._config.sandbox.jail
        return PluginContext(self._reactor, self._pool(name), name, jail=jail)

    def _plugin(self, configured: PluginSettings) -> Any:
        # A pool for this plugin alone: calls that never return keep their threads.
        context = self._context(configured.name)
        return plugins.build(configured.descriptor, configured.options, context)

    def _backend(
        self,
        place: str,
        descriptor: BackendPlugin[BaseModel],
        configured: PluginSettings,
        identity: str | None,
    ) -> IBlockBackend:
        """Return a backend, or an :class:`Absent` if the backend does not answer in time.

        :param identity: identity of the store with the backend's volumes, if known.
        """
        context = self._context(configured.name)
        make = partial(plugins.build_backend, descriptor, configured.options, context, identity)

        async def make_late() -> IBlockBackend:
            # Nothing has to be undone, so the end of the daemon need not wait for this call.
            making = Shared(Deferred.fromCoroutine(context.threads.run(make)))
            self._plugins[place] = made = await making.wait()
            return made

        try:
            return within(plugins.PATIENCE, make)
        except StillRunning:
            self._late[configured.name] = make_late
            return Absent(configured.name)

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
        for pool in self._pools:
            pool.start()
        self._database.start()
        self._stores.startService()
        self._worker.startService()
        self._sweeper.startService()
        self._skew.startService()
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
            for left in self._worker.left() or ["a plugin that does not close"]:
                self._log.error("left behind, since it hangs: {left}", left=left)
        finally:
            for pool in self._pools:
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
            self._log.error("the daemon does not end by itself, so it ends at once")
            os._exit(1)

        Thread(target=end, name="bootvol-end", daemon=True).start()

    async def _end_work(self) -> None:
        self._skew.stopService()
        parts = (self._stores, self._worker, self._sweeper)
        await gatherResults([each.stopService() for each in parts])
        await self._close_plugins()

    async def _close_plugins(self) -> None:
        for plugin in filter(IClosable.providedBy, self._plugins.values()):
            try:
                await IClosable(plugin).close()
            except BootvolError:
                self._log.failure("{plugin} is not closed", plugin=plugin)


def _now() -> datetime:
    return datetime.now(UTC)
