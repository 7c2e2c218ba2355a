"""Operations of encryption: no volume is encrypted by bootvol (docs/block-storage.md)."""

from __future__ import annotations

from typing_extensions import TypedDict

from bootvol.api.cinder.absent import Anything
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.volume_types import find
from bootvol.api.operations import operation
from bootvol.errors import NotServed
from bootvol.policy import Right


class NoEncryption(TypedDict):
    """The encryption of a volume type: nothing."""


class NoKey(TypedDict):
    """The key of a volume."""

    encryption_key_id: None


@operation("types_show_encryption", "GET", "types/<number>/encryption", right=Right.VOLUME_TYPES)
async def show_type(context: CinderContext, number: int) -> NoEncryption:
    """Show the encryption of a volume type."""
    await find(context, number)
    return {}


@operation(
    "types_create_encryption",
    "POST",
    "types/<number>/encryption",
    entity="encryption",
    right=Right.VOLUME_TYPES,
    refusals=(501,),
)
async def create(context: CinderContext, number: int, body: Anything) -> NoEncryption:
    """Refuse to encrypt the volumes of a type."""
    raise NotServed("This service encrypts no volumes: encrypt the disks of the backend.")


@operation("volumes_show_encryption", "GET", "volumes/<volume_id>/encryption")
async def show_volume(context: CinderContext, volume_id: int) -> NoKey:
    """Show the key of a volume."""
    await context.services.volumes.get(context.caller, volume_id)
    return {"encryption_key_id": None}


OPERATIONS = (show_type, create, show_volume)
