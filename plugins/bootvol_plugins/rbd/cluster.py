"""The connection to a cluster, made when it is first needed and again after it was lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import DeferredLock

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

    def is_ours(self, address: str) -> bool:
        """Tell whether an address, of the owner of a lock say, is this connection's."""
        return address in self.rados.get_addrs()

    def close(self) -> None:
        """Let go of the connection."""
        self.ioctx.close()
        self.rados.shutdown()


class Cluster:
    """Gives what is done with a pool a connection.  All methods belong to the reactor's thread."""

    def __init__(self, name: str, options: RbdOptions, bindings: Bindings, calls: Calls) -> None:
        """
        :param name: of the backend.
        """
        self._name = name
        self._options = options
        self._bindings = bindings
        self._calls = calls
        self._pool: Pool | None = None
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

        def work(beat: Callable[..., int]) -> T:
            with failures(pool.errors, what):
                return call(pool, beat)

        try:
            return await self._calls.run(what, work, undo)
        except Disconnected:
            # The connection is of no use any more; images that are still open on it fail by
            # themselves.
            if self._pool is pool:
                self._pool = None
            raise

    async def close(self) -> None:
        """Let go of the connection; the next call makes a new one."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await self._calls.run("Disconnecting failed", lambda _: pool.close())

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
