"""The backends that the operator has configured."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from bootvol.errors import (
    BackendGone,
    BackendSilent,
    BootvolError,
    ConfigurationError,
    ErrorReport,
    WrongStore,
)
from bootvol.interfaces import (
    Capabilities,
    IBlockBackend,
    IGuardedBackend,
    IVolumeReader,
    IVolumeWriter,
)
from bootvol.model import Connection, Volume
from bootvol.service.questions import Questions
from bootvol.threads import StillRunning


@implementer(IBlockBackend)
class Absent:
    """Stands for a backend that has not answered since the daemon started; fails whatever is asked.

    Nothing is known of the backend, not even what it promises.
    """

    def __init__(self, name: str) -> None:
        self.name = name

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

    async def connection(self, volume: str) -> Connection:
        """See :meth:`bootvol.interfaces.IBlockBackend.connection`."""
        raise BackendSilent(self.name)


class Backends:
    """Backends by name; new volumes are made on the first.

    :param backends: at least one, in the order in which the operator named them.
    :param clock: the reactor.
    """

    _log = Logger()

    def __init__(self, backends: Sequence[IBlockBackend], clock: IReactorTime) -> None:
        self._questions = Questions(clock)
        self._backends = {backend.name: backend for backend in backends}
        self.default = backends[0].name
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
        """Let a backend do no work until :mod:`bootvol.service.stores` finds that it can.

        What is to be done on it waits, as in an outage of the database.

        :param error: why: for the log, once, and for whoever asks what something waits for; None if
            there is nothing to tell yet.
        """
        if error is not None and str(self._suspended.get(name)) != str(error):
            self._log.error("backend {name} does no work for now: {error}", name=name, error=error)
        self._suspended[name] = error

    def resume(self, name: str) -> None:
        """Let a backend do its work."""
        if self._suspended.pop(name, None) is not None:
            self._log.info("backend {name} does its work again", name=name)

    def replace(self, backend: IBlockBackend) -> None:
        """Put a backend in the place of an :class:`Absent` one of its name."""
        self._backends[backend.name] = backend

    def named(self, name: str) -> IBlockBackend:
        """Return the backend that a volume lies on.

        :raises BackendGone: the operator has taken it out of the configuration.
        """
        try:
            return self._backends[name]
        except KeyError:
            raise BackendGone(name) from None

    def missing(self, name: str) -> ErrorReport | None:
        """Return what to say of what lies on a backend that does no work now, if there is more."""
        error = self._suspended.get(name) if name in self._backends else BackendGone(name)
        if isinstance(error, ConfigurationError):
            # The operator's words are not for tenants.
            error = WrongStore()
        return None if error is None else error.report()

    async def check_unused(self, backend: str, volume: str) -> None:
        """See that nobody has a volume open, as far as its backend can tell.

        :param volume: its name on the backend.
        :raises BackendGone: its backend is not configured any more.
        :raises bootvol.errors.VolumeInUse: somebody has it open.
        :raises bootvol.errors.BackendFailed: it cannot be told.
        """
        found = self.named(backend)
        if IGuardedBackend.providedBy(found):
            await IGuardedBackend(found).check_unused(volume)

    async def connection(self, volume: Volume) -> Connection:
        """Tell how a hypervisor reaches a volume where it lies.

        :raises BackendGone: its backend is not configured any more.
        :raises BackendSilent: its backend does not answer in time.
        :raises bootvol.errors.BackendFailed: the volume is not there.
        """
        backend = self.named(volume.backend)
        try:
            return await self._questions.ask(volume.name, lambda: backend.connection(volume.name))
        except StillRunning:
            raise BackendSilent(volume.backend) from None
