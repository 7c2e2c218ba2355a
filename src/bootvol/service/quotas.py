"""What a tenant may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
from sqlalchemy import Connection as Db

from bootvol.errors import QuotaExceeded
from bootvol.model import Caller, Usage
from bootvol.store import quotas as quota_rows
from bootvol.store import servers as server_rows
from bootvol.store import snapshots as snapshot_rows
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database

#: How many items of metadata a volume or a server may have: the default of Cinder and Nova.
MOST_METADATA: Final = 128


@attrs.frozen
class Quota:
    """Upper bounds for one tenant; -1 is no bound."""

    volumes: int
    gigabytes: int
    snapshots: int
    instances: int
    key_pairs: int = 100

    def check(self, used: Usage, size_gib: int) -> None:
        """See whether a tenant may have one more volume.

        :param used: what it has, counted in the same transaction that adds the volume.
        :raises QuotaExceeded: it may not.
        """
        too_many = 0 <= self.volumes < used.volumes + 1
        too_large = 0 <= self.gigabytes < used.gigabytes + size_gib
        if too_many or too_large:
            raise QuotaExceeded(
                f"Volume quota exceeded. You cannot create a volume of size {size_gib}G"
            )

    def check_snapshots(self, used: int, gigabytes: int = 0) -> None:
        """See whether a tenant that has ``used`` snapshots may have one more.

        :param gigabytes: how many GiB the tenant would have then.
        :raises QuotaExceeded: it may not.
        """
        if 0 <= self.snapshots < used + 1:
            raise QuotaExceeded("Snapshot quota exceeded. You cannot create another snapshot")
        if 0 <= self.gigabytes < gigabytes:
            raise QuotaExceeded("Volume quota exceeded. You cannot create a snapshot of this size")

    def check_key_pairs(self, used: int) -> None:
        """See whether a user that has ``used`` key pairs may have one more.

        :raises QuotaExceeded: the user may not.
        """
        if 0 <= self.key_pairs < used + 1:
            raise QuotaExceeded("Quota exceeded, too many key pairs.")

    def check_instances(self, used: int) -> None:
        """See whether a tenant that has ``used`` servers may have one more.

        :raises QuotaExceeded: it may not.
        """
        if 0 <= self.instances < used + 1:
            # Nova's text of 2011.
            raise QuotaExceeded(
                "Instance quota exceeded. You cannot run any more instances of this type."
            )


@attrs.frozen
class Account:
    """What a tenant may have, and what it has, at one moment."""

    quota: Quota
    volumes: Usage
    snapshots: int
    instances: int


class Quotas:
    """What tenants may have: the default, but for what was set for a single one.

    :param default: what the operator has configured.
    :param snapshots_in_gigabytes: whether snapshots take of ``gigabytes``, as in Cinder: a snapshot
        may be a copy as large as its volume.
    """

    def __init__(
        self, database: Database, default: Quota, *, snapshots_in_gigabytes: bool = True
    ) -> None:
        self.default = default
        self._snapshots_in_gigabytes = snapshots_in_gigabytes
        self._database = database

    def of(self, db: Db, tenant: str) -> Quota:
        """Return what a tenant may have.

        Whoever holds something against it calls this in the transaction that counts, after
        :func:`bootvol.store.volumes.take_turns`: then it is exact.
        """
        return attrs.evolve(self.default, **quota_rows.of(db, tenant))

    def used(self, db: Db, tenant: str) -> Usage:
        """Count a tenant's volumes and gigabytes, in the same transaction as :meth:`of`."""
        used = volume_rows.usage(db, tenant)
        if not self._snapshots_in_gigabytes:
            return used
        return attrs.evolve(used, gigabytes=used.gigabytes + snapshot_rows.gigabytes(db, tenant))

    def check_snapshot(self, db: Db, tenant: str, size_gib: int) -> None:
        """See whether a tenant may have one more snapshot; as for :meth:`of`.

        :param size_gib: of the snapshot.
        :raises QuotaExceeded: the tenant may not.
        """
        takes = size_gib if self._snapshots_in_gigabytes else 0
        self.of(db, tenant).check_snapshots(
            snapshot_rows.count(db, tenant),
            # What takes nothing is not refused for what there is.
            self.used(db, tenant).gigabytes + takes if takes else 0,
        )

    async def get(self, tenant: str) -> Quota:
        """Return what a tenant may have."""
        return await self._database.read(self.of, tenant)

    async def set(self, tenant: str, bounds: Mapping[str, int]) -> Quota:
        """Set some of what a tenant may have, by the names of :class:`Quota`; return all of it.

        What it has already stays, even beyond that.
        """
        return await self._database.write(self._set, tenant, bounds)

    def _set(self, db: Db, tenant: str, bounds: Mapping[str, int]) -> Quota:
        volume_rows.take_turns(db, tenant)
        quota_rows.put(db, tenant, bounds)
        return self.of(db, tenant)

    async def account(self, caller: Caller) -> Account:
        """Return what the caller's tenant may have, and what it has."""
        return await self._database.read(self._account, caller.tenant)

    def _account(self, db: Db, tenant: str) -> Account:
        return Account(
            self.of(db, tenant),
            self.used(db, tenant),
            snapshot_rows.count(db, tenant),
            server_rows.count(db, tenant),
        )


def check_metadata(items: Mapping[str, str]) -> None:
    """See whether a volume or a server may have these items of metadata.

    :raises QuotaExceeded: they are too many.
    """
    if len(items) > MOST_METADATA:
        raise QuotaExceeded(f"Maximum number of metadata items exceeds {MOST_METADATA}")
