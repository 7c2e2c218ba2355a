"""Failures of work, as seen by callers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from bootvol.model import Caller, Failure
from bootvol.store import failures as failure_rows
from bootvol.store.database import Database


class Failures:
    """The failures of all tenants' work, as seen by a caller.

    :param now: returns the current time, as an aware UTC datetime.
    """

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def listed(self, caller: Caller) -> Sequence[Failure]:
        """List the failures of the caller's tenant, ascending by id."""
        return await self._database.read(failure_rows.listed, caller.tenant, self._now())

    async def get(self, caller: Caller, uuid: str) -> Failure:
        """Return a failure of the caller's tenant.

        :raises FailureNotFound: if the tenant has no such failure, or if bootvol has forgotten the
            failure.
        """
        return await self._database.read(failure_rows.get, caller.tenant, uuid, self._now())

    async def forget(self, caller: Caller, uuid: str) -> None:
        """Forget a failure of the caller's tenant.

        :raises FailureNotFound: if the tenant has no such failure.
        """
        await self._database.write(failure_rows.remove, caller.tenant, uuid)
