"""Imports into the images of callers: of staged bytes, and of bytes at a URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from uuid import uuid4

import attrs

from bootvol.errors import (
    ImageConflict,
    ImportFailed,
    InvalidImageRef,
    InvalidRequest,
    NotFound,
)
from bootvol.model import Caller, Image, ImageFetch, ImageRecord, ImageStatus
from bootvol.service.images import Images
from bootvol.service.stored_images import ImageRights, StoredImage, StoredImages, stated_format


class ImageImports:
    """Gives queued and staged images their bytes.

    The download of a URL is a part of the image's record.  A worker makes the download, of any
    daemon with the store, also after a restart.

    :param images: finds the image at a URL.
    :param stored: the images of callers.
    :param wake: tells the worker about a new download.
    :param now: returns the seconds since 1970.
    """

    def __init__(
        self,
        images: Images,
        stored: StoredImages,
        wake: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._images = images
        self._stored = stored
        self._wake = wake
        self._now = now

    @property
    def reads_urls(self) -> bool:
        """True if a source reads URLs."""
        return self._images.reads_urls

    async def import_staged(
        self, caller: Caller, image_id: str, stores: Sequence[str], rights: ImageRights
    ) -> None:
        """Make an image of staged bytes active.

        :param stores: the stores that the caller wishes; empty for the image's own.
        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant.
        :raises ImageConflict: if the image has no staged bytes.
        :raises InvalidRequest: if the image is in another store.
        """

        def active(record: ImageRecord) -> ImageRecord:
            if record.status is not ImageStatus.UPLOADING:
                raise ImageConflict(f"Image {image_id} is {record.status}: stage its data first.")
            done = attrs.evolve(self._fetch(caller), ended=True)
            return attrs.evolve(record, status=ImageStatus.ACTIVE, fetch=done)

        await self._owned(caller, image_id, stores, rights)
        await self._stored.change(caller, image_id, active, rights)

    async def import_url(
        self,
        caller: Caller,
        image_id: str,
        url: str,
        stores: Sequence[str],
        rights: ImageRights,
    ) -> None:
        """Begin to download the bytes at a URL into a queued image; the image is ``importing``.

        After a failure the image is queued again, and its ``fetch`` tells the reason, also of a
        refused URL.

        :param stores: the stores that the caller wishes; empty for the image's own.
        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant.
        :raises ImageConflict: if the image is not queued.
        :raises InvalidRequest: if the image is in another store, or states no formats.
        :raises bootvol.errors.InvalidImageRef: if no source may read the URL, or the server has no
            such image.
        :raises bootvol.errors.SourceFailed: if the server does not answer.
        """

        def importing(record: ImageRecord) -> ImageRecord:
            if record.status is not ImageStatus.QUEUED:
                raise ImageConflict(f"Image {image_id} is {record.status}: it takes no data now.")
            stated_format(record)
            return attrs.evolve(record, fetch=self._fetch(caller, found, url))

        found = None
        importing((await self._owned(caller, image_id, stores, rights)).record)
        try:
            found = await self._images.find_url(caller, url)
        except (InvalidImageRef, ImportFailed) as error:
            # Some clients show no refusal of an import, so the record tells the reason, too.
            failed = attrs.evolve(self._fetch(caller, None, url), ended=True, failure=error.message)
            noted = partial(_noted, fetch=failed)
            await self._stored.change(caller, image_id, noted, rights)
            raise
        await self._stored.change(caller, image_id, importing, rights)
        self._wake()

    async def check_only_store(
        self, caller: Caller, image_id: str, store: str, rights: ImageRights
    ) -> None:
        """Check that a store has an image that the caller may change.

        :raises ImageNotFound: if no store has an image for the caller.
        :raises Forbidden: if the image belongs to another tenant.
        :raises NotFound: if the image is in another store.
        """
        if (await self._stored.owned(caller, image_id, rights)).store != store:
            raise NotFound(f"Image {image_id} is not in the store {store}.")

    async def _owned(
        self, caller: Caller, image_id: str, stores: Sequence[str], rights: ImageRights
    ) -> StoredImage:
        found = await self._stored.owned(caller, image_id, rights)
        if stores and set(stores) != {found.store}:
            raise InvalidRequest(f"Image {image_id} stays in the store {found.store}.")
        return found

    def _fetch(
        self, caller: Caller, image: Image | None = None, url: str | None = None
    ) -> ImageFetch:
        now = self._now()
        return ImageFetch(str(uuid4()), caller.user, caller.request_id, now, now, image, url)


def _noted(record: ImageRecord, fetch: ImageFetch) -> ImageRecord:
    """Return a record with the refused request, unless the image has a better one by now."""
    return attrs.evolve(record, fetch=fetch) if record.status is ImageStatus.QUEUED else record
