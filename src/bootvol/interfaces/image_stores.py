"""Interfaces of image sources that take images from callers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zope.interface import Interface

from bootvol.interfaces.sources import IImageSource
from bootvol.model import ImageRecord, StoredBytes


class IImageUpload(Interface):
    """The bytes of one image on their way into a store.  One writer sends them in order."""

    async def write(data: memoryview) -> None:
        """Store the next bytes.

        The store sets the pace: the writer waits for the end of each call before the next one.

        :param data: at least 1 byte.  The memory belongs to the caller, who reuses the memory after
            the call.
        :raises bootvol.errors.QuotaExceeded: if the owner's quota has no room for the bytes.
        :raises bootvol.errors.ImageNotFound: if the image was removed meanwhile.
        :raises bootvol.errors.SourceFailed: if the store fails, or has no space.
        """

    async def finish(data: StoredBytes) -> ImageRecord:
        """Make the image active, with all written bytes.  The bytes survive a loss of power.

        After a failure of this method, the caller calls :meth:`abort`.

        :param data: the facts about the written bytes, as the core counted them.
        :returns: the record of the active image.
        :raises bootvol.errors.QuotaExceeded: if the owner's quota has no room for the image.
        :raises bootvol.errors.ImageNotFound: if the image was removed meanwhile.
        :raises bootvol.errors.SourceFailed: if the store fails, or has no space.
        """

    async def abort() -> None:
        """Drop all written bytes.  The image has its former status again.

        Idempotent, and without effect after the bytes are kept.
        """


class IStagedUpload(IImageUpload):
    """The bytes of one image on their way into a store that also keeps bytes for later."""

    async def stage(data: StoredBytes) -> ImageRecord:
        """Keep all written bytes like :meth:`finish`, but leave the image ``uploading``.

        :meth:`IImageStore.change` makes the image active later.
        """


class IImageStore(IImageSource):
    """Optional interface of a source that takes images from callers.

    The core decides which callers may see and change a record, and inspects the bytes of uploads.
    The store keeps records and bytes, and the quota of each tenant.  ``find`` and ``images`` decide
    as usual: they give an active image to the callers in :meth:`ImageRecord.is_usable_by`, and list
    the image for those in :meth:`ImageRecord.is_listed_for`.  For other callers ``find`` raises
    ``ImageNotFound``.  For an image that is not active yet, ``find`` raises ``ImageNotReady``, and
    for a deactivated image ``ImageUnusable``.  ``images`` gives active images only.

    A change lasts beyond a loss of power when its method has returned.  If the daemon dies during
    an upload, the image has its former status at the next start, and the space of the bytes is
    free.

    The status of a record without bytes is :meth:`ImageRecord.status_without_bytes`.
    """

    async def records() -> Sequence[ImageRecord]:
        """Return the records of all tenants, sorted by id.

        :raises bootvol.errors.SourceFailed: if the store does not answer.
        """

    async def record(image_id: str) -> ImageRecord:
        """Return the record of any tenant.

        :param image_id: an id from a client: hostile until proven otherwise.
        :raises bootvol.errors.ImageNotFound: if the store has no such record.
        :raises bootvol.errors.SourceFailed: if the store does not answer.
        """

    async def add(record: ImageRecord) -> None:
        """Add the record of an image without bytes.

        :param record: a queued record, with an id that no image ever had.  Ids consist of hex
            digits and ``-``.
        :raises bootvol.errors.QuotaExceeded: if the owner's quota has no room for a record.
        :raises bootvol.errors.SourceFailed: if the store fails, or has no space.
        """

    async def change(image_id: str, changed: Callable[[ImageRecord], ImageRecord]) -> ImageRecord:
        """Replace a record.  Concurrent changes of one record happen one after the other.

        :param changed: returns the new record for the current one.  The function neither blocks nor
            changes anything, and may run in any thread.  The id and the bytes stay.  The new status
            counts only for an image with bytes, and is one of :data:`bootvol.model.WHOLE`.  The
            exceptions of the function are raised, and the record then stays as before.
        :returns: the new record.
        :raises bootvol.errors.QuotaExceeded: if the image gets another owner, whose quota has no
            room for the image.
        :raises bootvol.errors.ImageNotFound: if the store has no such record.
        :raises bootvol.errors.SourceFailed: if the store fails, or has no space.
        """

    async def remove(
        image_id: str, check: Callable[[ImageRecord], object] = lambda record: None
    ) -> None:
        """Remove a record, with its bytes.  A running upload of the image fails.

        A stream that is open may still give all bytes.

        :param check: called with the current record, like the function of :meth:`change`, while
            nobody changes the record.  The exceptions of the function are raised, and the image
            then stays.
        :raises bootvol.errors.ImageNotFound: if the store has no such record.
        :raises bootvol.errors.SourceFailed: if the store fails.
        """

    async def upload(image_id: str, size: int | None, *, instead: bool = False) -> IStagedUpload:
        """Begin to take the bytes of an image without bytes.  A queued image is then ``saving``.

        :param size: the number of bytes to come; None if unknown.
        :param instead: whether another upload of the image ends: its ``finish`` then raises
            ``ImageNotFound``.  Otherwise the other upload goes on, and this call fails.
        :raises bootvol.errors.ImageConflict: if the image has bytes, or another upload runs.
        :raises bootvol.errors.ImageNotFound: if the store has no such record.
        :raises bootvol.errors.QuotaExceeded: if the owner's quota has no room for ``size`` bytes.
        :raises bootvol.errors.SourceFailed: if the store fails, or has no space.
        """
