"""Waiting work in a lane by tenant, and the order among the tenants."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import attrs

from bootvol.lifecycle import Kind


@attrs.frozen
class Waiting:
    """One or more objects of one tenant that wait for the same places.

    :ivar kind: kind of the objects; None for images.
    :ivar backend: name of the backend to work on; None for servers and images.
    :ivar source: name of the source to read; None for all work but imports and downloads.
    """

    kind: Kind | None
    tenant: str
    backend: str | None
    source: str | None = None


class Order(Protocol):
    """The rule for the next in a lane.  Immutable, since the database's threads use an order."""

    def admitted(self, waiting: Collection[Waiting]) -> Sequence[Waiting]:
        """Return the work that may begin, the next first.  Equals stay in the given order."""

    def places(self, waiting: Waiting) -> int:
        """Return how many places the tenant has among those that tenants compete for."""
