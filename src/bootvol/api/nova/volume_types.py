"""Operations of os-volume-types (specification, section 5.10); the texts are Folsom's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, RootModel
from typing_extensions import TypedDict

from bootvol.api.bodies import BODY, Text
from bootvol.api.filters import Filter, filtered
from bootvol.api.nova.context import NovaContext
from bootvol.api.nova.views import Id
from bootvol.api.operations import operation
from bootvol.api.paging import paged
from bootvol.errors import InvalidRequest, MissingEntity, NotFound
from bootvol.model import VolumeType
from bootvol.policy import Right

Specs = dict[Annotated[Text, Field(min_length=1)], Text]


class CreateType(BaseModel):
    """The object ``volume_type`` of a create request."""

    model_config = BODY

    name: Text | None = None
    extra_specs: Specs | None = None


class ExtraSpecs(RootModel[Specs]):
    """The extra specs of a type."""

    model_config = ConfigDict(strict=True)


class TypeShown(TypedDict):
    """A volume type."""

    id: Id
    name: str
    extra_specs: dict[str, str]


class Types(TypedDict):
    volume_types: list[TypeShown]


class OneType(TypedDict):
    volume_type: TypeShown


class SpecsShown(TypedDict):
    extra_specs: dict[str, str]


#: Parameters of the query of a list of types, also in Cinder's paths.
LIST_QUERY: Final = ("name", "limit", "marker", "offset")
_REFUSED: Final = ("extra_specs", "sort", "sort_key", "sort_dir")
_FITS: Final[Mapping[str, Filter[VolumeType]]] = {
    "name": lambda each, text: each.name == text,
    # Callers see only types that they may use.
    "is_public": lambda _, text: text.strip().lower() in {"1", "t", "true", "yes", "none", ""},
}


async def listed(context: NovaContext) -> Sequence[VolumeType]:
    """Return the requested page of types.

    :raises InvalidRequest: if a filter is not supported, or if the page is invalid.
    """
    types = await context.services.types.listed(context.sees_types_of)
    found = filtered(context.request, types, _FITS, _REFUSED)
    return paged(context.request, found, lambda each: each.id)[0]


@operation("volume_types_list_types", "GET", "os-volume-types", query=LIST_QUERY)
async def list_types(context: NovaContext) -> Types:
    """List the volume types."""
    return {"volume_types": [_shown(each) for each in await listed(context)]}


@operation(
    "volume_types_create_type",
    "POST",
    "os-volume-types",
    entity="volume_type",
    right=Right.VOLUME_TYPES,
    refusals=(409,),
)
async def create_type(context: NovaContext, body: CreateType) -> OneType:
    """Create a volume type."""
    if not body.name:
        raise MissingEntity
    return {
        "volume_type": _shown(
            await context.services.types.create(body.name, body.extra_specs or {})
        )
    }


@operation("volume_types_show_type", "GET", "os-volume-types/<type_id>")
async def show_type(context: NovaContext, type_id: int) -> OneType:
    """Show a volume type."""
    return {"volume_type": _shown(await context.services.types.get(type_id, context.sees_types_of))}


@operation(
    "volume_types_delete_type", "DELETE", "os-volume-types/<type_id>", right=Right.VOLUME_TYPES
)
async def delete_type(context: NovaContext, type_id: int) -> None:
    """Delete a volume type; existing volumes of the type do not change."""
    await context.services.types.delete(type_id)


@operation("volume_types_list_specs", "GET", "os-volume-types/<type_id>/extra_specs")
async def list_specs(context: NovaContext, type_id: int) -> SpecsShown:
    """List a volume type's extra specs."""
    return {
        "extra_specs": dict(
            (await context.services.types.get(type_id, context.sees_types_of)).extra_specs
        )
    }


@operation(
    "volume_types_create_specs",
    "POST",
    "os-volume-types/<type_id>/extra_specs",
    entity="extra_specs",
    right=Right.VOLUME_TYPES,
)
async def create_specs(context: NovaContext, type_id: int, body: ExtraSpecs) -> SpecsShown:
    """Add or change a volume type's extra specs; other specs stay."""
    await context.services.types.update(type_id, body.root)
    return {"extra_specs": body.root}


@operation("volume_types_show_spec", "GET", "os-volume-types/<type_id>/extra_specs/<key>")
async def show_spec(context: NovaContext, type_id: int, key: str) -> dict[str, str]:
    """Show one of a volume type's extra specs."""
    specs = (await context.services.types.get(type_id, context.sees_types_of)).extra_specs
    if key not in specs:
        raise NotFound
    return {key: specs[key]}


@operation(
    "volume_types_update_spec",
    "PUT",
    "os-volume-types/<type_id>/extra_specs/<key>",
    right=Right.VOLUME_TYPES,
)
async def update_spec(
    context: NovaContext, type_id: int, key: str, body: ExtraSpecs
) -> dict[str, str]:
    """Set one of a volume type's extra specs."""
    if key not in body.root:
        raise InvalidRequest("Request body and URI mismatch")
    if len(body.root) > 1:
        raise InvalidRequest("Request body contains too many items")
    await context.services.types.update(type_id, body.root)
    return body.root


@operation(
    "volume_types_delete_spec",
    "DELETE",
    "os-volume-types/<type_id>/extra_specs/<key>",
    right=Right.VOLUME_TYPES,
)
async def delete_spec(context: NovaContext, type_id: int, key: str) -> None:
    """Delete one of a volume type's extra specs."""
    await context.services.types.forget(type_id, key)


def _shown(value: VolumeType) -> TypeShown:
    return {"id": value.id, "name": value.name, "extra_specs": dict(value.extra_specs)}


OPERATIONS = (
    list_types,
    create_type,
    show_type,
    delete_type,
    list_specs,
    create_specs,
    show_spec,
    update_spec,
    delete_spec,
)
