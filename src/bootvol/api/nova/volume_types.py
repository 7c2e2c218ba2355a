"""Calls of os-volume-types (specification, section 5.10); the texts are Folsom's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, RootModel
from typing_extensions import TypedDict

from bootvol.api.nova.bodies import Body, Text
from bootvol.api.nova.calls import Ask, call
from bootvol.api.nova.filters import Filter, filtered, paged
from bootvol.api.nova.views import Id
from bootvol.errors import InvalidRequest, MissingEntity, NotFound
from bootvol.model import VolumeType
from bootvol.policy import Right

Specs = dict[Annotated[Text, Field(min_length=1)], Text]


class CreateType(BaseModel):
    """The object ``volume_type`` of a create request."""

    model_config = Body

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
    # All types are public.
    "is_public": lambda _, text: text.strip().lower() in {"1", "t", "true", "yes", "none", ""},
}


async def listed(ask: Ask) -> Sequence[VolumeType]:
    """Return the requested page of types.

    :raises InvalidRequest: if a filter is not supported, or if the page is invalid.
    """
    found = filtered(ask.request, await ask.core.types.listed(), _FITS, _REFUSED)
    return paged(ask.request, found, lambda each: each.id)[0]


@call("GET", "os-volume-types", query=LIST_QUERY)
async def list_types(ask: Ask) -> Types:
    """List the volume types."""
    return {"volume_types": [_shown(each) for each in await listed(ask)]}


@call("POST", "os-volume-types", entity="volume_type", right=Right.VOLUME_TYPES, refusals=(409,))
async def create_type(ask: Ask, asked: CreateType) -> OneType:
    """Create a volume type."""
    if not asked.name:
        raise MissingEntity
    return {"volume_type": _shown(await ask.core.types.create(asked.name, asked.extra_specs or {}))}


@call("GET", "os-volume-types/<type_id>")
async def show_type(ask: Ask, type_id: int) -> OneType:
    """Show a volume type."""
    return {"volume_type": _shown(await ask.core.types.get(type_id))}


@call("DELETE", "os-volume-types/<type_id>", right=Right.VOLUME_TYPES)
async def delete_type(ask: Ask, type_id: int) -> None:
    """Delete a volume type; existing volumes of the type do not change."""
    await ask.core.types.delete(type_id)


@call("GET", "os-volume-types/<type_id>/extra_specs")
async def list_specs(ask: Ask, type_id: int) -> SpecsShown:
    """List a volume type's extra specs."""
    return {"extra_specs": dict((await ask.core.types.get(type_id)).extra_specs)}


@call(
    "POST", "os-volume-types/<type_id>/extra_specs", entity="extra_specs", right=Right.VOLUME_TYPES
)
async def create_specs(ask: Ask, type_id: int, asked: ExtraSpecs) -> SpecsShown:
    """Add or change a volume type's extra specs; other specs stay."""
    await ask.core.types.update(type_id, asked.root)
    return {"extra_specs": asked.root}


@call("GET", "os-volume-types/<type_id>/extra_specs/<key>")
async def show_spec(ask: Ask, type_id: int, key: str) -> dict[str, str]:
    """Show one of a volume type's extra specs."""
    specs = (await ask.core.types.get(type_id)).extra_specs
    if key not in specs:
        raise NotFound
    return {key: specs[key]}


@call("PUT", "os-volume-types/<type_id>/extra_specs/<key>", right=Right.VOLUME_TYPES)
async def update_spec(ask: Ask, type_id: int, key: str, asked: ExtraSpecs) -> dict[str, str]:
    """Set one of a volume type's extra specs."""
    if key not in asked.root:
        raise InvalidRequest("Request body and URI mismatch")
    if len(asked.root) > 1:
        raise InvalidRequest("Request body contains too many items")
    await ask.core.types.update(type_id, asked.root)
    return asked.root


@call("DELETE", "os-volume-types/<type_id>/extra_specs/<key>", right=Right.VOLUME_TYPES)
async def delete_spec(ask: Ask, type_id: int, key: str) -> None:
    """Delete one of a volume type's extra specs."""
    await ask.core.types.forget(type_id, key)


def _shown(value: VolumeType) -> TypeShown:
    return {"id": value.id, "name": value.name, "extra_specs": dict(value.extra_specs)}
