"""The actions on volumes (docs/block-storage.md)."""

from __future__ import annotations

from typing import Final

from bootvol.api.cinder import attaching, copying, image_uploads, managing, resets, volume_actions
from bootvol.api.cinder.acting import Actions, Named
from bootvol.api.cinder.context import CinderContext
from bootvol.api.http import Reply
from bootvol.api.operations import operation

#: Each room of actions has a tuple of its own.
VOLUMES: Final = Actions(
    (
        *volume_actions.ACTIONS,
        *attaching.ACTIONS,
        *copying.ACTIONS,
        *image_uploads.ACTIONS,
        *resets.ACTIONS,
        *managing.ACTIONS,
    )
)


@operation("volumes_act", "POST", "volumes/<number>/action", empty=202)
async def act(context: CinderContext, number: int, body: Named) -> Reply:
    """Do as the name in the body says."""
    return await VOLUMES.act(context, number, body)


OPERATIONS = (act,)
