"""What waits in a lane, by tenants, and who of them is next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import attrs

from bootvol.lifecycle import Kind


@attrs.frozen
class Waiting:
    """One or more things of one tenant that wait for the same places.

    :ivar backend: the backend that is worked on; None for servers.
    :ivar source: the source that is read; None for all but imports.
    """

    kind: Kind
    tenant: str
    backend: str | None
    source: str | None = None


class Order(Protocol):
    """Tells who is next.  Used in the database's threads, so an order never changes."""

    def admitted(self, waiting: Collection[Waiting]) -> Sequence[Waiting]:
        """Return those that may begin, the next one first; equals stay in the given order."""

    def places(self, waiting: Waiting) -> int:
        """Return how many places the tenant has that others compete for."""
