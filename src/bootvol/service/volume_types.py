"""Volume types: the types that operators offer to callers, and the backend of each type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection as Db

from bootvol.backends import Backends
from bootvol.errors import (
    NoFittingBackend,
    NotFound,
    UnknownBackend,
    VolumeTypeExists,
    VolumeTypeUsed,
)
from bootvol.model import VolumeType
from bootvol.service import abilities
from bootvol.store import default_types as default_rows
from bootvol.store import quotas as quota_rows
from bootvol.store import type_access as access_rows
from bootvol.store import volume_types as type_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

#: The extra spec that names a type's backend: Cinder's name for it, also with Cinder's scope.
BACKEND: Final = "volume_backend_name"
_SCOPED: Final = f"{abilities.SCOPE}{BACKEND}"
#: The type that callers see at volumes without a type.  No type may have the name.
NO_TYPE: Final = "__DEFAULT__"


class VolumeTypes:
    """The volume types.  All tenants see the public types, and some tenants a private type.

    The parameter ``tenant`` of a look-up is the tenant that must see the type; None looks among all
    types.
    """

    def __init__(self, database: Database, backends: Backends) -> None:
        self._database = database
        self._backends = backends

    async def listed(self, tenant: str | None) -> Sequence[VolumeType]:
        """List the types, ascending by id."""
        return await self._database.read(type_rows.listed, tenant)

    async def get(self, type_id: int, tenant: str | None) -> VolumeType:
        """Return one type.

        :raises VolumeTypeNotFound: if the type does not exist.
        """
        return await self._database.read(type_rows.get, type_id, tenant)

    async def backend_of(self, name: str, tenant: str) -> str:
        """Return the name of the backend of a tenant's volumes of a type.

        :raises VolumeTypeNotFound: if no type has that name.
        :raises UnknownBackend: if the type's backend is not configured any more.
        """
        found = await self._database.read(type_rows.named, name, tenant)
        backend = _stated(found.extra_specs) or self._backends.default
        if backend not in self._backends.names:
            raise UnknownBackend(
                f"The {BACKEND} of {name}, {backend}, is not configured. Ask for another type."
            )
        return backend

    def keep(self, db: Db, name: str | None, tenant: str) -> None:
        """Let nobody change or remove a type until the transaction ends.

        Call this method before any row of a volume is locked: a change of the name locks the type
        first, and then the volumes of the type.

        :param name: the name of the type; None for no type.
        :raises VolumeTypeNotFound: if the tenant sees no type of that name.
        """
        if name:
            type_rows.named(db, name, tenant, keep=True)

    def check(self, db: Db, name: str | None, tenant: str, backend: str) -> None:
        """Check that a backend has what a type asks for, within a transaction.

        The type stays as checked until the transaction ends: see :meth:`keep`.

        :param name: the name of the type; None for no type.
        :raises NoFittingBackend: if the backend has not.
        :raises VolumeTypeNotFound: if the tenant sees no type of that name.
        """
        if name:
            specs = type_rows.named(db, name, tenant, keep=True).extra_specs
            unmet = abilities.unmet(specs, backend)
            if unmet:
                raise NoFittingBackend(name, unmet)

    async def stated_backend(self, name: str, tenant: str) -> str | None:
        """Return the backend that a type states; None if volumes of the type may lie anywhere.

        :raises VolumeTypeNotFound: if no type has that name.
        :raises UnknownBackend: if the backend is not configured any more.
        """
        found = await self._database.read(type_rows.named, name, tenant)
        stated = _stated(found.extra_specs) is not None
        return await self.backend_of(name, tenant) if stated else None

    async def of_uuid(self, uuid: str, tenant: str | None) -> VolumeType:
        """Return the type with a uuid.

        :raises VolumeTypeNotFound: if the type does not exist.
        """
        return await self._database.read(type_rows.of_uuid, uuid, tenant)

    async def named(self, name: str, tenant: str | None) -> VolumeType:
        """Return the type with a name.

        :raises VolumeTypeNotFound: if the type does not exist.
        """
        return await self._database.read(type_rows.named, name, tenant)

    async def tenants(self, type_id: int) -> Sequence[str]:
        """Return the tenants that see and use a private type, in ascending order."""
        return await self._database.read(access_rows.tenants, type_id)

    async def give(self, type_id: int, tenant: str) -> bool:
        """Let a tenant see and use a private type; return False if the tenant does so already.

        :raises VolumeTypeNotFound: if the type does not exist.
        """

        def write(db: Db) -> bool:
            type_rows.get(db, type_id, lock=True)
            return access_rows.give(db, type_id, tenant)

        return await self._database.write(write)

    async def take(self, type_id: int, tenant: str) -> bool:
        """Hide a private type from a tenant; return False if the tenant does not see the type.

        Volumes of the type stay as they are.
        """
        return await self._database.write(access_rows.take, type_id, tenant)

    async def default_of(self, tenant: str) -> VolumeType | None:
        """Return the type of a tenant's new volumes without a named type; None for no type."""
        return await self._database.read(default_rows.of, tenant)

    async def defaults(self) -> Mapping[str, VolumeType]:
        """Return the default types of all tenants that have one, by tenant."""
        return await self._database.read(default_rows.listed)

    async def set_default(self, tenant: str, type_id: int) -> None:
        """Set the type of a tenant's new volumes without a named type.

        :raises VolumeTypeNotFound: if the type does not exist.
        """

        def write(db: Db) -> None:
            type_rows.get(db, type_id, lock=True)
            default_rows.put(db, tenant, type_id)

        await self._database.write(write)

    async def unset_default(self, tenant: str) -> None:
        """Forget the default type of a tenant, if the tenant has one."""
        await self._database.write(default_rows.remove, tenant)

    async def create(
        self,
        name: str,
        extra_specs: Mapping[str, str],
        description: str | None = None,
        is_public: bool = True,
    ) -> VolumeType:
        """Add a type.

        :raises UnknownBackend: if the type's backend is not configured.
        :raises VolumeTypeExists: if another type has that name.
        """
        _check_name(name)
        self._check(extra_specs)
        return await self._database.write(type_rows.add, name, extra_specs, description, is_public)

    async def change(self, type_id: int, values: Mapping[str, object]) -> VolumeType:
        """Change facts of a type; return the type.

        Volumes of the type get the new name.

        :param values: new values of ``name``, ``description`` and ``is_public``; other values stay.
        :raises VolumeTypeNotFound: if the type does not exist.
        :raises VolumeTypeExists: if another type has the name.
        """
        _check_name(values.get("name"))
        return await self._database.write(_change, type_id, values)

    async def update(self, type_id: int, extra_specs: Mapping[str, str]) -> None:
        """Set some extra specs of a type; the others stay.

        :raises UnknownBackend: if the named backend is not configured.
        :raises VolumeTypeNotFound: if the type does not exist.
        """
        self._check(extra_specs)
        await self._database.write(_update, type_id, extra_specs)

    async def forget(self, type_id: int, key: str) -> None:
        """Remove one extra spec of a type.

        :raises VolumeTypeNotFound: if the type does not exist.
        :raises NotFound: if the type has no extra spec of that name.
        """
        await self._database.write(_forget, type_id, key)

    async def delete(self, type_id: int, *, unused: bool = False) -> None:
        """Remove a type; volumes of the type stay as they are.

        :param unused: whether the type must have no volumes.
        :raises VolumeTypeNotFound: if the type does not exist.
        :raises VolumeTypeUsed: if the type has volumes, against ``unused``.
        """

        def write(db: Db) -> None:
            found = type_rows.get(db, type_id, None, lock=True)
            if unused and volume_rows.has_type(db, found.name):
                raise VolumeTypeUsed
            type_rows.remove(db, type_id)
            quota_rows.remove_type(db, found.name)

        await self._database.write(write)

    def _check(self, extra_specs: Mapping[str, str]) -> None:
        backend = _stated(extra_specs)
        if backend is not None and backend not in self._backends.names:
            raise UnknownBackend(
                f"The {BACKEND} {backend} is not configured."
                f" Use one of: {', '.join(self._backends.names)}."
            )


def _check_name(name: object) -> None:
    if name == NO_TYPE:
        raise VolumeTypeExists(NO_TYPE)


def _stated(extra_specs: Mapping[str, str]) -> str | None:
    """Return the backend that extra specs name, or None."""
    return extra_specs.get(BACKEND, extra_specs.get(_SCOPED))


def _change(db: Db, type_id: int, values: Mapping[str, object]) -> VolumeType:
    former = type_rows.get(db, type_id, lock=True).name
    type_rows.change(db, type_id, values)
    changed = type_rows.get(db, type_id)
    if changed.name != former:
        volume_rows.rename_type(db, former, changed.name)
        quota_rows.rename_type(db, former, changed.name)
    return changed


def _update(db: Db, type_id: int, extra_specs: Mapping[str, str]) -> None:
    found = type_rows.get(db, type_id, lock=True)
    type_rows.put_extra_specs(db, type_id, {**found.extra_specs, **extra_specs})


def _forget(db: Db, type_id: int, key: str) -> None:
    found = type_rows.get(db, type_id, lock=True)
    if key not in found.extra_specs:
        raise NotFound
    left = {name: value for name, value in found.extra_specs.items() if name != key}
    type_rows.put_extra_specs(db, type_id, left)
