"""Interfaces of image sources that take images of volumes, and know their callers themselves."""

from __future__ import annotations

from bootvol.interfaces.image_stores import IImageUpload
from bootvol.interfaces.sources import IImageSource
from bootvol.model import Caller, ImageRecord


class IImageTaker(IImageSource):
    """Optional interface of a source in which callers keep images by rights of their own.

    The source checks each caller by :attr:`bootvol.model.Caller.token`.  The core inspects the
    bytes.  A source that leaves the rights to the core provides
    :class:`bootvol.interfaces.IImageStore` instead.
    """

    async def take(caller: Caller, record: ImageRecord) -> None:
        """Add the record of an image without bytes.

        :param record: a queued record, with an id that no image ever had: a UUID.
        :raises bootvol.errors.Unauthorized: if the source does not know the caller.
        :raises bootvol.errors.Forbidden: if the caller may not add the image.
        :raises bootvol.errors.QuotaExceeded: if the caller's quota is used up.
        :raises bootvol.errors.InvalidRequest: if the source does not accept the record.
        :raises bootvol.errors.SourceFailed: if the source does not answer.
        """

    async def receive(caller: Caller, record: ImageRecord, size: int) -> IImageUpload:
        """Begin to take the bytes of a queued image.

        Errors of the source may also come from the methods of the upload.

        :param record: the record that :meth:`take` has added.
        :param size: the number of bytes to come.
        :raises bootvol.errors.Unauthorized: if the source does not know the caller.
        :raises bootvol.errors.SourceFailed: if the source does not answer.
        """

    async def give_up(caller: Caller | None, image_id: str) -> None:
        """Remove an image without bytes, even a protected one.

        A complete image stays; a missing one counts as removed.

        :param caller: the caller of :meth:`take`; None after a restart of the daemon.  Then the
            source uses rights of its own.
        :raises bootvol.errors.BootvolError: if the image still exists, without bytes.
        """
