"""Makes the parts of a daemon, and gives each part what it needs: the one place of the wiring.

:mod:`bootvol.daemon` starts and stops the parts.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

from pydantic import BaseModel
from twisted.internet.defer import Deferred

from bootvol import descriptors, plugins
from bootvol.api.cache import Answers
from bootvol.api.cinder import dialect as cinder
from bootvol.api.context import Services
from bootvol.api.door import Door
from bootvol.api.glance import dialect as glance
from bootvol.api.keystone import dialect as keystone
from bootvol.api.nova import dialect as nova
from bootvol.api.root import ApiRoot
from bootvol.api.sites import ApiSite
from bootvol.backends import Absent, Backends
from bootvol.event_log import EventLog
from bootvol.exports.exports import Exports
from bootvol.imaging.bandwidth import Bandwidth
from bootvol.imaging.buffers import Memory
from bootvol.imaging.containers import Containers
from bootvol.imaging.sandbox import Sandbox
from bootvol.interfaces import (
    BackendPlugin,
    IBlockBackend,
    IHypervisor,
    IImageSource,
    PluginContext,
)
from bootvol.jsons import JsonObject
from bootvol.login import ILogin
from bootvol.model import CacheUse, Caller, Flavor
from bootvol.reactors import IReactor
from bootvol.service.adoption import Adoptions
from bootvol.service.attachments import Attachments
from bootvol.service.failures import Failures
from bootvol.service.holding.by_hand import ByHand
from bootvol.service.holding.holds import Holds
from bootvol.service.ids import Ids
from bootvol.service.image_cache import CachedImages
from bootvol.service.image_imports import ImageImports
from bootvol.service.image_members import ImageMembers
from bootvol.service.images import Images
from bootvol.service.inflight import CallLimits
from bootvol.service.keypairs import KeyPairs
from bootvol.service.overview import Overview
from bootvol.service.qos_specs import QosRules
from bootvol.service.quotas import Quota, Quotas
from bootvol.service.rates import RateLimits
from bootvol.service.replacements import Replacements
from bootvol.service.resets import Resets
from bootvol.service.servers import Servers
from bootvol.service.sizes import Sizes
from bootvol.service.snapshots import Snapshots
from bootvol.service.stored_images import MOST_UPLOADS, StoredImages
from bootvol.service.transfers import Transfers
from bootvol.service.volume_types import VolumeTypes
from bootvol.service.volume_uploads import VolumeUploads
from bootvol.service.volumes import Volumes
from bootvol.settings import PluginSettings, Settings
from bootvol.store import claims, stores
from bootvol.store.database import Database
from bootvol.store.stores import Store
from bootvol.threads import Shared, StillRunning, Threads, within
from bootvol.worker.clock_skew import SkewWatch
from bootvol.worker.copier import Copier, ImportLimits
from bootvol.worker.deltas import Deltas
from bootvol.worker.export_recovery import ExportRecovery
from bootvol.worker.image_cache import ImageCache
from bootvol.worker.image_downloads import ImageDownloads
from bootvol.worker.image_fetches import Fetcher
from bootvol.worker.importer import Importer
from bootvol.worker.shortcuts import FromImageCache, ImageClone, SharedBlocks
from bootvol.worker.stores import Stores
from bootvol.worker.sweeper import Sweeper
from bootvol.worker.tasks.attachments import VolumeAccess
from bootvol.worker.tasks.factories import TaskFactories
from bootvol.worker.tasks.storage import Storage
from bootvol.worker.tasks.uploads import Takers
from bootvol.worker.tasks.wiring import TaskParts, factories
from bootvol.worker.worker import Concurrency, Worker

#: Threads for the blocking calls of one plugin, and as many for hashing and decompression.
_THREADS: Final = 4
#: More of these threads for each import, which seldom reads, writes and flushes all at once.
_THREADS_OF_AN_IMPORT: Final = 4
_MIB: Final = 1024 * 1024


class Composition:
    """The parts of one daemon. No part is started.

    Construction blocks on the database and the disks of the backends: call it before the reactor
    runs.

    :param database: the database, with the schema of this version.
    :param daemon: id that marks claims, servers and exports as this daemon's.
    :param connections: limit of the API's open connections.
    :ivar pools: all threads but the database's.
    :ivar plugins: the plugins, by their places in the configuration.
    :ivar site: factory of the API's connections.
    """

    def __init__(
        self, config: Settings, reactor: IReactor, database: Database, daemon: str, connections: int
    ) -> None:
        self.pools: list[Threads] = []
        self.plugins: JsonObject = {}
        self._config = config
        self._reactor = reactor
        self._database = database
        self._daemon = daemon
        #: Functions that make the backends that have not answered yet, by backend name.
        self._late: dict[str, Callable[[], Awaitable[IBlockBackend]]] = {}
        self._threads = self.pool("data")
        database.subscribe(EventLog())
        self._cache_use = CacheUse()
        host = config.state.host or daemon
        remembered = database.alone(stores.remembered, host)
        self._make_plugins(remembered)
        self._hypervisor: IHypervisor | None = self.plugins.get("hypervisor")
        self._bounds = CallLimits.of(connections)
        self._sources: Mapping[str, IImageSource] = {
            each.name: self.plugins[f"sources[{n}]"] for n, each in enumerate(config.sources)
        }
        self._uploading: dict[str, Caller] = {}
        self._images = Images(self._sources, reactor, self._bounds.dependency)
        self._backends = Backends(
            [self.plugins[f"backends[{n}]"] for n in range(len(config.backends))], reactor, host
        )
        exports = self._exports()
        recovery = ExportRecovery(daemon, database, self._backends, exports, reactor)
        self._bandwidth = Bandwidth(
            config.imports.bandwidth_mib,
            {each.name: each.bandwidth_mib for each in config.sources if each.bandwidth_mib},
            reactor,
        )
        self.downloads = self._downloads()
        copier = self._copier()
        image_cache = self._image_cache(copier)
        self.worker = Worker(
            self._concurrency(),
            self._tasks(copier, image_cache, exports),
            daemon,
            database,
            self._backends,
            image_cache,
            recovery,
            [each.name for each in config.sources],
            reactor,
            serves=self._hypervisor is not None,
        )
        self.stores = Stores(
            database,
            self._backends,
            daemon,
            remembered,
            self._late,
            recovery.restore_on,
            reactor,
            self.worker.wake,
            serves=self._hypervisor is not None,
        )
        self.sweeper = Sweeper(database, self._backends, reactor, claims.shared_time)
        self.clock_skew = SkewWatch(database, reactor, time.time)
        self.site = ApiSite(self._api(), reactor, connections, descriptors.SPARE)

    # --- answers to callers ----------------------------------------------------------------------

    def _api(self) -> ApiRoot:
        config, services = self._config, self._services()
        identity = self.plugins["identity"]
        door = Door(identity, self._bounds, self._reactor)
        answers = Answers(self._database.version)
        return ApiRoot(
            *keystone.mounts(
                ILogin(identity, None),
                config.policy,
                config.availability_zone,
                self._bounds.strangers,
                self._reactor,
            ),
            *glance.application(door, config.policy, services).mounts,
            *cinder.application(door, config.policy, services, answers).mounts,
            *nova.application(door, config.policy, services, answers).mounts,
            public_url=config.api.public_url,
        )

    def _services(self) -> Services:
        config, database, worker = self._config, self._database, self.worker
        zone = config.availability_zone
        quotas = Quotas(
            database,
            Quota(**config.quota.model_dump(exclude={"snapshots_in_gigabytes"})),
            snapshots_in_gigabytes=config.quota.snapshots_in_gigabytes,
        )
        types = VolumeTypes(database, self._backends)
        volumes = Volumes(
            database, self._images, self._backends, quotas, types, self._daemon, zone, worker, _now
        )
        stored_images = StoredImages(
            self._images, self._sources, self._threads, MOST_UPLOADS, time.time
        )
        flavors = [Flavor(each.id, each.name, each.ram, each.cpus) for each in config.flavors]
        return Services(
            volumes,
            Sizes(database, self._backends, quotas, self._hypervisor, worker),
            Transfers(database, quotas, _now),
            Snapshots(database, self._backends, quotas, worker, _now),
            Adoptions(database, self._backends, quotas, types, zone, worker, _now),
            Attachments(database, self._hypervisor is not None, worker),
            Holds(database, self._backends, _now),
            ByHand(database, self._backends, _now),
            Servers(
                database,
                volumes,
                self._daemon,
                self._hypervisor,
                flavors,
                quotas,
                worker,
                self._reactor,
                self._bounds.dependency,
                _now,
            ),
            self._images,
            CachedImages(database, self._cache_use),
            types,
            QosRules(database),
            quotas,
            RateLimits.configured(config.rate_limits, self._reactor),
            KeyPairs(database, quotas, self._threads, _now),
            Ids(database),
            stored_images,
            VolumeUploads(
                database,
                self._images,
                self._sources,
                self._uploading,
                self._daemon,
                worker,
                time.time,
                self._reactor,
            ),
            Resets(database),
            Failures(database, _now),
            Overview(database, self._backends, worker),
            ImageMembers(stored_images, time.time),
            ImageImports(self._images, stored_images, self.downloads.wake, time.time),
            Replacements(database, self._backends, quotas, types, self._images, worker),
        )

    # --- the worker ------------------------------------------------------------------------------

    def _concurrency(self) -> Concurrency:
        config = self._config
        return Concurrency(
            config.imports.concurrent,
            {each.name: each.concurrent for each in config.backends if each.concurrent},
            {each.name: each.concurrent for each in config.sources if each.concurrent},
            config.imports.least_kib * 1024,
        )

    def _exports(self) -> Exports | None:
        table = self._config.exports
        if table is None:
            return None
        return Exports(table, self.pool("nbd"), self._reactor, self._config.sandbox.jail)

    def _copier(self) -> Copier:
        imports = self._config.imports
        memory = Memory(imports.buffers, imports.buffer_kib * 1024)
        return Copier(ImportLimits.configured(imports), memory, self._threads, self._reactor)

    def _downloads(self) -> ImageDownloads:
        retries = self._config.imports.retries
        fetcher = Fetcher(
            self._images.source, self._bandwidth, self._threads, self._reactor, retries
        )
        least = self._config.imports.least_kib * 1024
        return ImageDownloads(self._sources, fetcher, self._reactor, time.time, least)

    def _image_cache(self, copier: Copier) -> ImageCache:
        caches = {each.name: each.cache_gib for each in self._config.backends}
        return ImageCache(
            self._database,
            self._backends,
            copier,
            {name: gib for name, gib in caches.items() if gib is not None},
            self._cache_use,
        )

    def _importer(self, copier: Copier, image_cache: ImageCache) -> Importer:
        config = self._config
        sandbox = Sandbox(self._reactor, config.imports.converter_mib * _MIB, config.sandbox.jail)
        containers = Containers(sandbox, self._threads)
        return Importer(
            self._images.source,
            image_cache,
            Deltas(
                self._database,
                self._backends,
                self._threads,
                {each.name for each in config.backends if each.delta},
            ),
            [FromImageCache(image_cache), SharedBlocks(), ImageClone()],
            containers,
            self._bandwidth,
            copier,
        )

    def _tasks(
        self, copier: Copier, image_cache: ImageCache, exports: Exports | None
    ) -> TaskFactories:
        return factories(
            TaskParts(
                Storage(self._backends, self._database, image_cache, self._daemon),
                copier,
                self._importer(copier, image_cache),
                image_cache,
                VolumeAccess(self._database, self._backends, exports),
                Takers(self._images.source, self._uploading, self._threads),
                self._database,
                self._reactor,
                self._hypervisor,
                self._config.availability_zone,
                self._daemon,
            )
        )

    # --- plugins ---------------------------------------------------------------------------------

    def _make_plugins(self, remembered: Mapping[str, Store]) -> None:
        for place, configured in self._config.plugins():
            descriptor = configured.descriptor
            if isinstance(descriptor, BackendPlugin):
                store = remembered.get(configured.name)
                self.plugins[place] = self._backend(place, descriptor, configured, store)
            else:
                self.plugins[place] = self._plugin(configured)

    def pool(self, name: str) -> Threads:
        """Return a new pool of threads.  The daemon starts and stops the pool."""
        size = _THREADS + _THREADS_OF_AN_IMPORT * self._config.imports.concurrent
        pool = Threads(self._reactor, f"bootvol-{name}", size)
        self.pools.append(pool)
        return pool

    def _context(self, name: str) -> PluginContext:
        jail = self._config.sandbox.jail
        return PluginContext(self._reactor, self.pool(name), name, jail=jail)

    def _plugin(self, configured: PluginSettings) -> object:
        # A pool for this plugin alone: calls that never return keep their threads.
        context = self._context(configured.name)
        return plugins.build(configured.descriptor, configured.options, context)

    def _backend(
        self,
        place: str,
        descriptor: BackendPlugin[BaseModel],
        configured: PluginSettings,
        store: Store | None,
    ) -> IBlockBackend:
        """Return a backend, or an :class:`Absent` if the backend does not answer in time.

        :param store: the store with the backend's volumes, if known.
        """
        context = self._context(configured.name)
        identity = store.identity if store is not None else None
        make = partial(plugins.build_backend, descriptor, configured.options, context, identity)

        async def make_late() -> IBlockBackend:
            # Nothing has to be undone, so the end of the daemon need not wait for this call.
            making = Shared(Deferred.fromCoroutine(context.threads.run(make)))
            self.plugins[place] = made = await making.wait()
            return made

        try:
            return within(plugins.PATIENCE, make)
        except StillRunning:
            self._late[configured.name] = make_late
            return Absent(configured.name, local=store is None or bool(store.host))


def _now() -> datetime:
    return datetime.now(UTC)
