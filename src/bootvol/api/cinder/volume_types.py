"""Operations of volume types (docs/block-storage.md)."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, NotRequired

from typing_extensions import TypedDict

from bootvol.api.cinder.bodies import ChangeType, CreateType, Specs
from bootvol.api.cinder.booleans import truth
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.default_type import DEFAULT
from bootvol.api.cinder.filter_names import OPEN
from bootvol.api.cinder.lists import Listing
from bootvol.api.cinder.matching import has_items
from bootvol.api.cinder.views import Uuid
from bootvol.api.filters import text
from bootvol.api.operations import operation
from bootvol.api.paging import Link
from bootvol.errors import InvalidRequest, NotFound, VolumeTypeNotFound
from bootvol.model import VolumeType
from bootvol.policy import Right

TypeShown = TypedDict(
    "TypeShown",
    {
        "id": Uuid,
        "name": str,
        "description": str | None,
        "is_public": bool,
        "extra_specs": NotRequired[dict[str, str]],
        "os-volume-type-access:is_public": NotRequired[bool],
        "qos_specs_id": NotRequired[Uuid | None],
    },
)


class Types(TypedDict):
    volume_types: list[TypeShown]
    volume_type_links: NotRequired[list[Link]]


class OneType(TypedDict):
    volume_type: TypeShown


class SpecsShown(TypedDict):
    extra_specs: dict[str, str]


_LISTING: Final = Listing[VolumeType](
    key=lambda each: each.uuid,
    missing=VolumeTypeNotFound,
    filters={
        # See _asked_for.
        "is_public": lambda _each, _text: True,
        "name": lambda each, value: each.name == value,
        "extra_specs": lambda each, value: has_items(each.extra_specs, value),
    },
    sorted_by={
        "id": lambda each: each.id,
        "created_at": lambda each: each.id,
        "name": lambda each: each.name,
    },
    open=OPEN["volume_type"],
    refuses=False,
)


def shown_specs(value: VolumeType, context: CinderContext) -> dict[str, str]:
    """Return the extra specs that the caller may see.

    Extra specs name backends, which are the operators' matter.
    """
    return dict(value.extra_specs) if context.may(Right.VOLUME_TYPES) else {}


def _plain(value: VolumeType, context: CinderContext) -> TypeShown:
    """Return a type as the answer to a change, and the answer about the default, show the type."""
    return {
        "id": value.uuid,
        "name": value.name,
        "description": value.description,
        "is_public": value.is_public,
        "extra_specs": shown_specs(value, context),
    }


def _shown(value: VolumeType, context: CinderContext) -> TypeShown:
    """Return a type as the answer to its creation shows the type."""
    return {**_plain(value, context), "os-volume-type-access:is_public": value.is_public}


def _shown_whole(value: VolumeType, context: CinderContext) -> TypeShown:
    shown = _shown(value, context)
    if context.may(Right.VOLUME_TYPES):
        shown["qos_specs_id"] = value.qos
    return shown


async def find(context: CinderContext, number: int) -> VolumeType:
    """Return the type with a number.

    :raises VolumeTypeNotFound: if the caller sees no such type.
    """
    if number == DEFAULT.id:
        return DEFAULT
    return await context.services.types.get(number, context.sees_types_of)


async def of_reference(context: CinderContext, named: str) -> VolumeType:
    """Return the type that a body names by its id or its name.

    :raises NotFound: if there is no such type.
    """
    if named in (DEFAULT.name, DEFAULT.uuid):
        return DEFAULT
    types = context.services.types
    for find in (types.of_uuid, types.named):
        with suppress(VolumeTypeNotFound):
            return await find(named, context.sees_types_of)
    raise NotFound(f"Volume type with name {named} could not be found.")


def _asked_for(context: CinderContext, value: VolumeType) -> bool:
    """Return whether a list shows a type that the caller may see.

    Members see all such types.  Operators see the public types, unless the filter ``is_public``
    asks for private ones, or has another value, for all types.
    """
    if not context.may(Right.VOLUME_TYPES):
        return True
    wanted = truth(text(context.request, b"is_public") or "true")
    return wanted is None or value.is_public is wanted


def _changeable(number: int, doing: str) -> int:
    if number == DEFAULT.id:
        raise InvalidRequest(
            f"The volume type {DEFAULT.uuid} is a default volume type and cannot be {doing}."
        )
    return number


def _check_name(name: str | None) -> None:
    """Check the new name of a type.

    :raises InvalidRequest: if the default type has the name.
    """
    if name == DEFAULT.name:
        raise InvalidRequest(f"Volume Type {DEFAULT.name} already exists.")


@operation("types_list_types", "GET", "types", query=_LISTING.query, of_rows=True, refusals=(404,))
async def list_types(context: CinderContext) -> Types:
    """List the volume types."""
    found = [DEFAULT, *await context.services.types.listed(context.sees_types_of)]
    selected = _LISTING.select(context, [each for each in found if _asked_for(context, each)])
    shown: Types = {"volume_types": [_shown_whole(each, context) for each in selected.page]}
    if selected.links:
        shown["volume_type_links"] = selected.links
    return shown


@operation("types_show_default", "GET", "types/default")
async def show_default(context: CinderContext) -> OneType:
    """Show the type of the project's new volumes without a named type."""
    found = await context.services.types.default_of(context.caller.tenant) or DEFAULT
    return {"volume_type": _plain(found, context)}


