"""Errors about the images that callers bring."""

from __future__ import annotations

from bootvol.errors.base import BootvolError


class ImageConflict(BootvolError):
    """The image's status does not allow the request."""

    code = "image-conflict"
    retryable = False
    remedy = "Wait until the image is queued or active, or create another image."
