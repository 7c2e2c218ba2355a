"""What a tenant may have."""

from __future__ import annotations

import attrs

from bootvol.errors import QuotaExceeded
from bootvol.model import Usage


@attrs.frozen
class Quota:
    """Upper bounds for one tenant; -1 is no bound."""

    volumes: int
    gigabytes: int
    snapshots: int = -1
    instances: int = -1

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

    def check_snapshots(self, used: int) -> None:
        """See whether a tenant that has ``used`` snapshots may have one more.

        :raises QuotaExceeded: it may not.
        """
        if 0 <= self.snapshots < used + 1:
            raise QuotaExceeded("Snapshot quota exceeded. You cannot create another snapshot")

    def check_instances(self, used: int) -> None:
        """See whether a tenant that has ``used`` servers may have one more.

        :raises QuotaExceeded: it may not.
        """
        if 0 <= self.instances < used + 1:
            raise QuotaExceeded("Instance quota exceeded. You cannot run another server")
