"""The connection to a cluster, made on first use and again after a loss."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, TypeVar

import attrs
from twisted.internet.defer import CancelledError, DeferredLock
from twisted.logger import Logger

from bootvol.errors import BackendFailed, BackendInterrupted, NoSpace, WrongStore
from bootvol_plugins.rbd.bindings import Bindings, Image, Ioctx, Rados
from bootvol_plugins.rbd.calls import Calls, Disconnected, GivenUp, failures
from bootvol_plugins.rbd.options import RbdOptions

T = TypeVar("T")

_VERSION: Final = re.compile(r"^(v\d|any|-):")
_SEVERAL: Final = re.compile(r"\[((?:v\d|any|-):.*)\]")
#: The most lost connections to keep. A lost connection stays while one of its calls hangs.
_MOST_LOST: Final = 4
#: After these errors the fate of a write is unknown.
_DOUBTFUL: Final = (BackendFailed, GivenUp, Disconnected)


def addresses_in(text: str) -> frozenset[str]:
    """Return the addresses in Ceph's text of a client, each as ``IP:PORT/NONCE``.

    Ceph writes one address with or without the version of the protocol before it, and several
    addresses in brackets (``operator<<`` in Ceph's src/msg/msg_types.cc).
    """
    several = _SEVERAL.fullmatch(text)
    listed = text if several is None else several[1]
    return frozenset(_VERSION.sub("", each) for each in listed.split(","))


@attrs.define(eq=False)
class Pool:
    """A pool or namespace of one cluster connection. All methods block.

    :ivar rados: the connection.
    :ivar ioctx: the library's handle of the pool.
    :ivar address: the connection's own address. The cluster shuts a connection out by its address.
    :ivar uses: the number of open images and running calls. The reactor thread counts them.
    :ivar store: the store's identity: see :meth:`RbdBackend.identity`.
    :ivar kept: images that must stay open until the cluster has shut the connection out.
    """

    bindings: Bindings
    rados: Rados
    ioctx: Ioctx
    name: str
    address: str
    store: str
    uses: int = 0
    kept: list[Image] = attrs.Factory(list)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The base classes of the library's errors."""
        return (self.bindings.rbd.Error, self.bindings.rados.Error)

    def space(self) -> tuple[int, int] | None:
        """Return how much the pool can hold, and how much of that is free, in bytes.

        None means that the cluster does not tell.

        A manager daemon counts the space. The figures are some seconds old.
        """
        command = json.dumps({"prefix": "df", "detail": "detail", "format": "json"})
        code, answer, _ = self.rados.mon_command(command, b"")
        if code:
            return None
        for pool in json.loads(answer)["pools"]:
            if pool["name"] == self.name:
                counted = pool["stats"]
                free, stored = int(counted["max_avail"]), int(counted["stored"])
                if quota := counted.get("quota_bytes"):
                    return min(free + stored, int(quota)), min(free, max(0, int(quota) - stored))
                return free + stored, free
        return None

    def of_images(self, fsid: str, name: str) -> Ioctx | None:
        """Return the library's handle of another pool. The caller closes the handle.

        :param fsid: the FSID of the pool's cluster.
        :returns: the handle; None if this cluster has no such pool.
        """
        if fsid != self.rados.get_fsid():
            return None
        try:
            return self.rados.open_ioctx(name)
        except self.bindings.rados.ObjectNotFound:
            return None

    def is_ours(self, address: str) -> bool:
        """Return whether an address, for example of a lock's owner, is this connection's."""
        return not addresses_in(address).isdisjoint(addresses_in(self.address))

    def shut_out(self, *others: Pool) -> None:
        """Make the cluster refuse all later operations of some connections, for an hour.

        All later operations of this connection come after the earlier ones of the others.
        """
        for other in others:
            self.rados.blocklist_add(other.address)
        self.rados.wait_for_latest_osdmap()

    def close(self) -> None:
        """Close the connection, and the kept images."""
        for image in self.kept:
            with suppress(*self.errors):
                image.close()
        self.ioctx.close()
        self.rados.shutdown()


class Cluster:
    """Runs calls on a pool's connection. Call all methods from the reactor thread only.

    :param name: the backend's name.
    """

    _log = Logger()

    def __init__(self, name: str, options: RbdOptions, bindings: Bindings, calls: Calls) -> None:
        self._name = name
        self._options = options
        self._bindings = bindings
        self._calls = calls
        self._pool: Pool | None = None
        self._lost: list[Pool] = []
        self._doubted: list[Pool] = []
        self._connecting = DeferredLock()
        self._expected: str | None = None

    def expect(self, store: str) -> None:
        """Connect to no other store from now on. See :attr:`Pool.store`."""
        self._expected = store
        if self._pool is not None and self._pool.store != store:
            self._lose(self._pool)

    async def run(
        self,
        what: str,
        call: Callable[[Pool, Callable[..., int]], T],
        undo: Callable[[T], object] = lambda _: None,
    ) -> T:
        """Run a blocking call with the pool; see :meth:`Calls.run`.

        :raises BackendFailed: if the call fails, or the cluster cannot be reached.
        :raises BackendInterrupted: if the cluster has shut the connection out. The next call makes
            a new connection.
        """
        pool = await self._connected()
        return await self.run_on(pool, what, partial(call, pool), undo)

    async def run_on(
        self,
        pool: Pool,
        what: str,
        call: Callable[[Callable[..., int]], T],
        undo: Callable[[T], object] = lambda _: None,
    ) -> T:
        """Do as :meth:`run`, with a pool whose connection may be lost by now."""

        def work(beat: Callable[..., int]) -> T:
            with failures(pool.errors, what):
                return call(beat)

        with self._watching(pool):
            return await self._calls.run(what, work, undo)

    @contextmanager
    def writing(self, pool: Pool) -> Iterator[None]:
        """Give the connection up if a write within the block fails.

        A failed write may still be on its way to the cluster, and take effect at any time. So the
        connection gets no new users. The next connection first makes the cluster shut the old one
        out. After that the write is done or never takes effect.
        """
        try:
            yield
        except BaseException as error:
            failure = _hidden(error)
            if isinstance(failure, _DOUBTFUL) and not isinstance(failure, NoSpace):
                self._lose(pool)
                if pool not in self._doubted:
                    self._doubted.append(pool)
            raise

    async def close_image(self, pool: Pool, what: str, image: Image) -> None:
        """Close an image that was opened on ``pool``.

        :raises BackendFailed: if the image is still open, or may be.
        """
        try:
            if pool in self._doubted:
                # An open image stays locked. The next writer shuts the lock's owner out. If the
                # image were closed, nothing would shut the owner out.
                pool.kept.append(image)
                await self._shut_out(pool, what)
            else:
                await self.run_on(pool, what, lambda _: image.close())
        finally:
            pool.uses -= 1
            await self._let_go(pool)

    async def _shut_out(self, pool: Pool, what: str) -> None:
        """Shut a doubtful connection out of the cluster, by a call on the connection itself."""
        await self.run_on(pool, what, lambda _: pool.shut_out(pool))
        self._doubted = [each for each in self._doubted if each is not pool]

    @contextmanager
    def _watching(self, pool: Pool) -> Iterator[None]:
        pool.uses += 1
        try:
            yield
        except (GivenUp, Disconnected, CancelledError) as error:
            failure = _hidden(error)
            if isinstance(failure, GivenUp):
                # The call goes on, and keeps the connection.
                pool.uses += 1
            elif isinstance(failure, Disconnected):
                # The connection is useless now, but images may still be open on it.
                self._lose(pool)
            if isinstance(error, CancelledError):
                raise
            raise _for_callers(error) from error
        finally:
            pool.uses -= 1

    def _lose(self, pool: Pool) -> None:
        if self._pool is pool:
            self._pool = None
            self._lost.append(pool)

    async def _let_go(self, pool: Pool) -> None:
        """Close a lost connection that has no users and no doubtful writes."""
        if pool in self._lost and pool not in self._doubted and not pool.uses:
            self._lost.remove(pool)
            await self._disconnect(pool)

    async def _disconnect(self, pool: Pool) -> None:
        try:
            await self._call("Disconnecting failed", partial(_close, pool))
        except BackendFailed:
            self._log.failure("backend {name} does not disconnect", name=self._name)

    async def close(self) -> None:
        """Close all connections. The next call makes a new one."""
        if self._pool is not None:
            self._lose(self._pool)
        for pool in list(self._lost):
            if pool in self._doubted:
                try:
                    await self._shut_out(pool, "Disconnecting failed")
                except BackendFailed:
                    self._log.failure("backend {name} leaves images locked", name=self._name)
                    continue
            self._lost.remove(pool)
            await self._disconnect(pool)

    async def _connected(self) -> Pool:
        async with self._connecting:
            if self._pool is None:
                what = f"Connecting to the cluster of backend {self._name} failed"
                if len(self._lost) >= _MOST_LOST:
                    raise BackendFailed(f"{what}: {len(self._lost)} earlier ones hang.")
                doubted = tuple(self._doubted)
                self._pool = await self._call(
                    what, lambda _: self._connect(what, doubted), Pool.close
                )
                self._doubted = [pool for pool in self._doubted if pool not in doubted]
                for pool in doubted:
                    await self._let_go(pool)
            return self._pool

    async def _call(
        self,
        what: str,
        call: Callable[[Callable[..., int]], T],
        undo: Callable[[T], object] = lambda _: None,
    ) -> T:
        """Do as :meth:`Calls.run`, without a connection.

        :raises BackendFailed: if the call shows no progress for too long.
        :raises BackendInterrupted: if the cluster shuts out even new connections.
        """
        try:
            return await self._calls.run(what, call, undo)
        except (GivenUp, Disconnected) as error:
            raise _for_callers(error) from error

    def _connect(self, what: str, doubted: tuple[Pool, ...]) -> Pool:
        rados, options = self._bindings.rados, self._options
        with failures((rados.Error,), what):
            connection = rados.Rados(
                conffile=str(options.conf) if options.conf is not None else None,
                rados_id=options.user,
                conf=options.client(),
            )
            try:
                connection.connect(timeout=options.timeout)
                ioctx = connection.open_ioctx(options.pool)
                if options.namespace is not None:
                    ioctx.set_namespace(options.namespace)
                # In a full cluster, writes now fail at once, and deletions succeed. Without the
                # flag both would wait for free space.
                ioctx.set_osdmap_full_try()
                store = f"{connection.get_fsid()}/{connection.pool_lookup(options.pool)}"
                store += f"/{options.namespace or ''}"
                if self._expected not in (None, store):
                    raise WrongStore(
                        f"Backend {self._name} has the store {store}; its volumes lie in the store"
                        f" {self._expected}."
                    )
                addresses = connection.get_addrs()
                pool = Pool(self._bindings, connection, ioctx, options.pool, addresses, store)
                if doubted:
                    pool.shut_out(*doubted)
            except BaseException:
                with suppress(rados.Error):
                    connection.shutdown()
                raise
        return pool


def _close(pool: Pool, _: object) -> None:
    pool.close()


def _for_callers(error: GivenUp | Disconnected) -> BackendFailed:
    """Return the error of the contract for the end of a call without a result."""
    kind = BackendInterrupted if isinstance(error, Disconnected) else BackendFailed
    return kind(str(error))


def _hidden(error: BaseException) -> BaseException | None:
    """Return the outcome that a later cancellation hides; otherwise ``error`` itself."""
    return error.__cause__ if isinstance(error, CancelledError) else error
