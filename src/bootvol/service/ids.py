"""Finds the number that an id stands for: later versions of the API know things by uuids."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from bootvol.lifecycle import Kind
from bootvol.model import LARGEST_ID, Caller
from bootvol.store import ids
from bootvol.store.database import Database

#: A number that is never given: a look-up by this finds nothing.
NONE: Final = -1


class Ids:
    """The ids of what all tenants have, seen through the eyes of a caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def number(self, caller: Caller, kind: Kind, text: str) -> int:
        """Return the number of what a caller names.

        :param text: a number in digits, or a uuid, in any case and with hyphens or without.
        :returns: :data:`NONE` where the text names nothing of the caller's tenant.
        """
        if text.isascii() and text.isdigit() and len(text) < 11:
            return int(text) if int(text) <= LARGEST_ID else NONE
        try:
            uuid = str(UUID(text))
        except ValueError:
            return NONE
        found = await self._database.read(ids.number, kind, caller.tenant, uuid)
        return NONE if found is None else found
