"""Operations of default types: the types of new volumes whose requests name no type."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel
from typing_extensions import TypedDict

from bootvol.api.bodies import Text
from bootvol.api.cinder.bodies import STRICT
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.default_type import DEFAULT
from bootvol.api.cinder.views import Uuid
from bootvol.api.cinder.volume_types import of_reference
from bootvol.api.operations import operation
from bootvol.errors import InvalidRequest, NotFound
from bootvol.model import VolumeType
from bootvol.policy import Right

#: The minor version with these calls.
SINCE: Final = 62


class Wanted(BaseModel):
    """The object ``default_type`` of a change: a type's name or id."""

    model_config = STRICT

    volume_type: Text


class DefaultShown(TypedDict):
    """The default type of a project."""

    project_id: str
    volume_type_id: Uuid


class OneDefault(TypedDict):
    default_type: DefaultShown


class Defaults(TypedDict):
    default_types: list[DefaultShown]


def _shown(project: str, value: VolumeType) -> DefaultShown:
    return {"project_id": project, "volume_type_id": value.uuid}


@operation(
    "default_types_list_defaults", "GET", "default-types", since=SINCE, right=Right.VOLUME_TYPES
)
async def list_defaults(context: CinderContext) -> Defaults:
    """List the default types of all projects."""
    found = await context.services.types.defaults()
    return {"default_types": [_shown(project, each) for project, each in found.items()]}


@operation(
    "default_types_show_project",
    "GET",
    "default-types/<project>",
    since=SINCE,
    right=Right.VOLUME_TYPES,
)
async def show_project(context: CinderContext, project: str) -> OneDefault:
    """Show the default type of a project."""
    found = await context.services.types.default_of(project)
    if found is None:
        raise NotFound(f"Default type for project {project} not found.")
    return {"default_type": _shown(project, found)}


@operation(
    "default_types_set_project",
    "PUT",
    "default-types/<project>",
    entity="default_type",
    since=SINCE,
    right=Right.VOLUME_TYPES,
)
async def set_project(context: CinderContext, project: str, body: Wanted) -> OneDefault:
    """Set the default type of a project."""
    if len(project) > 255:
        raise NotFound
    try:
        found = await of_reference(context, body.volume_type)
    except NotFound as error:
        raise InvalidRequest(error.message) from None
    if found.id == DEFAULT.id:
        raise InvalidRequest(f"{DEFAULT.name} is the default type of projects without another one.")
    await context.services.types.set_default(project, found.id)
    return {"default_type": _shown(project, found)}


@operation(
    "default_types_unset_project",
    "DELETE",
    "default-types/<project>",
    status=204,
    since=SINCE,
    right=Right.VOLUME_TYPES,
)
async def unset_project(context: CinderContext, project: str) -> None:
    """Forget the default type of a project."""
    await context.services.types.unset_default(project)


OPERATIONS = (list_defaults, show_project, set_project, unset_project)