@operation("types_show_type", "GET", "types/<number>", of_rows=True)
async def show_type(context: CinderContext, number: int) -> OneType:
    """Show a volume type."""
    return {"volume_type": _shown_whole(await find(context, number), context)}


@operation(
    "types_create_type",
    "POST",
    "types",
    entity="volume_type",
    right=Right.VOLUME_TYPES,
    refusals=(409,),
)
async def create_type(context: CinderContext, body: CreateType) -> OneType:
    """Create a volume type."""
    _check_name(body.name)
    made = await context.services.types.create(
        body.name, body.extra_specs or {}, body.description, body.is_public is not False
    )
    return {"volume_type": _shown(made, context)}


@operation(
    "types_change_type",
    "PUT",
    "types/<number>",
    entity="volume_type",
    right=Right.VOLUME_TYPES,
    refusals=(409,),
)
async def change_type(context: CinderContext, number: int, body: ChangeType) -> OneType:
    """Change a type's name or description, or who sees the type."""
    if not body.values:
        raise InvalidRequest("Specify volume type name, description, is_public or a combination.")
    _check_name(body.name)
    changed = await context.services.types.change(_changeable(number, "changed"), body.values)
    return {"volume_type": _plain(changed, context)}


@operation("types_delete_type", "DELETE", "types/<number>", status=202, right=Right.VOLUME_TYPES)
async def delete_type(context: CinderContext, number: int) -> None:
    """Delete a volume type without volumes."""
    await context.services.types.delete(_changeable(number, "deleted"), unused=True)


@operation("types_list_specs", "GET", "types/<number>/extra_specs", right=Right.VOLUME_TYPES)
async def list_specs(context: CinderContext, number: int) -> SpecsShown:
    """Show a type's extra specs."""
    return {"extra_specs": dict((await find(context, number)).extra_specs)}


@operation(
    "types_add_specs",
    "POST",
    "types/<number>/extra_specs",
    entity="extra_specs",
    right=Right.VOLUME_TYPES,
)
async def add_specs(context: CinderContext, number: int, body: Specs) -> SpecsShown:
    """Set extra specs of a type; other specs stay."""
    await context.services.types.update(_changeable(number, "changed"), body.root)
    return {"extra_specs": body.root}


@operation("types_show_spec", "GET", "types/<number>/extra_specs/<key>", right=Right.VOLUME_TYPES)
async def show_spec(context: CinderContext, number: int, key: str) -> dict[str, str]:
    """Show one of a type's extra specs."""
    specs = (await find(context, number)).extra_specs
    if key not in specs:
        raise NotFound
    return {key: specs[key]}


@operation("types_set_spec", "PUT", "types/<number>/extra_specs/<key>", right=Right.VOLUME_TYPES)
async def set_spec(context: CinderContext, number: int, key: str, body: Specs) -> dict[str, str]:
    """Set one of a type's extra specs."""
    if list(body.root) != [key]:
        raise InvalidRequest("Request body and URI mismatch")
    await context.services.types.update(_changeable(number, "changed"), body.root)
    return body.root


@operation(
    "types_delete_spec",
    "DELETE",
    "types/<number>/extra_specs/<key>",
    status=202,
    right=Right.VOLUME_TYPES,
)
async def delete_spec(context: CinderContext, number: int, key: str) -> None:
    """Delete one of a type's extra specs."""
    await context.services.types.forget(_changeable(number, "changed"), key)


OPERATIONS = (
    list_types,
    show_default,
    show_type,
    create_type,
    change_type,
    delete_type,
    list_specs,
    add_specs,
    show_spec,
    set_spec,
    delete_spec,
)
