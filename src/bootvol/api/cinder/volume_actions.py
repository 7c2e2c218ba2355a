"""Actions that change facts about a volume, or its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from bootvol.api.bodies import BODY
from bootvol.api.cinder.acting import Action, Nothing
from bootvol.api.cinder.bodies import Flag, Metadata, Size
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.words import refusal
from bootvol.api.http import Reply
from bootvol.errors import InvalidRequest, NotFound, VolumeBusy
from bootvol.policy import Right

#: The minor version from which volumes in use become larger.
_IN_USE: Final = 42


class SetBootable(BaseModel):
    """The parameters of ``os-set_bootable``."""

    model_config = BODY

    bootable: Flag


class Extend(BaseModel):
    """The parameters of ``os-extend``."""

    model_config = BODY

    new_size: Size


class SetImageMetadata(BaseModel):
    """The parameters of ``os-set_image_metadata``."""

    model_config = BODY

    metadata: Metadata


class UnsetImageMetadata(BaseModel):
    """The parameters of ``os-unset_image_metadata``."""

    model_config = BODY

    key: str


async def _set_bootable(context: CinderContext, number: int, body: SetBootable) -> Reply:
    await context.services.volumes.change(context.caller, number, {"bootable": body.bootable})
    return Reply()


async def _extend(context: CinderContext, number: int, body: Extend) -> Reply:
    if body.new_size is None:
        raise InvalidRequest(refusal("new_size", None, "None is not of type 'integer', 'string'"))
    try:
        await context.services.sizes.extend(
            context.caller, number, body.new_size, in_use=context.has(_IN_USE)
        )
    except VolumeBusy:
        found = await context.services.volumes.get(context.caller, number)
        # Cinder's own quotes.
        raise VolumeBusy(
            f"Invalid volume: Volume {found.uuid} status must be '{{'status': 'available'}}' to"
            f" extend, currently {found.marked or found.status}."
        ) from None
    return Reply(status=202)


async def _set_image_metadata(context: CinderContext, number: int, body: SetImageMetadata) -> Reply:
    changed = await context.services.volumes.change_image_metadata(
        context.caller, number, lambda items: {**items, **body.metadata}
    )
    return Reply({"metadata": dict(changed.image_metadata)})


async def _show_image_metadata(context: CinderContext, number: int, _: Nothing) -> Reply:
    found = await context.services.volumes.get(context.caller, number)
    return Reply({"metadata": dict(found.image_metadata)})


async def _unset_image_metadata(
    context: CinderContext, number: int, body: UnsetImageMetadata
) -> Reply:
    uuid = (await context.services.volumes.get(context.caller, number)).uuid

    def without(items: Mapping[str, str]) -> Mapping[str, str]:
        if body.key not in items:
            raise NotFound(f"Glance metadata for volume/snapshot {uuid} cannot be found.")
        return {name: value for name, value in items.items() if name != body.key}

    await context.services.volumes.change_image_metadata(context.caller, number, without)
    return Reply()


async def _force_delete(context: CinderContext, number: int, _: Nothing) -> Reply:
    await context.services.volumes.delete(context.caller, number)
    return Reply(status=202)


ACTIONS: Final = (
    Action("os-extend", Extend, _extend),
    Action("os-set_bootable", SetBootable, _set_bootable),
    Action("os-set_image_metadata", SetImageMetadata, _set_image_metadata),
    Action("os-show_image_metadata", Nothing, _show_image_metadata),
    Action("os-unset_image_metadata", UnsetImageMetadata, _unset_image_metadata),
    Action("os-force_delete", Nothing, _force_delete, Right.FORCE),
)
