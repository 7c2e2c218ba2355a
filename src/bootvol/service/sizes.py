"""Changes of the sizes of volumes. All answers are immediate; a worker does the work."""

from __future__ import annotations

from sqlalchemy import Connection as Db

from bootvol.backends import Backends
from bootvol.errors import InvalidRequest, ServerBusy, VolumeBusy
from bootvol.interfaces import IHypervisor, IResizingHypervisor
from bootvol.lifecycle import Event, IllegalTransition, Kind, Status
from bootvol.model import Caller, Server, Volume
from bootvol.service.quotas import Quotas
from bootvol.service.volumes import Work
from bootvol.store import attachments as attachment_rows
from bootvol.store import servers as server_rows
from bootvol.store import states
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database


class Sizes:
    """The sizes of the volumes of all tenants."""

    def __init__(
        self,
        database: Database,
        backends: Backends,
        quotas: Quotas,
        hypervisor: IHypervisor | None,
        work: Work,
    ) -> None:
        self._database = database
        self._backends = backends
        self._quotas = quotas
        self._hypervisor = hypervisor
        self._work = work

    async def extend(
        self, caller: Caller, volume_id: int, size_gib: int, *, in_use: bool = False
    ) -> None:
        """Request that a volume become larger; the volume is ``extending`` until then.

        :param size_gib: the new size in GiB.
        :param in_use: whether the volume may be a disk of a server.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if the volume's status does not allow growth.
        :raises ServerBusy: if the server of the volume is starting or ending.
        :raises InvalidRequest: if the new size is not larger, or if the backend, the export or the
            hypervisor cannot do this.
        :raises QuotaExceeded: if the tenant's quota is used up.
        """
        await self._database.write(self._extend, caller, volume_id, size_gib, in_use)
        self._work.wake()

    def _extend(self, db: Db, caller: Caller, volume_id: int, size_gib: int, in_use: bool) -> None:
        volume_rows.lock_tenant_quota(db, caller.tenant)
        volume_rows.get(db, caller.tenant, volume_id)
        # Servers are locked before their volumes.
        server = server_rows.having(db, volume_id, lock=True)
        volume = volume_rows.get(db, caller.tenant, volume_id, lock=True)
        if size_gib <= volume.size_gib:
            raise InvalidRequest(
                "Invalid input received: New size for extend must be greater than current size."
                f" (current: {volume.size_gib}, extended: {size_gib})."
            )
        if not self._backends.can_grow(volume.backend):
            raise InvalidRequest("The volume's backend cannot make volumes larger.")
        if in_use and volume.status is Status.IN_USE:
            self._check_plugged(db, volume, server)
        elif attachment_rows.is_promised(db, volume_id):
            raise VolumeBusy("Volume status must be available")
        self._quotas.check_growth(db, volume, size_gib)
        try:
            states.apply_event(db, Kind.VOLUME, volume_id, Event.EXTEND)
        except IllegalTransition:
            raise VolumeBusy("Volume status must be available") from None
        volume_rows.change(db, volume_id, {"target_gib": size_gib})

    def _check_plugged(self, db: Db, volume: Volume, server: Server | None) -> None:
        """Check whether a volume may become larger while a server has the volume."""
        if attachment_rows.reach(db, volume.id) is not None:
            raise InvalidRequest(
                "The server reaches the volume by NBD, and an NBD client keeps the size of its"
                " first connection. Detach the volume, extend the volume, and attach the volume"
                " again."
            )
        if server is None:
            return
        if server.status is not Status.AVAILABLE:
            raise ServerBusy
        if not IResizingHypervisor.providedBy(self._hypervisor):
            raise InvalidRequest(
                "The hypervisor cannot tell a running server about a larger disk. Detach the volume"
                " first."
            )
