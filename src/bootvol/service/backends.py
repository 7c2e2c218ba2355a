"""The backends that the operator has configured."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bootvol.errors import BackendFailed
from bootvol.interfaces import IBlockBackend


class Backends:
    """Backends by name; new volumes are made on the first.

    :param backends: at least one, in the order in which the operator named them.
    """

    def __init__(self, backends: Sequence[IBlockBackend]) -> None:
        self._backends = {backend.name: backend for backend in backends}
        self.default = backends[0]

    @property
    def names(self) -> Collection[str]:
        """The names of all backends."""
        return self._backends.keys()

    def named(self, name: str) -> IBlockBackend:
        """Return the backend that a volume lies on.

        :raises BackendFailed: the operator has taken it out of the configuration.
        """
        try:
            return self._backends[name]
        except KeyError:
            raise BackendFailed(f"The backend {name} is no longer configured.") from None
