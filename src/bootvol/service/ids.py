"""Resolve ids to row numbers: later versions of the API identify resources by UUIDs."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from bootvol.lifecycle import Kind
from bootvol.model import LARGEST_ID, Caller
from bootvol.store import ids
from bootvol.store.database import Database

#: A number that no row has: a look-up by this number finds nothing.
NONE: Final = -1


class Ids:
    """The ids of all tenants' resources, as seen by a caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def number(self, caller: Caller, kind: Kind, text: str) -> int:
        """Return the row number of a resource that a caller names.

        :param text: a number in digits, or a UUID, in any case, with or without hyphens.
        :returns: the number; :data:`NONE` if the text names no resource of the caller's tenant.
        """
        if text.isascii() and text.isdigit() and len(text) < 11:
            return int(text) if int(text) <= LARGEST_ID else NONE
        uuid = _uuid(text)
        if uuid is None:
            return NONE
        found = await self._database.read(ids.number, kind, caller.tenant, uuid)
        return NONE if found is None else found

    async def owner(self, kind: Kind, text: str) -> str | None:
        """Return the tenant of a resource of any tenant; None if no resource has the UUID.

        Only callers who may see the resources of all tenants may learn the result.

        :param text: a UUID, in any case, with or without hyphens.
        """
        uuid = _uuid(text)
        return None if uuid is None else await self._database.read(ids.owner, kind, uuid)


def _uuid(text: str) -> str | None:
    """Return a UUID as the database has it; None if the text is not a UUID."""
    try:
        return str(UUID(text))
    except ValueError:
        return None
