"""The older calls on whole volumes, in which a client moves the volume from status to status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import attrs
from sqlalchemy import Connection as Db

from bootvol.backends import Backends
from bootvol.errors import HoldProtected, InvalidRequest, VolumeBusy, VolumeReadOnly, VolumeTaken
from bootvol.lifecycle import Event, Kind, Status
from bootvol.model import Caller, Hold, HoldState, Route, Volume, new_uuid
from bootvol.service.holding import rules
from bootvol.store import attachments as attachment_rows
from bootvol.store import holds, states
from bootvol.store import volumes as volume_rows
from bootvol.store.database import Database


@attrs.frozen
class Taken:
    """A place of a volume: a server, a host or both, and the device there.

    :ivar instance: the server's uuid, or None.
    :ivar host: the host's name, or None.
    :ivar mode: ``rw`` or ``ro``.
    """

    instance: str | None
    host: str | None
    mountpoint: str
    mode: str

    @classmethod
    def by(cls, hold: Hold) -> Taken | None:
        """Return the place that a hold names; None if no server has the volume by the hold."""
        if hold.state is not HoldState.ATTACHED or hold.route is not None:
            return None
        return cls(hold.instance, hold.host, hold.mountpoint or "", hold.mode or "rw")


@attrs.frozen
class Way:
    """All that a host needs to use a volume.

    :ivar limits: the limits of speed that the host must enforce; None without limits.
    """

    volume: Volume
    route: Route
    limits: Mapping[str, str] | None


class ByHand:
    """The volumes of all tenants, as clients attach and detach them by hand.

    A reserved volume is ``attaching``, without any hold.

    :param now: returns the current time, as an aware UTC datetime.
    """

    def __init__(self, database: Database, backends: Backends, now: Callable[[], datetime]) -> None:
        self._database = database
        self._backends = backends
        self._now = now

    async def reserve(self, caller: Caller, volume_id: int) -> None:
        """Reserve an available volume.

        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeTaken: if the volume is not available.
        """

        def write(db: Db) -> None:
            volume, _ = rules.locked(db, caller, volume_id, taking=True)
            if volume.status is not Status.AVAILABLE:
                raise VolumeTaken(volume.uuid, volume.status)
            states.apply_event(db, Kind.VOLUME, volume_id, Event.CONNECT)

        await self._database.write(write)

    async def unreserve(self, caller: Caller, volume_id: int) -> None:
        """Give a reserved volume back; change nothing in any other status.

        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        """
        await self._database.write(_unreserve, caller, volume_id)

    async def begin_detaching(self, caller: Caller, volume_id: int) -> None:
        """Note that a server is to release a volume.

        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeBusy: if no server has the volume.
        :raises HoldProtected: if the server is bootvol's own.
        """

        def write(db: Db) -> None:
            volume, _ = rules.locked(db, caller, volume_id)
            if volume.status is not Status.IN_USE:
                raise VolumeBusy("Volume status must be in-use")
            states.apply_event(db, Kind.VOLUME, volume_id, Event.DETACH)

        await self._database.write(write)

    async def roll_detaching(self, caller: Caller, volume_id: int) -> None:
        """Note that a server keeps a volume after all; change nothing in any other status.

        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        """

        def write(db: Db) -> None:
            volume = volume_rows.get(db, caller.tenant, volume_id, lock=True)
            theirs = attachment_rows.find(db, volume_id) is None
            if volume.status is Status.DETACHING and theirs:
                holds.follow(db, volume_id, volume.status, freed=True)

        await self._database.write(write)

    async def route(self, caller: Caller, volume_id: int, *, trusted: bool) -> Way:
        """Tell a host how to reach a volume.

        :param trusted: whether the caller speaks for the service that runs the servers.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeTaken: if the volume's status does not allow a connection.
        :raises VolumeCopied: if a copy needs the volume at rest.
        :raises HoldProtected: if a server may use the volume.
        :raises NoRoute: if the backend names no route.
        :raises VolumeElsewhere: if only another host's daemon can tell.
        :raises BackendFailed: if the backend cannot tell.
        """

        def query(db: Db) -> tuple[Volume, Mapping[str, str] | None]:
            volume, found = rules.locked(db, caller, volume_id, lock=False)
            for each in found:
                rules.check_freeable(each, trusted=trusted)
            rules.check_reachable(db, self._backends, volume)
            return volume, rules.limits(db, volume)

        volume, limits = await self._database.read(query)
        return Way(volume, await self._backends.route(volume), limits)

    async def attach(self, caller: Caller, volume_id: int, taken: Taken) -> None:
        """Note that a server or host has a volume that was available or reserved.

        A call whose answer was lost may be repeated.

        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises VolumeTaken: if the volume is neither available nor reserved.
        :raises VolumeCopied: if a copy needs the volume at rest.
        :raises VolumeReadOnly: if the server wants to write to a volume for reading only.
        """
        await self._database.write(self._attach, caller, volume_id, taken)

    def _attach(self, db: Db, caller: Caller, volume_id: int, taken: Taken) -> None:
        volume, found = rules.locked(db, caller, volume_id, taking=True)
        if any(taken == Taken.by(each) for each in found):
            return
        if found or volume.status not in (Status.AVAILABLE, Status.ATTACHING):
            raise VolumeTaken(volume.uuid, volume.status)
        if volume.readonly and taken.mode != "ro":
            raise VolumeReadOnly(volume.uuid)
        rules.check_reachable(db, self._backends, volume)
        if volume.status is Status.AVAILABLE:
            states.apply_event(db, Kind.VOLUME, volume_id, Event.CONNECT)
        now = self._now()
        hold = Hold(
            new_uuid(),
            volume.id,
            volume.uuid,
            caller.tenant,
            HoldState.ATTACHED,
            now,
            **attrs.asdict(taken),
            attached_at=now,
        )
        holds.add(db, hold)
        holds.follow(db, volume_id, Status.ATTACHING)
        if volume.readonly is None:
            volume_rows.change(db, volume_id, {"readonly": False})

    async def detach(
        self, caller: Caller, volume_id: int, uuid: str | None, *, trusted: bool
    ) -> None:
        """Note that a volume is free again; change nothing if the volume has no such hold.

        :param uuid: the id of the hold; None for the only one.
        :param trusted: whether the caller speaks for the service that runs the servers.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises HoldProtected: if a server may use the volume.
        :raises InvalidRequest: if the volume has several holds, and the call names none.
        """

        def write(db: Db) -> None:
            volume, found = rules.locked(db, caller, volume_id)
            if not found and uuid is None:
                _unreserve(db, caller, volume_id)
            hold = _named(found, uuid, trusted)
            if hold is not None:
                rules.check_freeable(hold, trusted=trusted)
                holds.remove(db, hold.uuid)
                holds.follow(db, volume_id, volume.status, freed=True)

        await self._database.write(write)

    async def check_end(self, caller: Caller, volume_id: int, *, trusted: bool) -> None:
        """Check that a host may lose its way to a volume; nothing else has to be done.

        :param trusted: whether the caller speaks for the service that runs the servers.
        :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
        :raises HoldProtected: if a server may use the volume.
        """

        def query(db: Db) -> None:
            _, found = rules.locked(db, caller, volume_id, lock=False)
            if len(found) > 1 and not trusted:
                raise HoldProtected(None)
            for each in found:
                rules.check_freeable(each, trusted=trusted)

        await self._database.read(query)


def _unreserve(db: Db, caller: Caller, volume_id: int) -> None:
    volume = volume_rows.get(db, caller.tenant, volume_id, lock=True)
    # The volume may be on its way to a server, of bootvol or elsewhere.
    promised = attachment_rows.is_promised(db, volume_id)
    if volume.status is Status.ATTACHING and not promised:
        states.apply_event(db, Kind.VOLUME, volume_id, Event.DETACHED)


def _named(found: Sequence[Hold], uuid: str | None, trusted: bool) -> Hold | None:
    """Return the hold that a call means; None if the volume has no such hold.

    :raises HoldProtected: if a caller without trust names none of several holds.
    :raises InvalidRequest: if a trusted caller names none of several holds.
    """
    if uuid is not None:
        return next((each for each in found if each.uuid == uuid), None)
    if len(found) > 1:
        if not trusted:
            raise HoldProtected(None)
        raise InvalidRequest("The volume has several attachments: name the attachment's id.")
    return found[0] if found else None
