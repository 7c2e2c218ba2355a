"""The quotas of tenants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
from sqlalchemy import Connection as Db

from bootvol.errors import Excess, QuotaExceeded
from bootvol.model import Caller, Usage, Volume
from bootvol.store import quotas as quota_rows
from bootvol.store import servers as server_rows
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

#: Limit of metadata items of a volume or a server: the default of Cinder and Nova.
MOST_METADATA: Final = 128
#: The tenant of the rows that change the default quota.  No tenant has an empty name.
EVERYBODY: Final = ""


@attrs.frozen
class Quota:
    """The limits of one tenant; -1 means no limit.

    The three limits from ``backups`` on are of resources that bootvol does not have; clients may
    set them.

    :ivar types: the limits of volumes of single types, and of their snapshots, by the names of the
        types; the empty name stands for volumes without a type.  An absent limit is none.
    """

    volumes: int
    gigabytes: int
    snapshots: int
    instances: int
    key_pairs: int = 100
    per_volume_gigabytes: int = -1
    backups: int = 0
    backup_gigabytes: int = 0
    groups: int = 0
    types: quota_rows.TypeBounds = attrs.Factory(dict)

    def check(self, used: Usage, size_gib: int) -> None:
        """Check that a tenant may have one more volume.

        :param used: the tenant's usage, counted in the transaction that adds the volume.
        :param size_gib: size of the new volume in GiB.
        :raises QuotaExceeded: if the tenant may not have the volume.
        """
        text = f"Volume quota exceeded. You cannot create a volume of size {size_gib}G"
        self._check_size(size_gib, text)
        if 0 <= self.gigabytes < used.gigabytes + size_gib:
            excess = Excess("gigabytes", self.gigabytes, used.gigabytes, size_gib)
            raise QuotaExceeded(text, excess)
        if 0 <= self.volumes < used.volumes + 1:
            raise QuotaExceeded(text, Excess("volumes", self.volumes, used.volumes, 1))

    def check_growth(self, used: Usage, more_gib: int, size_gib: int) -> None:
        """Check that a volume of the tenant may become larger.

        :param used: the tenant's usage, counted in the transaction that changes the volume.
        :param more_gib: the difference in GiB.
        :param size_gib: the new size in GiB.
        :raises QuotaExceeded: if the volume may not become larger.
        """
        text = f"Volume quota exceeded. You cannot extend a volume to the size {size_gib}G"
        self._check_size(size_gib, text)
        if 0 <= self.gigabytes < used.gigabytes + more_gib:
            excess = Excess("gigabytes", self.gigabytes, used.gigabytes, more_gib)
            raise QuotaExceeded(text, excess)

    def _check_size(self, size_gib: int, text: str) -> None:
        """Check the size of one volume in GiB.

        :param text: the message of the error.
        :raises QuotaExceeded: if the volume would be too large.
        """
        if 0 <= self.per_volume_gigabytes < size_gib:
            excess = Excess("per_volume_gigabytes", self.per_volume_gigabytes, 0, size_gib)
            raise QuotaExceeded(text, excess)

    def check_snapshots(self, used: int, gigabytes: int = 0, takes: int = 0) -> None:
        """Check that a tenant with ``used`` snapshots may have one more.

        :param gigabytes: GiB that the tenant uses.
        :param takes: GiB of the new snapshot; 0 if snapshots do not count.
        :raises QuotaExceeded: if the tenant may not have the snapshot.
        """
        # A snapshot that takes no gigabytes is not refused for the present usage of gigabytes.
        if takes and 0 <= self.gigabytes < gigabytes + takes:
            raise QuotaExceeded(
                "Volume quota exceeded. You cannot create a snapshot of this size",
                Excess("gigabytes", self.gigabytes, gigabytes, takes),
            )
        if 0 <= self.snapshots < used + 1:
            raise QuotaExceeded(
                "Snapshot quota exceeded. You cannot create another snapshot",
                Excess("snapshots", self.snapshots, used, 1),
            )

    def check_type(self, name: str, used: TypeUsage, more: TypeUsage) -> None:
        """Check that a tenant may have more volumes or snapshots of one type.

        :param name: the type's name; empty for no type.
        :param used: the usage of the type, counted in the transaction that adds to the usage.
        :param more: what comes.
        :raises QuotaExceeded: if this is too much.
        """
        for resource, limit in self.types.get(name, {}).items():
            present, wanted = getattr(used, resource), getattr(more, resource)
            if wanted > 0 and 0 <= limit < present + wanted:
                excess = Excess(resource, limit, present, wanted, name)
                raise QuotaExceeded(
                    f"Quota of {resource} of the volume type {name or 'of no name'} exceeded",
                    excess,
                )

    def check_key_pairs(self, used: int) -> None:
        """Check that a user with ``used`` key pairs may have one more.

        :raises QuotaExceeded: if the user may not have the key pair.
        """
        if 0 <= self.key_pairs < used + 1:
            raise QuotaExceeded("Quota exceeded, too many key pairs.")

    def check_instances(self, used: int) -> None:
        """Check that a tenant with ``used`` servers may have one more.

        :raises QuotaExceeded: if the tenant may not have the server.
        """
        if 0 <= self.instances < used + 1:
            # Nova's text of 2011.
            raise QuotaExceeded(
                "Instance quota exceeded. You cannot run any more instances of this type."
            )


@attrs.frozen
class TypeUsage:
    """The usage of one volume type.

    :ivar gigabytes: GiB of the volumes, and of their snapshots if these count.
    """

    volumes: int = 0
    gigabytes: int = 0
    snapshots: int = 0


@attrs.frozen
class Account:
    """The quota and the usage of a tenant at one moment.

    :ivar types: the usage by the names of the types; the empty name stands for no type.
    """

    quota: Quota
    volumes: Usage
    snapshots: int
    instances: int
    types: Mapping[str, TypeUsage] = attrs.Factory(dict)


class Quotas:
    """The quotas of all tenants: a default, with exceptions for single tenants.

    :param default: the quota from the configuration.  Operators may change single limits.
    :param snapshots_in_gigabytes: whether snapshots count in ``gigabytes``, as in Cinder: a
        snapshot may be a copy as large as its volume.
    """

    def __init__(
        self, database: Database, default: Quota, *, snapshots_in_gigabytes: bool = True
    ) -> None:
        self._configured = default
        self._snapshots_in_gigabytes = snapshots_in_gigabytes
        self._database = database

    def of(self, db: Db, tenant: str) -> Quota:
        """Return the quota of a tenant.

        To compare usage with the quota exactly, call this method in the transaction that counts,
        after :func:`bootvol.store.volumes.lock_tenant_quota`.
        """
        # The empty name of everybody comes before all others.
        return _changed(db, self._configured, EVERYBODY, tenant)

    def _default(self, db: Db) -> Quota:
        return _changed(db, self._configured, EVERYBODY)

    def used(self, db: Db, tenant: str) -> Usage:
        """Count a tenant's volumes and gigabytes, in the same transaction as :meth:`of`."""
        used = volume_rows.usage(db, tenant)
        if not self._snapshots_in_gigabytes:
            return used
        return attrs.evolve(used, gigabytes=used.gigabytes + snapshot_rows.gigabytes(db, tenant))

    def check_volume(self, db: Db, tenant: str, size_gib: int, volume_type: str | None) -> None:
        """Check that a tenant may have one more volume, under the conditions of :meth:`of`.

        :param size_gib: size of the volume in GiB.
        :param volume_type: name of the volume's type; None for no type.
        :raises QuotaExceeded: if the tenant may not have the volume.
        """
        quota = self.of(db, tenant)
        quota.check(self.used(db, tenant), size_gib)
        self._check_type(db, tenant, quota, volume_type, TypeUsage(1, size_gib))

    def check_growth(self, db: Db, volume: Volume, size_gib: int) -> None:
        """Check that a volume may become larger, under the conditions of :meth:`of`.

        :param size_gib: the new size in GiB.
        :raises QuotaExceeded: if the volume may not become larger.
        """
        quota, more = self.of(db, volume.tenant), size_gib - volume.size_gib
        quota.check_growth(self.used(db, volume.tenant), more, size_gib)
        self._check_type(db, volume.tenant, quota, volume.volume_type, TypeUsage(0, more))

    def check_retype(self, db: Db, volume: Volume, volume_type: str | None) -> None:
        """Check that a volume may get another type, under the conditions of :meth:`of`.

        :param volume_type: name of the new type; None for no type.
        :raises QuotaExceeded: if the tenant may not have the volume in the new type.
        """
        quota = self.of(db, volume.tenant)
        mine = {volume.volume_type: Usage(1, volume.size_gib)}
        snapshots = snapshot_rows.usage_by_type(db, volume.tenant, volume.id)
        more = self._by_type(mine, snapshots)[volume.volume_type or ""]
        self._check_type(db, volume.tenant, quota, volume_type, more)

    def check_snapshot(self, db: Db, tenant: str, size_gib: int, volume_type: str | None) -> None:
        """Check that a tenant may have one more snapshot, under the conditions of :meth:`of`.

        :param size_gib: size of the snapshot in GiB.
        :param volume_type: name of the type of the snapshot's volume; None for no type.
        :raises QuotaExceeded: if the tenant may not have the snapshot.
        """
        takes = size_gib if self._snapshots_in_gigabytes else 0
        quota = self.of(db, tenant)
        quota.check_snapshots(
            snapshot_rows.count(db, tenant),
            self.used(db, tenant).gigabytes if takes else 0,
            takes,
        )
        self._check_type(db, tenant, quota, volume_type, TypeUsage(0, takes, 1))

    def _check_type(
        self, db: Db, tenant: str, quota: Quota, volume_type: str | None, more: TypeUsage
    ) -> None:
        name = volume_type or ""
        if any(limit >= 0 for limit in quota.types.get(name, {}).values()):
            quota.check_type(name, self._used_by_type(db, tenant).get(name, TypeUsage()), more)

    def _used_by_type(self, db: Db, tenant: str) -> Mapping[str, TypeUsage]:
        return self._by_type(
            volume_rows.usage_by_type(db, tenant), snapshot_rows.usage_by_type(db, tenant)
        )

    def _by_type(
        self, volumes: Mapping[str | None, Usage], snapshots: Mapping[str | None, Usage]
    ) -> Mapping[str, TypeUsage]:
        """Add up the usage of volumes and of snapshots, by the names of the types."""
        found, none = dict[str, TypeUsage](), Usage(0, 0)
        for name in {*volumes, *snapshots}:
            whole, parts = volumes.get(name, none), snapshots.get(name, none)
            takes = parts.gigabytes if self._snapshots_in_gigabytes else 0
            found[name or ""] = TypeUsage(whole.volumes, whole.gigabytes + takes, parts.volumes)
        return found

    async def default(self) -> Quota:
        """Return the quota of tenants without a quota of their own."""
        return await self._database.read(self._default)

    async def set_default(
        self, bounds: Mapping[str, int], of_types: quota_rows.TypeBounds
    ) -> Quota:
        """Set some limits of the default quota; return the whole quota.

        :param of_types: as :attr:`Quota.types`.
        """

        def write(db: Db) -> Quota:
            quota_rows.put(db, EVERYBODY, bounds)
            quota_rows.put_types(db, EVERYBODY, of_types)
            return self._default(db)

        return await self._database.write(write)

    async def reset(self, tenant: str) -> None:
        """Give a tenant the default quota again."""
        await self._database.write(quota_rows.remove, tenant)

    async def get(self, tenant: str) -> Quota:
        """Return the quota of a tenant."""
        return await self._database.read(self.of, tenant)

    async def set(
        self,
        tenant: str,
        bounds: Mapping[str, int],
        of_types: quota_rows.TypeBounds | None = None,
    ) -> Quota:
        """Set some limits of a tenant, by the names of :class:`Quota`; return the whole quota.

        Existing resources stay, even beyond the new limits.

        :param of_types: as :attr:`Quota.types`; None for no change.
        """
        return await self._database.write(self._set, tenant, bounds, of_types or {})

    def _set(
        self, db: Db, tenant: str, bounds: Mapping[str, int], of_types: quota_rows.TypeBounds
    ) -> Quota:
        volume_rows.lock_tenant_quota(db, tenant)
        quota_rows.put(db, tenant, bounds)
        quota_rows.put_types(db, tenant, of_types)
        return self.of(db, tenant)

    async def account(self, caller: Caller) -> Account:
        """Return the quota and the usage of the caller's tenant."""
        return await self.account_of(caller.tenant)

    async def account_of(self, tenant: str) -> Account:
        """Return the quota and the usage of a tenant."""
        return await self._database.read(self._account, tenant)

    def _account(self, db: Db, tenant: str) -> Account:
        return Account(
            self.of(db, tenant),
            self.used(db, tenant),
            snapshot_rows.count(db, tenant),
            server_rows.count(db, tenant),
            self._used_by_type(db, tenant),
        )


def _changed(db: Db, quota: Quota, *tenants: str) -> Quota:
    """Return the configured quota with the limits that are set for tenants."""
    types = quota_rows.of_types(db, *tenants)
    return attrs.evolve(quota, **quota_rows.of(db, *tenants), types=types)


def check_metadata(items: Mapping[str, str]) -> None:
    """Check the number of metadata items of a volume or a server.

    :raises QuotaExceeded: if the items are too many.
    """
    if len(items) > MOST_METADATA:
        raise QuotaExceeded(f"Maximum number of metadata items exceeds {MOST_METADATA}")
