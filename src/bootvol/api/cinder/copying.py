"""Actions that copy or move the bytes of a volume, or say that they stay as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from pydantic import BaseModel

from bootvol.api.bodies import BODY
from bootvol.api.cinder.acting import Action
from bootvol.api.cinder.bodies import Flag
from bootvol.api.cinder.context import CinderContext
from bootvol.api.http import Reply
from bootvol.errors import VolumeBusy


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


ACTIONS: Final = (Action("os-update_readonly_flag", UpdateReadonly, _update_readonly),)
