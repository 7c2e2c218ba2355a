"""Calls on single holds: reserve, connect, complete, free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import attrs
from sqlalchemy import Connection as Db

from bootvol.backends import Backends
from bootvol.errors import AttachmentNotFound, HostTaken, VolumeTaken
from bootvol.lifecycle import MAKING
from bootvol.model import (
    Caller,
    Connector,
    Hold,
    HoldState,
    NewHold,
    Route,
    Volume,
    new_uuid,
)
from bootvol.service.holding import rules
from bootvol.store import holds
from bootvol.store.database import Database


@attrs.frozen
class Told:
    """A hold before and after a host was told how to reach the volume, or without such a host.

    The later one has the whole route, with a keyring if the backend gives one.
    """

    before: Hold
    after: Hold


class Holds:
    """The holds of all tenants, as seen by a caller.

    :param now: returns the current time, as an aware UTC datetime.
    """

    def __init__(self, database: Database, backends: Backends, now: Callable[[], datetime]) -> None:
        self._database = database
        self._backends = backends
        self._now = now

    async def listed(self, caller: Caller) -> Sequence[Hold]:
        """List the attachments of the tenant's volumes: holds, and those of bootvol's own."""
        return await self._database.read(holds.listed, caller.tenant)

    async def listed_everywhere(self) -> Sequence[Hold]:
        """List the attachments of all tenants' volumes."""
        return await self._database.read(holds.listed, None)

    async def get(self, caller: Caller, uuid: str) -> Hold:
        """Return an attachment.

        :raises AttachmentNotFound: if the tenant has no attachment with this id.
        """
        return await self._database.read(holds.get, caller.tenant, uuid)

    async def owner(self, uuid: str) -> str | None:
        """Return the tenant of an attachment of any tenant; None if there is no such attachment.

        Only callers who may see the resources of all tenants may learn the result.
        """
        return await self._database.read(holds.owner, uuid)

    async def reserve(
        self, caller: Caller, wanted: NewHold, connector: Connector | None = None
    ) -> Told:
        """Reserve a volume, and connect the volume at once if the host is known.

        A call whose answer was lost may be repeated: the server then has one hold more.

        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeTaken: if the volume is not free for the server.
        :raises InvalidRequest: if the volume has too many holds.
        :raises bootvol.errors.BootvolError: with a connector, as :meth:`connect`.
        """
        if connector is None:
            return await self._database.write(self._reserve, caller, wanted)
        seen = await self._database.read(self._check_reserve, caller, wanted)
        route = await self._backends.route(seen)
        return await self._database.write(self._reserve, caller, wanted, connector, route, seen)

    def _check_reserve(self, db: Db, caller: Caller, wanted: NewHold) -> Volume:
        """Check what can be checked before the backend is asked; return the volume."""
        volume, found = rules.locked(db, caller, wanted.volume_id, lock=False, taking=True)
        rules.check_free_for(volume, found, wanted.instance)
        rules.check_reachable(db, self._backends, volume)
        return volume

    def _reserve(
        self,
        db: Db,
        caller: Caller,
        wanted: NewHold,
        connector: Connector | None = None,
        route: Route | None = None,
        seen: Volume | None = None,
    ) -> Told:
        volume, found = rules.locked(db, caller, wanted.volume_id, taking=True)
        rules.check_free_for(volume, found, wanted.instance)
        if seen is not None and seen.name != volume.name:
            # Other data have replaced those that the route leads to.
            raise VolumeTaken(volume.uuid, volume.status)
        hold = Hold(
            new_uuid(),
            volume.id,
            volume.uuid,
            caller.tenant,
            HoldState.RESERVED,
            self._now(),
            instance=wanted.instance,
            mode=wanted.mode,
        )
        holds.add(db, hold)
        told = Told(hold, hold)
        if connector is not None:
            told = self._tell(db, volume, [*found, hold], hold, connector, route)
        holds.follow(db, volume.id, volume.status)
        return told

    async def connect(self, caller: Caller, uuid: str, connector: Connector) -> Told:
        """Tell a host how to reach the volume of a hold; may be repeated.

        :raises AttachmentNotFound: if the tenant has no attachment with this id.
        :raises HoldProtected: if bootvol itself manages the attachment.
        :raises HostTaken: if the host has the volume by another hold, or another host has the
            volume by this hold.
        :raises VolumeTaken: if the volume's status does not allow a connection.
        :raises VolumeCopied: if a copy needs the volume at rest.
        :raises NoRoute: if the backend names no route.
        :raises VolumeElsewhere: if only another host's daemon can tell.
        :raises BackendFailed: if the backend cannot tell.
        """
        volume = await self._database.read(self._check_connect, caller, uuid, connector)
        route = await self._backends.route(volume)
        return await self._database.write(self._connect, caller, uuid, connector, route)

    def _check_connect(self, db: Db, caller: Caller, uuid: str, connector: Connector) -> Volume:
        hold, volume, found = _locked(db, caller, uuid, lock=False)
        self._check_connection(db, volume, found, hold, connector)
        return volume

    def _connect(
        self, db: Db, caller: Caller, uuid: str, connector: Connector, route: Route
    ) -> Told:
        hold, volume, found = _locked(db, caller, uuid)
        told = self._tell(db, volume, found, hold, connector, route)
        holds.follow(db, volume.id, volume.status)
        return told

    def _check_connection(
        self, db: Db, volume: Volume, found: Sequence[Hold], hold: Hold, connector: Connector
    ) -> None:
        rules.check_reachable(db, self._backends, volume)
        others = [each for each in found if each.uuid != hold.uuid]
        if any(each.host == connector.host for each in others):
            raise HostTaken(volume.uuid)
        if hold.state is HoldState.ATTACHED and hold.host != connector.host:
            raise HostTaken(volume.uuid)

    def _tell(
        self,
        db: Db,
        volume: Volume,
        found: Sequence[Hold],
        hold: Hold,
        connector: Connector,
        route: Route | None,
    ) -> Told:
        self._check_connection(db, volume, found, hold, connector)
        known = hold.state is not HoldState.RESERVED
        changes: holds.Changes = {
            "state": hold.state if known else HoldState.ATTACHING,
            "host": connector.host,
            "mountpoint": connector.mountpoint,
            "mode": "ro" if volume.readonly else hold.mode or connector.mode or "rw",
            "route": route,
            "limits": rules.limits(db, volume),
            "attached_at": hold.attached_at or self._now(),
        }
        holds.change(db, hold.uuid, changes, connector.described)
        return Told(hold, attrs.evolve(hold, **changes))

    async def complete(self, caller: Caller, uuid: str) -> None:
        """Note that the server has the volume; may be repeated.

        :raises AttachmentNotFound: if the tenant has no attachment with this id.
        :raises HoldProtected: if bootvol itself manages the attachment.
        :raises VolumeTaken: if the volume is still being made.
        """
        await self._database.write(self._complete, caller, uuid)

    def _complete(self, db: Db, caller: Caller, uuid: str) -> None:
        hold, volume, _ = _locked(db, caller, uuid)
        if hold.state is HoldState.ATTACHED:
            return
        if volume.status in MAKING:
            raise VolumeTaken(volume.uuid, volume.status)
        holds.change(
            db,
            uuid,
            {
                "state": HoldState.ATTACHED,
                "mode": hold.mode or "rw",
                "attached_at": hold.attached_at or self._now(),
            },
        )
        holds.follow(db, volume.id, volume.status)

    async def free(self, caller: Caller, uuid: str, *, trusted: bool) -> Sequence[Hold]:
        """End a hold; return the holds that are left on the volume.

        :param trusted: whether the caller speaks for the service that runs the servers.
        :raises AttachmentNotFound: if the tenant has no attachment with this id.
        :raises HoldProtected: if a server may use the volume.
        """
        return await self._database.write(_free, caller, uuid, trusted)


def _free(db: Db, caller: Caller, uuid: str, trusted: bool) -> Sequence[Hold]:
    hold, volume, _ = _locked(db, caller, uuid)
    rules.check_freeable(hold, trusted=trusted)
    holds.remove(db, uuid)
    holds.follow(db, volume.id, volume.status, freed=True)
    return holds.of_volume(db, volume.id)


def _locked(
    db: Db, caller: Caller, uuid: str, *, lock: bool = True
) -> tuple[Hold, Volume, Sequence[Hold]]:
    """Return a hold, its volume and all holds on the volume: see :func:`.rules.locked`.

    :raises AttachmentNotFound: if the tenant has no attachment with this id.
    :raises HoldProtected: if bootvol itself manages the attachment.
    """
    volume_id = holds.get(db, caller.tenant, uuid).volume_id
    volume, found = rules.locked(db, caller, volume_id, lock=lock)
    for each in found:
        if each.uuid == uuid:
            return each, volume, found
    # Another call has ended the hold in between.
    raise AttachmentNotFound
