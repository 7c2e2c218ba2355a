"""The quotas of tenants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
from sqlalchemy import Connection as Db

from bootvol.errors import Excess, QuotaExceeded
from bootvol.model import Caller, Usage
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

    The last three limits are of resources that bootvol does not have; clients may set them.
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
class Account:
    """The quota and the usage of a tenant at one moment.

    :ivar types: the usage by volumes of each type; None stands for no type.
    """

    quota: Quota
    volumes: Usage
    snapshots: int
    instances: int
    types: Mapping[str | None, Usage] = attrs.Factory(dict)


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
        return attrs.evolve(self._default(db), **quota_rows.of(db, tenant))

    def _default(self, db: Db) -> Quota:
        return attrs.evolve(self._configured, **quota_rows.of(db, EVERYBODY))

    def used(self, db: Db, tenant: str) -> Usage:
        """Count a tenant's volumes and gigabytes, in the same transaction as :meth:`of`."""
        used = volume_rows.usage(db, tenant)
        if not self._snapshots_in_gigabytes:
            return used
        return attrs.evolve(used, gigabytes=used.gigabytes + snapshot_rows.gigabytes(db, tenant))

    def check_snapshot(self, db: Db, tenant: str, size_gib: int) -> None:
        """Check that a tenant may have one more snapshot, under the conditions of :meth:`of`.

        :param size_gib: size of the snapshot in GiB.
        :raises QuotaExceeded: if the tenant may not have the snapshot.
        """
        takes = size_gib if self._snapshots_in_gigabytes else 0
        self.of(db, tenant).check_snapshots(
            snapshot_rows.count(db, tenant),
            self.used(db, tenant).gigabytes if takes else 0,
            takes,
        )

    async def default(self) -> Quota:
        """Return the quota of tenants without a quota of their own."""
        return await self._database.read(self._default)

    async def set_default(self, bounds: Mapping[str, int]) -> Quota:
        """Set some limits of the default quota; return the whole quota."""

        def write(db: Db) -> Quota:
            quota_rows.put(db, EVERYBODY, bounds)
            return self._default(db)

        return await self._database.write(write)

    async def reset(self, tenant: str) -> None:
        """Give a tenant the default quota again."""
        await self._database.write(quota_rows.remove, tenant)

    async def get(self, tenant: str) -> Quota:
        """Return the quota of a tenant."""
        return await self._database.read(self.of, tenant)

    async def set(self, tenant: str, bounds: Mapping[str, int]) -> Quota:
        """Set some limits of a tenant, by the names of :class:`Quota`; return the whole quota.

        Existing resources stay, even beyond the new limits.
        """
        return await self._database.write(self._set, tenant, bounds)

    def _set(self, db: Db, tenant: str, bounds: Mapping[str, int]) -> Quota:
        volume_rows.lock_tenant_quota(db, tenant)
        quota_rows.put(db, tenant, bounds)
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
            volume_rows.usage_by_type(db, tenant),
        )


def check_metadata(items: Mapping[str, str]) -> None:
    """Check the number of metadata items of a volume or a server.

    :raises QuotaExceeded: if the items are too many.
    """
    if len(items) > MOST_METADATA:
        raise QuotaExceeded(f"Maximum number of metadata items exceeds {MOST_METADATA}")
