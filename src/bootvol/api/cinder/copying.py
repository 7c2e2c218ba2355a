"""Actions that copy or move the bytes of a volume, or say that they stay as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field

from bootvol.api.bodies import BODY, Text
from bootvol.api.cinder import volume_types
from bootvol.api.cinder.acting import Action
from bootvol.api.cinder.bodies import Flag
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.default_type import DEFAULT
from bootvol.api.cinder.manageable import named_place
from bootvol.api.cinder.words import one_of, shown
from bootvol.api.http import Reply
from bootvol.errors import (
    ImageNotFound,
    InvalidRequest,
    NotFound,
    NotLatestSnapshot,
    RevertConflict,
    UnknownBackend,
    VolumeBusy,
    VolumeHasSnapshots,
)
from bootvol.policy import Right

_POLICIES: Final = ("on-demand", "never")


class Revert(BaseModel):
    """The parameters of ``revert``."""

    model_config = BODY

    snapshot_id: object = None


class Retype(BaseModel):
    """The parameters of ``os-retype``."""

    model_config = BODY

    new_type: Text
    migration_policy: Annotated[str | None, BeforeValidator(one_of(_POLICIES), str | None)] = None


class Migrate(BaseModel):
    """The parameters of ``os-migrate_volume``.  bootvol always copies, and locks the volume."""

    model_config = BODY

    host: Annotated[Text, Field(min_length=1)]
    force_host_copy: Flag = False
    lock_volume: Flag = False


class Reimage(BaseModel):
    """The parameters of ``os-reimage``."""

    model_config = BODY

    image_id: Annotated[Text, Field(min_length=1)]
    reimage_reserved: Flag = False


class UpdateReadonly(BaseModel):
    """The parameters of ``os-update_readonly_flag``."""

    model_config = BODY

    readonly: Flag


@asynccontextmanager
async def refused(context: CinderContext, number: int, text: str) -> AsyncIterator[None]:
    """Raise the refusal of a busy volume in Cinder's words.

    :param text: the words, with places for the ``uuid`` and the ``status``.
    """
    try:
        yield
    except VolumeHasSnapshots:
        raise
    except VolumeBusy:
        found = await context.services.volumes.get(context.caller, number)
        raise VolumeBusy(text.format(uuid=found.uuid, status=found.status)) from None


async def _update_readonly(context: CinderContext, number: int, body: UpdateReadonly) -> Reply:
    words = (
        "Volume {uuid} status must be available to update readonly flag, but current status is:"
        " {status}."
    )
    async with refused(context, number, words):
        await context.services.volumes.set_readonly(context.caller, number, body.readonly)
    return Reply(status=202)


async def _revert(context: CinderContext, number: int, body: Revert) -> Reply:
    named = body.snapshot_id if isinstance(body.snapshot_id, str) else None
    try:
        await context.services.replacements.revert(context.caller, number, named)
    except (NotLatestSnapshot, RevertConflict) as error:
        uuid = (await context.services.volumes.get(context.caller, number)).uuid
        if isinstance(error, RevertConflict):
            raise RevertConflict(
                f"Invalid volume: Can't revert volume {uuid} to its latest snapshot. Volume's"
                " status must be 'available'."
            ) from None
        if not error.exists:
            raise InvalidRequest(f"Volume {uuid} doesn't have any snapshots.") from None
        raise InvalidRequest(
            f"Specified snapshot {shown(named).strip(chr(39))} is None or not the latest one of"
            f" volume {uuid}."
        ) from None
    return Reply(status=202)


async def _retype(context: CinderContext, number: int, body: Retype) -> Reply:
    found = await volume_types.of_reference(context, body.new_type)
    wanted = None if found.id == DEFAULT.id else found.name
    moves = body.migration_policy == "on-demand"
    words = (
        "Retype needs volume to be in available or in-use state, not be part of an active migration"
        " or a consistency group, requested type has to be different that the one from the volume,"
        " and for in-use volumes front-end qos specs cannot change."
    )
    async with refused(context, number, words):
        await context.services.replacements.retype(context.caller, number, wanted, moves=moves)
    return Reply(status=202)


async def _reimage(context: CinderContext, number: int, body: Reimage) -> Reply:
    words = "Volume {uuid} status must be available or error to reimage, but is: {status}."
    try:
        async with refused(context, number, words):
            await context.services.replacements.reimage(
                context.caller, number, body.image_id, reserved=body.reimage_reserved
            )
    except ImageNotFound:
        raise NotFound(f"Image {body.image_id} could not be found.") from None
    return Reply(status=202)


async def _migrate(context: CinderContext, number: int, body: Migrate) -> Reply:
    """Move a volume to the backend in the place, as operators see places: HOST@BACKEND#BACKEND."""
    words = (
        "Volume {uuid} status must be available or in-use, must not be migrating, have snapshots,"
        " be replicated, be part of a group and destination host/cluster must be different than the"
        " current one"
    )
    backend, hosts = named_place(body.host)
    try:
        async with refused(context, number, words):
            await context.services.replacements.migrate(context.caller, number, backend, hosts)
    except UnknownBackend:
        raise InvalidRequest(
            f"Invalid host: No available service named {shown(body.host).strip(chr(39))}"
        ) from None
    return Reply(status=202)


ACTIONS: Final = (
    Action("os-update_readonly_flag", UpdateReadonly, _update_readonly),
    Action("revert", Revert, _revert, since=40),
    Action("os-retype", Retype, _retype),
    Action("os-migrate_volume", Migrate, _migrate, Right.SERVICES),
    Action("os-reimage", Reimage, _reimage, since=68),
)
