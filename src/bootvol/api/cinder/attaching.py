"""Actions that attach and detach a volume step by step, as clients did before attachments."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from bootvol.api.bodies import BODY, Text
from bootvol.api.cinder import taken
from bootvol.api.cinder.acting import Action, Nothing
from bootvol.api.cinder.attachment_bodies import Mode, uuid
from bootvol.api.cinder.connections import nested
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.words import refusal, shown
from bootvol.api.http import Reply
from bootvol.errors import InvalidRequest, VolumeBusy, VolumeReadOnly
from bootvol.jsons import JsonObject
from bootvol.policy import Right
from bootvol.service.holding.by_hand import Taken

_Uuid = Annotated[str | None, BeforeValidator(uuid, str | None)]


class Connect(BaseModel):
    """The parameters of ``os-initialize_connection`` and ``os-terminate_connection``."""

    model_config = BODY

    connector: JsonObject


class Attach(BaseModel):
    """The parameters of ``os-attach``."""

    model_config = BODY

    mountpoint: Annotated[Text, Field(min_length=1)]
    mode: Mode = None
    instance_uuid: _Uuid = None
    host_name: Text | None = None

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        if not self.instance_uuid and not self.host_name:
            given = self.model_dump(exclude_unset=True)
            why = f"{shown(given)} is not valid under any of the given schemas"
            raise ValueError(refusal("os-attach", given, why))
        return self


class Detach(BaseModel):
    """The parameters of ``os-detach``."""

    model_config = BODY

    attachment_id: _Uuid = None


class ForceDetach(Detach):
    """The parameters of ``os-force_detach``."""

    connector: JsonObject | None = None


async def _reserve(context: CinderContext, number: int, _: Nothing) -> Reply:
    with taken.worded("Volume status must be available to reserve, but the status is {status}."):
        await context.services.by_hand.reserve(context.caller, number)
    return Reply(status=202)


async def _unreserve(context: CinderContext, number: int, _: Nothing) -> Reply:
    await context.services.by_hand.unreserve(context.caller, number)
    return Reply(status=202)


async def _begin(context: CinderContext, number: int, _: Nothing) -> Reply:
    try:
        await context.services.by_hand.begin_detaching(context.caller, number)
    except VolumeBusy:
        raise VolumeBusy(
            "Unable to detach volume. Volume status must be 'in-use' and attach_status must be"
            " 'attached' to detach."
        ) from None
    return Reply(status=202)


async def _roll(context: CinderContext, number: int, _: Nothing) -> Reply:
    await context.services.by_hand.roll_detaching(context.caller, number)
    return Reply(status=202)


async def _initialize(context: CinderContext, number: int, _: Connect) -> Reply:
    words = "Volume {volume} status does not allow a connection: the status is {status}."
    with taken.worded(words):
        way = await context.services.by_hand.route(context.caller, number, trusted=context.trusted)
    mode = "ro" if way.volume.readonly else "rw"
    return Reply({"connection_info": nested(way.route, way.volume.uuid, mode, way.limits)})


async def _terminate(context: CinderContext, number: int, _: Connect) -> Reply:
    await context.services.by_hand.check_end(context.caller, number, trusted=context.trusted)
    return Reply(status=202)


async def _attach(context: CinderContext, number: int, body: Attach) -> Reply:
    mode = body.mode or "rw"
    place = Taken(body.instance_uuid, body.host_name, body.mountpoint, mode)
    words = "Volume {volume} status must be available or attaching, but the status is {status}."
    try:
        with taken.worded(words):
            await context.services.by_hand.attach(context.caller, number, place)
    except VolumeReadOnly as error:
        raise InvalidRequest(
            f"Invalid attaching mode '{mode}' for volume {error.volume}."
        ) from None
    return Reply(status=202)


async def _detach(context: CinderContext, number: int, body: Detach) -> Reply:
    await context.services.by_hand.detach(
        context.caller, number, body.attachment_id, trusted=context.trusted
    )
    return Reply(status=202)


ACTIONS: Final = (
    Action("os-reserve", Nothing, _reserve),
    Action("os-unreserve", Nothing, _unreserve),
    Action("os-begin_detaching", Nothing, _begin),
    Action("os-roll_detaching", Nothing, _roll),
    Action("os-initialize_connection", Connect, _initialize),
    Action("os-terminate_connection", Connect, _terminate),
    Action("os-attach", Attach, _attach),
    Action("os-detach", Detach, _detach),
    Action("os-force_detach", ForceDetach, _detach, Right.FORCE),
)
