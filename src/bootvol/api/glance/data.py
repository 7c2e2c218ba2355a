"""Operations with the data of images: uploads and downloads."""

from __future__ import annotations

from typing import Final

from twisted.web.iweb import IRequest

from bootvol.api.context import RequestContext
from bootvol.api.downloads import send
from bootvol.api.glance.rights import rights_of
from bootvol.api.operations import operation
from bootvol.api.uploads import body_of
from bootvol.errors import ImageNotFound, ImageNotReady, WrongMediaType

BYTES: Final = "application/octet-stream"


def check_media(request: IRequest) -> None:
    """Check the media type of a request's body.

    :raises WrongMediaType: if the body does not count as bytes of an image.
    """
    stated = request.getHeader(b"content-type") or b""
    if stated.partition(b";")[0].strip().lower() != BYTES.encode("ascii"):
        raise WrongMediaType(BYTES)


@operation(
    "images_upload_data",
    "PUT",
    "images/<image_id>/file",
    status=204,
    takes=BYTES,
    streamed=True,
    refusals=(403, 408, 409, 413, 415, 503),
)
async def upload_data(context: RequestContext, image_id: str) -> None:
    """Upload the data of an image."""
    check_media(context.request)
    await context.services.stored_images.fill(
        context.caller, image_id, body_of(context.request), rights_of(context)
    )


@operation(
    "images_download_data",
    "GET",
    "images/<image_id>/file",
    gives=BYTES,
    empty=204,
    refusals=(503,),
)
async def download_data(context: RequestContext, image_id: str) -> bool:
    """Download the data of an image; 204 for an image without data."""
    if "://" in image_id:
        # Sources read URLs for volumes only.
        raise ImageNotFound(image_id)
    services = context.services
    try:
        image = await services.images.find(context.caller, image_id)
    except ImageNotReady:
        return False
    stored = await services.stored_images.record(context.caller, image_id, rights_of(context))
    if stored is not None and stored.record.data is not None:
        context.request.setHeader(b"Content-MD5", stored.record.data.md5.encode("ascii"))
    source = services.images.source(image.source)
    await send(context.request, await source.open(image), BYTES)
    return True


OPERATIONS = (upload_data, download_data)
