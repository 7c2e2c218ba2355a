"""Operations that create, describe and delete the images of callers."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import attrs

from bootvol.api.context import RequestContext
from bootvol.api.glance import views
from bootvol.api.glance.bodies import ImageBody
from bootvol.api.glance.described import of_record
from bootvol.api.glance.imports import ways
from bootvol.api.glance.patches import EARLIER_PATCH, PATCH, EarlierPatchBody, PatchBody
from bootvol.api.glance.rights import rights_of
from bootvol.api.http import public_url
from bootvol.api.operations import operation
from bootvol.errors import NotFound
from bootvol.model import ImageRecord

#: Statuses of failures of operations that change images.
_REFUSALS: Final = (403, 409, 413, 415, 503)


@operation("images_create_image", "POST", "images", status=201, refusals=(*_REFUSALS, 501))
async def create_image(context: RequestContext, body: ImageBody) -> views.ImageShown:
    """Create an image without data."""
    made = await context.services.stored_images.create(
        context.caller, body.described, rights_of(context)
    )
    url = f"{public_url(context.request)}/image/v2/images/{quote(made.record.id)}"
    context.request.setHeader(b"Location", url.encode("ascii", "replace"))
    # openstacksdk imports data only if the answer names the ways and the stores.
    stores = ",".join(context.services.stored_images.stores)
    for header, value in (
        (b"OpenStack-image-import-methods", ",".join(ways(context))),
        (b"OpenStack-image-store-ids", stores),
    ):
        context.request.setHeader(header, value.encode("ascii", "replace"))
    return views.image(of_record(made, context.caller.tenant))


@operation(
    "images_update_image",
    "PATCH",
    "images/<image_id>",
    takes=PATCH,
    also_takes={EARLIER_PATCH: EarlierPatchBody},
    refusals=_REFUSALS,
)
async def update_image(context: RequestContext, image_id: str, body: PatchBody) -> views.ImageShown:
    """Change the description of an image."""
    changed = await context.services.stored_images.change(
        context.caller, image_id, body.changed, rights_of(context)
    )
    return views.image(of_record(changed, context.caller.tenant))


@operation("images_delete_image", "DELETE", "images/<image_id>", status=204, refusals=_REFUSALS)
async def delete_image(context: RequestContext, image_id: str) -> None:
    """Delete an image."""
    await context.services.stored_images.remove(context.caller, image_id, rights_of(context))


@operation("images_add_tag", "PUT", "images/<image_id>/tags/<tag>", status=204, refusals=_REFUSALS)
async def add_tag(context: RequestContext, image_id: str, tag: str) -> None:
    """Give a tag to an image."""

    def tagged(record: ImageRecord) -> ImageRecord:
        tags = [*(each for each in record.tags if each != tag), tag]
        return PatchBody.model_validate(
            [{"op": "replace", "path": "/tags", "value": tags}]
        ).changed(record)

    await context.services.stored_images.change(
        context.caller, image_id, tagged, rights_of(context)
    )


@operation(
    "images_delete_tag", "DELETE", "images/<image_id>/tags/<tag>", status=204, refusals=_REFUSALS
)
async def delete_tag(context: RequestContext, image_id: str, tag: str) -> None:
    """Take a tag from an image."""

    def untagged(record: ImageRecord) -> ImageRecord:
        if tag not in record.tags:
            raise NotFound(f"Image {record.id} has no such tag.")
        return attrs.evolve(record, tags=tuple(each for each in record.tags if each != tag))

    await context.services.stored_images.change(
        context.caller, image_id, untagged, rights_of(context)
    )


@operation(
    "images_deactivate_image",
    "POST",
    "images/<image_id>/actions/deactivate",
    status=204,
    refusals=_REFUSALS,
)
async def deactivate_image(context: RequestContext, image_id: str) -> None:
    """Let nobody use an active image for now."""
    await context.services.stored_images.set_usable(
        context.caller, image_id, rights_of(context), usable=False
    )


@operation(
    "images_reactivate_image",
    "POST",
    "images/<image_id>/actions/reactivate",
    status=204,
    refusals=_REFUSALS,
)
async def reactivate_image(context: RequestContext, image_id: str) -> None:
    """Let the tenants use a deactivated image again."""
    await context.services.stored_images.set_usable(
        context.caller, image_id, rights_of(context), usable=True
    )


OPERATIONS = (
    create_image,
    update_image,
    delete_image,
    add_tag,
    delete_tag,
    deactivate_image,
    reactivate_image,
)
