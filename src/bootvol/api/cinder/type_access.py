"""The projects that see and use a private volume type (docs/block-storage.md)."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from bootvol.api.bodies import BODY, Text
from bootvol.api.cinder.acting import Action, Actions, Named
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.views import Uuid
from bootvol.api.cinder.volume_types import find
from bootvol.api.http import Reply
from bootvol.api.operations import operation
from bootvol.errors import NotFound, VolumeTypeAccessUnchanged
from bootvol.model import VolumeType
from bootvol.policy import Right


class Access(BaseModel):
    """A project that gets or loses access."""

    model_config = BODY

    project: Annotated[Text, Field(min_length=1)]


class AccessShown(TypedDict):
    """A project with access to a type."""

    volume_type_id: Uuid
    project_id: str


class Accesses(TypedDict):
    volume_type_access: list[AccessShown]


async def _private(context: CinderContext, number: int) -> VolumeType:
    """Return a private type.

    :raises VolumeTypeAccessUnchanged: if all projects see the type.
    """
    found = await find(context, number)
    if found.is_public:
        raise VolumeTypeAccessUnchanged(
            "Type access modification is not applicable to public volume type."
        )
    return found


@operation(
    "types_list_access", "GET", "types/<number>/os-volume-type-access", right=Right.VOLUME_TYPES
)
async def list_access(context: CinderContext, number: int) -> Accesses:
    """List the projects that see a private type."""
    found = await find(context, number)
    if found.is_public:
        raise NotFound("Access list not available for public volume types.")
    tenants = await context.services.types.tenants(number)
    shown: list[AccessShown] = [
        {"volume_type_id": found.uuid, "project_id": each} for each in tenants
    ]
    return {"volume_type_access": shown}


async def _add(context: CinderContext, number: int, body: Access) -> Reply:
    found = await _private(context, number)
    if not await context.services.types.give(number, body.project):
        raise VolumeTypeAccessUnchanged(
            f"Volume type access for {found.uuid} / {body.project} combination already exists."
        )
    return Reply(status=202)


async def _remove(context: CinderContext, number: int, body: Access) -> Reply:
    found = await _private(context, number)
    if not await context.services.types.take(number, body.project):
        raise NotFound(
            f"Volume type access not found for {found.uuid} / {body.project} combination."
        )
    return Reply(status=202)


TYPES: Final = Actions(
    (Action("addProjectAccess", Access, _add), Action("removeProjectAccess", Access, _remove))
)


@operation(
    "types_act",
    "POST",
    "types/<number>/action",
    empty=202,
    right=Right.VOLUME_TYPES,
    refusals=(409,),
)
async def act(context: CinderContext, number: int, body: Named) -> Reply:
    """Do as the name in the body says."""
    return await TYPES.act(context, number, body)


OPERATIONS = (list_access, act)
