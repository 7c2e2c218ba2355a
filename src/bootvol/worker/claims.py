"""The claim under which a task works, as seen by the task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection as Db

P = ParamSpec("P")
T = TypeVar("T")


class ClaimLost(Exception):
    """The claim was lost, or the work is no longer wanted: stop, and change nothing."""


class Claim(Protocol):
    """A claim."""

    async def in_transaction(
        self, query: Callable[Concatenate[Db, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``query(connection, …)`` in a transaction that commits only while the claim holds.

        :raises ClaimLost: if the claim was lost.
        """

    async def heartbeat(self) -> None:
        """Renew the claim, and record the progress durably.

        :raises ClaimLost: if the claim was lost.
        """
