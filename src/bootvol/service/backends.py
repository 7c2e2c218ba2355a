"""The backends that the operator has configured."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from twisted.internet.interfaces import IReactorTime

from bootvol.errors import BackendGone, BackendSilent, ErrorReport
from bootvol.interfaces import IBlockBackend, IGuardedBackend
from bootvol.model import Connection, Volume
from bootvol.service.questions import Questions
from bootvol.threads import StillRunning


class Backends:
    """Backends by name; new volumes are made on the first.

    :param backends: at least one, in the order in which the operator named them.
    :param clock: the reactor.
    :ivar unknown: names of those that may do no work yet: see :mod:`bootvol.service.stores`.
    """

    def __init__(self, backends: Sequence[IBlockBackend], clock: IReactorTime) -> None:
        self._questions = Questions(clock)
        self._backends = {backend.name: backend for backend in backends}
        self.default = backends[0]
        self.unknown: set[str] = set()

    @property
    def names(self) -> Collection[str]:
        """The names of all backends."""
        return self._backends.keys()

    @property
    def usable(self) -> Collection[str]:
        """The names of the backends that may do work."""
        return self._backends.keys() - self.unknown

    def named(self, name: str) -> IBlockBackend:
        """Return the backend that a volume lies on.

        :raises BackendGone: the operator has taken it out of the configuration.
        """
        try:
            return self._backends[name]
        except KeyError:
            raise BackendGone(name) from None

    def missing(self, name: str) -> ErrorReport | None:
        """Return what to say of what lies on a backend if that is not configured."""
        return None if name in self._backends else BackendGone(name).report()

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
