"""The connection to a cluster, made when it is first needed and again after it was lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

import attrs
from twisted.internet.defer import CancelledError, DeferredLock
from twisted.logger import Logger

from bootvol.errors import BackendFailed, NoSpace, WrongStore
from bootvol_plugins.rbd.bindings import Bindings
from bootvol_plugins.rbd.calls import Calls, Disconnected, GivenUp, failures
from bootvol_plugins.rbd.options import RbdOptions

T = TypeVar("T")

#: How many connections may be held that are lost, since something of them hangs.
_MOST_LOST: Final = 4
#: After these nobody knows what becomes of a write.
_DOUBTFUL: Final = (BackendFailed, GivenUp, Disconnected)


@attrs.define(eq=False)
class Pool:
    """A pool, or a namespace in one, by a connection.  All methods block.

    :ivar rados: the connection.
    :ivar ioctx: what the library's calls take.
    :ivar address: the connection's own, by which the cluster can shut it out.
    :ivar uses: how many images are open by it, and calls under way; the reactor's thread counts.
    :ivar store: what tells it from every other one: see :meth:`RbdBackend.identity`.
    :ivar kept: images that must not be closed before the cluster has shut the connection out.
    """

    bindings: Bindings
    rados: Any
    ioctx: Any
    name: str
    address: str
    store: str
    uses: int = 0
    kept: list[Any] = attrs.Factory(list)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The roots of the library's errors."""
        return (self.bindings.rbd.Error, self.bindings.rados.Error)

    def free(self) -> int | None:
        """Return how many bytes may still be written; None where the cluster does not say.

        It is a manager daemon that counts; the figures are some seconds old.
        """
        command = json.dumps({"prefix": "df", "detail": "detail", "format": "json"})
        code, answer, _ = self.rados.mon_command(command, b"")
        if code:
            return None
        for pool in json.loads(answer)["pools"]:
            if pool["name"] == self.name:
                counted = pool["stats"]
                free = int(counted["max_avail"])
                if quota := counted.get("quota_bytes"):
                    free = min(free, max(0, int(quota) - int(counted["stored"])))
                return free
        return None

    def of_images(self, fsid: str, name: str) -> Any:
        """Return what the library's calls take for another pool, to be closed.

        :param fsid: of the cluster where it is said to be.
        :returns: None if it is not in this one.
        """
        if fsid != self.rados.get_fsid():
            return None
        try:
            return self.rados.open_ioctx(name)
        except self.bindings.rados.ObjectNotFound:
            return None

    def is_ours(self, address: str) -> bool:
        """Tell whether an address, of the owner of a lock say, is this connection's."""
        return address in self.address

    def shut_out(self, *others: Pool) -> None:
        """Have the cluster do nothing more that came by some connections, for an hour.

        What is done by this one from now on is done after that.
        """
        for other in others:
            self.rados.blocklist_add(other.address)
        self.rados.wait_for_latest_osdmap()

    def close(self) -> None:
        """Let go of the connection."""
        for image in self.kept:
            with suppress(*self.errors):
                image.close()
        self.ioctx.close()
        self.rados.shutdown()


class Cluster:
    """Gives what is done with a pool a connection.  All methods belong to the reactor's thread.

    :param name: of the backend.
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
        """Connect to no other store from now on; see :attr:`Pool.store`."""
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

        :raises BackendFailed: it failed, or there is no connection.
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
        """As :meth:`run`, with a pool that is connected, or was."""

        def work(beat: Callable[..., int]) -> T:
            with failures(pool.errors, what):
                return call(beat)

        with self._watching(pool):
            return await self._calls.run(what, work, undo)

    @contextmanager
    def writing(self, pool: Pool) -> Iterator[None]:
        """Write by a connection within the block.

        A write that failed may still be under way to the cluster, and be done at any time.  So
        nobody is given that connection any more, and nobody another one before the cluster has shut
        it out: by then the write is done, or never will be.
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

    async def close_image(self, pool: Pool, what: str, image: Any) -> None:
        """Close an image that was opened on ``pool``.

        :raises BackendFailed: it is still open, or may be.
        """
        try:
            if pool in self._doubted:
                # As long as it is open it is locked, and whoever writes to it next shuts out who
                # locked it; once it is closed nobody would.
                pool.kept.append(image)
                await self._shut_out(pool, what)
            else:
                await self.run_on(pool, what, lambda _: image.close())
        finally:
            pool.uses -= 1
            await self._let_go(pool)

    async def _shut_out(self, pool: Pool, what: str) -> None:
        """Have the cluster shut out one of its own connections that is in doubt, by that itself."""
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
                # It goes on, and so keeps the connection.
                pool.uses += 1
            elif isinstance(failure, Disconnected):
                # It is of no use any more, but there may be images open on it.
                self._lose(pool)
            if isinstance(error, CancelledError):
                raise
            raise BackendFailed(str(error)) from error
        finally:
            pool.uses -= 1

    def _lose(self, pool: Pool) -> None:
        if self._pool is pool:
            self._pool = None
            self._lost.append(pool)

    async def _let_go(self, pool: Pool) -> None:
        """Close a connection that is lost, if nobody uses it and nothing of it is in doubt."""
        if pool in self._lost and pool not in self._doubted and not pool.uses:
            self._lost.remove(pool)
            await self._disconnect(pool)

    async def _disconnect(self, pool: Pool) -> None:
        try:
            await self._call("Disconnecting failed", partial(_close, pool))
        except BackendFailed:
            self._log.failure("backend {name} does not disconnect", name=self._name)

    async def close(self) -> None:
        """Let go of all connections; the next call makes a new one."""
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
        await self._connecting.acquire()
        try:
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
        finally:
            self._connecting.release()

    async def _call(
        self,
        what: str,
        call: Callable[[Callable[..., int]], T],
        undo: Callable[[T], object] = lambda _: None,
    ) -> T:
        """As :meth:`Calls.run`, without a connection.

        :raises BackendFailed: it was given up, too.
        """
        try:
            return await self._calls.run(what, call, undo)
        except GivenUp as error:
            raise BackendFailed(str(error)) from error

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
                # Where it is full, what needs room fails at once, and what makes room is done.
                # Otherwise both would wait until there is some.
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


def _hidden(error: BaseException) -> BaseException | None:
    """Return how something has ended: a cancellation that came meanwhile hides it."""
    return error.__cause__ if isinstance(error, CancelledError) else error
