"""Errors about the images that callers bring."""

from __future__ import annotations

from bootvol.errors.access import Forbidden
from bootvol.errors.base import BootvolError
from bootvol.errors.requests import UnsupportedContentType


class ImageConflict(BootvolError):
    """The image's status does not allow the request."""

    code = "image-conflict"
    retryable = False
    remedy = "Wait until the image is queued or active, or create another image."


class SeveralImages(BootvolError):
    """Several images have the name that the caller gave instead of an id.

    :param name: the name.
    """

    code = "several-images"
    retryable = False
    remedy = "Name the image by its id."

    def __init__(self, name: str) -> None:
        super().__init__(f"Multiple matches found for '{name}', use an ID to be more specific.")


class ImageMemberExists(ImageConflict):
    """The image is shared with the project already.

    :param image_id: the id of the image.
    :param tenant: the project.
    """

    code = "image-member-exists"
    remedy = "Use the existing member."

    def __init__(self, image_id: str, tenant: str) -> None:
        super().__init__(f"The image member {tenant} is already associated with image {image_id}.")


class ImageProtected(Forbidden):
    """The image is protected against deletion.

    :param image_id: the id of the image.
    """

    code = "image-protected"
    remedy = "Set the property protected of the image to false first."

    def __init__(self, image_id: str) -> None:
        super().__init__(f"Image {image_id} is protected and cannot be deleted.")


class NoImageStore(BootvolError):
    """The operator has configured no source that takes images from callers."""

    code = "no-image-store"
    retryable = False
    remedy = (
        "Use an image from the list of images, or have the operator set writable = true for a"
        " source of the plugin directory."
    )
    default_message = "This service takes no images."


class UploadForgotten(BootvolError):
    """The daemon ended during the upload of a volume, and the caller's token went with it."""

    code = "upload-forgotten"
    remedy = "Ask for an image of the volume again."
    default_message = "The service was restarted before all bytes of the volume had been sent."


class WrongMediaType(UnsupportedContentType):
    """The body of the call has another content type.

    :param wanted: the content type of the call.
    """

    code = "wrong-media-type"
    remedy = "Send the body with the Content-Type that the message names."

    def __init__(self, wanted: str) -> None:
        super().__init__(f"Unsupported Content-Type: this call takes {wanted}.")
