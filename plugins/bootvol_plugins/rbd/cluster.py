"""The connection to a cluster, made when it is first needed and again after it was lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import DeferredLock

from bootvol.errors import BackendFailed
from bootvol_plugins.rbd.bindings import Bindings
from bootvol_plugins.rbd.calls import Calls, Disconnected, failures
from bootvol_plugins.rbd.options import RbdOptions

T = TypeVar("T")


@attrs.frozen
class Pool:
    """A pool, or a namespace in one, by a connection.  All methods block.

    :ivar rados: the connection.
    :ivar ioctx: what the library's calls take.
    """

    bindings: Bindings
    rados: Any
    ioctx: Any
    name: str

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
        return address in self.rados.get_addrs()

    def close(self) -> None:
        """Let go of the connection."""
        self.ioctx.close()
        self.rados.shutdown()


class Cluster:
    """Gives what is done with a pool a connection.  All methods belong to the reactor's thread.

    :param name: of the backend.
    """

    def __init__(self, name: str, options: RbdOptions, bindings: Bindings, calls: Calls) -> None:
        self._name = name
        self._options = options
        self._bindings = bindings
        self._calls = calls
        self._pool: Pool | None = None
        self._lost: list[Pool] = []
        self._connecting = DeferredLock()

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

    async def complete(
        self, pool: Pool, what: str, start: Callable[[Callable[..., None]], object]
    ) -> Any:
        """Do something with an image that was opened on ``pool``; see :meth:`Calls.complete`."""
        with self._watching(pool):
            return await self._calls.complete(what, start)

    @contextmanager
    def _watching(self, pool: Pool) -> Iterator[None]:
        try:
            yield
        except Disconnected as error:
            # It is of no use any more, but there may be images open on it.
            if self._pool is pool:
                self._pool = None
                self._lost.append(pool)
            raise BackendFailed(str(error)) from error

    async def close(self) -> None:
        """Let go of all connections; the next call makes a new one."""
        pools = [*self._lost, *([self._pool] if self._pool is not None else [])]
        self._pool = None
        self._lost.clear()
        for pool in pools:
            await self._calls.run("Disconnecting failed", partial(_close, pool))

    async def _connected(self) -> Pool:
        await self._connecting.acquire()
        try:
            if self._pool is None:
                what = f"Connecting to the cluster of backend {self._name} failed"
                self._pool = await self._calls.run(what, lambda _: self._connect(what), Pool.close)
            return self._pool
        finally:
            self._connecting.release()

    def _connect(self, what: str) -> Pool:
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
            except BaseException:
                with suppress(rados.Error):
                    connection.shutdown()
                raise
        return Pool(self._bindings, connection, ioctx, options.pool)


def _close(pool: Pool, _: object) -> None:
    pool.close()
