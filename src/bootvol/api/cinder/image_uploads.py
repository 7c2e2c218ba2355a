"""The action that makes an image of a volume."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field

from bootvol.api.bodies import BODY, Text
from bootvol.api.cinder.acting import Action
from bootvol.api.cinder.bodies import Flag
from bootvol.api.cinder.context import CinderContext
from bootvol.api.cinder.copying import refused
from bootvol.api.cinder.default_type import DEFAULT
from bootvol.api.cinder.views import time
from bootvol.api.cinder.volume_types import shown_specs
from bootvol.api.cinder.words import one_of
from bootvol.api.http import Reply
from bootvol.errors import Forbidden, InvalidRequest
from bootvol.jsons import JsonObject
from bootvol.model import NewVolumeImage, Visibility, VolumeType
from bootvol.policy import Right

#: The formats that Cinder's clients may name.
_FORMATS: Final = ("raw", "vmdk", "vdi", "qcow2", "vhd", "vhdx", "ploop")
_VISIBLE: Final = tuple(str(each) for each in Visibility)


class UploadImage(BaseModel):
    """The parameters of ``os-volume_upload_image``."""

    model_config = BODY

    image_name: Annotated[Text, Field(min_length=1)]
    force: Flag = False
    disk_format: Annotated[str | None, BeforeValidator(one_of(_FORMATS), str | None)] = None
    container_format: Text | None = None
    visibility: Annotated[str | None, BeforeValidator(one_of(_VISIBLE), str | None)] = None
    protected: Flag = False


async def _upload(context: CinderContext, number: int, body: UploadImage) -> Reply:
    if (body.disk_format or "raw", body.container_format or "bare") != ("raw", "bare"):
        raise InvalidRequest(
            "Invalid input received: images of volumes are made with the disk format raw and the"
            " container format bare only."
        )
    # Before 3.1, the API ignores both.
    named = context.has(1)
    wanted = NewVolumeImage(
        body.image_name,
        Visibility(body.visibility or "private") if named else Visibility.PRIVATE,
        named and body.protected,
        context.may(Right.PUBLIC_IMAGES),
    )
    if wanted.visibility is Visibility.PUBLIC and not wanted.publishes:
        raise Forbidden(
            "Policy doesn't allow volume_extension:volume_actions:upload_public to be performed."
        )
    async with refused(context, number, "Volume {uuid} status must be available"):
        volume, image = await context.services.volume_uploads.upload(context.caller, number, wanted)
    types = await context.services.types.listed(None)
    kind = next((each for each in types if each.name == volume.volume_type), DEFAULT)
    shown: JsonObject = {
        "id": volume.uuid,
        "updated_at": None if volume.updated_at is None else time(volume.updated_at),
        "status": volume.status,
        "display_description": volume.display_description,
        "size": volume.size_gib,
        "volume_type": _type_row(kind, context),
        "image_id": image.id,
        "container_format": image.container_format,
        "disk_format": image.disk_format,
        "image_name": image.name,
    }
    if named:
        shown |= {"protected": image.is_protected, "visibility": image.visibility}
    return Reply({"os-volume_upload_image": shown}, status=202)


def _type_row(value: VolumeType, context: CinderContext) -> JsonObject:
    """Return the row of a volume's type.  The times of types are not known here."""
    return {
        "id": value.uuid,
        "name": value.name,
        "description": value.description,
        "is_public": value.is_public,
        "extra_specs": shown_specs(value, context),
        "qos_specs_id": value.qos if context.may(Right.VOLUME_TYPES) else None,
        "created_at": None,
        "updated_at": None,
        "deleted_at": None,
        "deleted": False,
    }


ACTIONS: Final = (Action("os-volume_upload_image", UploadImage, _upload),)
