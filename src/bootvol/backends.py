"""The configured backends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from bootvol.errors import (
    BackendGone,
    BackendSilent,
    BootvolError,
    ConfigurationError,
    ErrorReport,
    NoRoute,
    VolumeElsewhere,
    WrongStore,
)
from bootvol.interfaces import (
    Capabilities,
    IBlockBackend,
    ICountingBackend,
    IGrowingBackend,
    IGuardedBackend,
    IMeasuredBackend,
    IRoutingBackend,
    IVolumeReader,
    IVolumeWriter,
    Room,
)
from bootvol.model import ConnectionInfo, Route, Volume
from bootvol.questions import Questions
from bootvol.threads import StillRunning

T = TypeVar("T")


@implementer(IBlockBackend)
class Absent:
    """Stand-in for a backend that has not answered since the daemon started; each call fails.

    Nothing is known about the backend, not even its capabilities.

    :ivar local: whether only this host reaches the store, as far as the database tells.
    """

    def __init__(self, name: str, local: bool = True) -> None:
        self.name = name
        self.local = local

    @property
    def capabilities(self) -> Capabilities:
        """See :attr:`bootvol.interfaces.IBlockBackend.capabilities`."""
        raise BackendSilent(self.name)

    async def allocate(self, volume: str, size: int) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.allocate`."""
        raise BackendSilent(self.name)

    async def open_writer(self, volume: str) -> IVolumeWriter:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_writer`."""
        raise BackendSilent(self.name)

    async def open_reader(self, volume: str) -> IVolumeReader:
        """See :meth:`bootvol.interfaces.IBlockBackend.open_reader`."""
        raise BackendSilent(self.name)

    async def delete(self, volume: str) -> None:
        """See :meth:`bootvol.interfaces.IBlockBackend.delete`."""
        raise BackendSilent(self.name)

    async def connection(self, volume: str) -> ConnectionInfo:
        """See :meth:`bootvol.interfaces.IBlockBackend.connection`."""
        raise BackendSilent(self.name)


class Backends:
    """The backends by name; new volumes are made on the first one.

    :param backends: at least one backend, in the order of the configuration.
    :param clock: the reactor.
    :ivar host: name of the daemon's host: what only this host reaches has the name in its row.
    """

    _log = Logger()

    def __init__(
        self, backends: Sequence[IBlockBackend], clock: IReactorTime, host: str = ""
    ) -> None:
        self._questions = Questions(clock)
        self._routes = Questions(clock)
        self._rooms = Questions(clock)
        self._backends = {backend.name: backend for backend in backends}
        self.default = backends[0].name
        self.host = host
        self._suspended: dict[str, BootvolError | None] = {}

    @property
    def names(self) -> Collection[str]:
        """The names of all backends."""
        return self._backends.keys()

    @property
    def usable(self) -> Collection[str]:
        """The names of the backends that may do work."""
        return self._backends.keys() - self._suspended.keys()

    @property
    def suspended(self) -> Collection[str]:
        """The names of the backends that may do no work for now."""
        return self._suspended.keys()

    def suspend(self, name: str, error: BootvolError | None = None) -> None:
        """Stop the work of a backend until :mod:`bootvol.worker.stores` resumes the backend.

        Pending work on the backend waits, as in an outage of the database.

        :param error: the reason, to log once and to show to callers whose volumes wait; None if the
            reason is not known yet.
        """
        if error is not None and str(self._suspended.get(name)) != str(error):
            self._log.error("backend {name} is suspended: {error}", name=name, error=error)
        if error is not None or name not in self._suspended:
            self._suspended[name] = error

    def resume(self, name: str) -> None:
        """Allow the work of a backend again."""
        if self._suspended.pop(name, None) is not None:
            self._log.info("backend {name} works again", name=name)

    def replace(self, backend: IBlockBackend) -> None:
        """Replace the :class:`Absent` backend of the same name."""
        self._backends[backend.name] = backend

    def named(self, name: str) -> IBlockBackend:
        """Return a backend by name.

        :raises BackendGone: if the operator has removed the backend from the configuration.
        """
        try:
            return self._backends[name]
        except KeyError:
            raise BackendGone(name) from None

    def missing(self, name: str) -> ErrorReport | None:
        """Return the reason why a backend does no work now; None without a known reason."""
        error = self._suspended.get(name) if name in self._backends else BackendGone(name)
        if isinstance(error, ConfigurationError):
            # Messages for operators are not for tenants.
            error = WrongStore()
        return None if error is None else error.report()

    def is_local(self, name: str) -> bool:
        """Return whether only this host reaches the store of a backend.

        :raises BackendGone: if the backend is not configured any more.
        """
        backend = self.named(name)
        return backend.local if isinstance(backend, Absent) else backend.capabilities.local

    def host_of(self, name: str) -> str:
        """Return the host of the volumes that a backend makes here; empty if all hosts reach them.

        :raises BackendGone: if the backend is not configured any more.
        """
        return self.host if self.is_local(name) else ""

    def reaches(self, host: str) -> bool:
        """Return whether this host reaches the volumes with a host in their rows."""
        return host in ("", self.host)

    def can_grow(self, name: str) -> bool:
        """Return whether a backend makes volumes larger; True for one that has not answered yet.

        :raises BackendGone: if the backend is not configured any more.
        """
        backend = self.named(name)
        return isinstance(backend, Absent) or IGrowingBackend.providedBy(backend)

    async def room(self, name: str) -> Room | None:
        """Return the space of a backend; None if the backend does not tell, or not now.

        :raises BackendGone: if the backend is not configured any more.
        """
        backend = self.named(name)
        if not IMeasuredBackend.providedBy(backend):
            return None
        try:
            return await self._rooms.ask(name, IMeasuredBackend(backend).room)
        except (BootvolError, StillRunning) as error:
            self._log.warn("backend {name} tells no space: {error}", name=name, error=error)
            return None

    def clones(self, name: str) -> bool:
        """Return whether a backend clones volumes; False for one that has not answered yet.

        :raises BackendGone: if the backend is not configured any more.
        """
        backend = self.named(name)
        return not isinstance(backend, Absent) and backend.capabilities.clones

    async def check_unused(self, backend: str, volume: str) -> None:
        """Check that nobody has a volume open, as far as the backend can tell.

        :param volume: name of the volume on the backend.
        :raises BackendGone: if the backend is not configured any more.
        :raises bootvol.errors.VolumeInUse: if somebody has the volume open.
        :raises bootvol.errors.BackendFailed: if the check fails.
        """
        found = self.named(backend)
        if IGuardedBackend.providedBy(found):
            await IGuardedBackend(found).check_unused(volume)

    async def check_closed(self, backend: str, volume: str) -> None:
        """Check that no process has a volume open, as exactly as the backend can tell.

        :param volume: name of the volume on the backend.
        :raises: see :meth:`check_unused`.
        """
        found = self.named(backend)
        if ICountingBackend.providedBy(found):
            await ICountingBackend(found).check_closed(volume)
        else:
            await self.check_unused(backend, volume)

    async def ask(
        self,
        name: str,
        topic: str,
        question: Callable[[], Coroutine[Deferred[object], object, T]],
    ) -> T:
        """Return a backend's answer to a caller who waits.

        :param topic: a text that is equal for equal questions to the backend.
        :raises BackendSilent: if the backend does not answer in time.
        """
        try:
            return await self._questions.ask((name, topic), question)
        except StillRunning:
            raise BackendSilent(name) from None

    async def connection(self, volume: Volume) -> ConnectionInfo:
        """Return how a hypervisor reaches a volume on its backend.

        :raises VolumeElsewhere: if only another host reaches the volume.
        :raises BackendGone: if the backend is not configured any more.
        :raises BackendSilent: if the backend does not answer in time.
        :raises bootvol.errors.BackendFailed: if the volume does not exist.
        """
        backend = self._near(volume)
        try:
            found = await self._questions.ask(volume.name, lambda: backend.connection(volume.name))
        except StillRunning:
            raise BackendSilent(volume.backend) from None
        return attrs.evolve(found, read_only=bool(volume.readonly))

    async def route(self, volume: Volume) -> Route:
        """Return how a host on the storage network reaches a volume.

        :raises NoRoute: if the backend names no route.
        :raises bootvol.errors.BootvolError: as :meth:`connection`.
        """
        backend = self._near(volume)
        if isinstance(backend, Absent):
            raise BackendSilent(volume.backend)
        if not IRoutingBackend.providedBy(backend):
            raise NoRoute
        asked = IRoutingBackend(backend)
        try:
            return await self._routes.ask(volume.name, lambda: asked.route(volume.name))
        except StillRunning:
            raise BackendSilent(volume.backend) from None

    def _near(self, volume: Volume) -> IBlockBackend:
        """Return the backend of a volume that this host reaches."""
        if not self.reaches(volume.host):
            raise VolumeElsewhere(volume.host)
        return self.named(volume.backend)
