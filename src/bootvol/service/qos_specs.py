"""Limits of speed: the operators write them, types have them, hypervisors enforce them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection as Db

from bootvol.errors import QosSpecsInUse
from bootvol.model import Consumer, QosSpecs, VolumeType
from bootvol.store import qos_specs as rows
from bootvol.store import volume_types as type_rows
from bootvol.store.database import Database


class QosRules:
    """The limits of speed of all volume types."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def listed(self) -> Sequence[QosSpecs]:
        """List all limits, ascending by id."""
        return await self._database.read(rows.listed)

    async def get(self, uuid: str) -> QosSpecs:
        """Return limits.

        :raises QosSpecsNotFound: if no limits have the id.
        """
        return await self._database.read(rows.get, uuid)

    async def create(self, name: str, consumer: Consumer, specs: Mapping[str, str]) -> QosSpecs:
        """Add limits.

        :raises QosSpecsExist: if other limits have the name.
        """
        return await self._database.write(rows.add, name, consumer, specs)

    async def change(self, uuid: str, consumer: Consumer | None, specs: Mapping[str, str]) -> None:
        """Set some limits; the others stay.

        :param consumer: the new side that enforces the limits; None for no change.
        :raises QosSpecsNotFound: if no limits have the id.
        """

        def write(db: Db) -> None:
            found = rows.get(db, uuid, lock=True)
            rows.put(db, uuid, consumer or found.consumer, {**found.specs, **specs})

        await self._database.write(write)

    async def forget(self, uuid: str, keys: Collection[str]) -> Collection[str]:
        """Remove some limits; return the names without a limit, and change nothing if any.

        :raises QosSpecsNotFound: if no limits have the id.
        """

        def write(db: Db) -> Collection[str]:
            found = rows.get(db, uuid, lock=True)
            missing = [each for each in keys if each not in found.specs]
            if not missing:
                left = {name: each for name, each in found.specs.items() if name not in keys}
                rows.put(db, uuid, found.consumer, left)
            return missing

        return await self._database.write(write)

    async def delete(self, uuid: str, *, force: bool) -> None:
        """Remove limits.

        :param force: whether types lose the limits; otherwise limits in use stay.
        :raises QosSpecsNotFound: if no limits have the id.
        :raises QosSpecsInUse: if a type has the limits.
        """

        def write(db: Db) -> None:
            rows.get(db, uuid, lock=True)
            if rows.types_of(db, uuid):
                if not force:
                    raise QosSpecsInUse
                rows.release(db, uuid)
            rows.remove(db, uuid)

        await self._database.write(write)

    async def types_of(self, uuid: str) -> Sequence[VolumeType]:
        """Return the types with the limits.

        :raises QosSpecsNotFound: if no limits have the id.
        """

        def read(db: Db) -> Sequence[VolumeType]:
            rows.get(db, uuid)
            return rows.types_of(db, uuid)

        return await self._database.read(read)

    async def associate(self, uuid: str, type_id: int) -> None:
        """Give limits to a type.  The volumes of the type get the limits at their next connection.

        :raises QosSpecsNotFound: if no limits have the id.
        :raises VolumeTypeNotFound: if the type does not exist.
        :raises QosSpecsInUse: if the type has other limits.
        """

        def write(db: Db) -> None:
            rows.get(db, uuid, lock=True)
            found = type_rows.get(db, type_id, lock=True)
            if found.qos not in (None, uuid):
                raise QosSpecsInUse(
                    f"Type {found.uuid} is already associated with another qos specs: {found.qos}"
                )
            type_rows.change(db, type_id, {"qos": uuid})

        await self._database.write(write)

    async def release(self, uuid: str, type_id: int | None) -> None:
        """Take limits from a type, or from all types.

        :param type_id: the number of the type; None for all types with the limits.
        :raises QosSpecsNotFound: if no limits have the id.
        :raises VolumeTypeNotFound: if the type does not exist.
        """

        def write(db: Db) -> None:
            rows.get(db, uuid, lock=True)
            if type_id is None:
                rows.release(db, uuid)
            elif type_rows.get(db, type_id, lock=True).qos == uuid:
                type_rows.change(db, type_id, {"qos": None})

        await self._database.write(write)

    async def of_type(self, name: str) -> QosSpecs | None:
        """Return the limits of the type of a name; None for no limits."""
        return await self._database.read(rows.of_type, name)
