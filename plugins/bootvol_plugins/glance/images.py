"""What Glance says of an image, and whether a volume can be made of it."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bootvol.errors import (
    ImageNotFound,
    ImageNotReady,
    ImageUnusable,
    SourceFailed,
    UnsupportedFormat,
)
from bootvol.model import Digest, Image

#: The form of Glance's ids (its schema of images).
_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX: Final = re.compile(r"[0-9a-f]{32,128}")

#: The largest number that is believed: that of a database.
_MOST: Final = 2**63 - 1

#: Statuses of an image that is on its way to ``active`` (Glance's user guide, "Image Statuses").
_COMING: Final = frozenset({"queued", "saving", "uploading", "importing"})
#: Those of one that only administrators still see.
_GONE: Final = frozenset({"deleted", "pending_delete"})

#: What is read of the values of ``disk_format``: ami, ari and aki are no disks that boot by
#: themselves, ploop has no reader.
_FORMATS: Final = frozenset({"raw", "iso", "qcow2", "vmdk", "vhd", "vhdx", "vdi"})


class Location(BaseModel):
    """A place that an image's data lies in."""

    url: str


class Described(BaseModel):
    """An image as Glance's API v2 shows it; sizes are in bytes but for ``min_disk``, in GiB."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(pattern=f"^{_ID.pattern}$")
    status: str
    name: str | None = None
    disk_format: str | None = None
    container_format: str | None = None
    size: int | None = Field(default=None, ge=0, le=_MOST)
    virtual_size: int | None = Field(default=None, ge=0, le=_MOST)
    min_disk: int = Field(default=0, ge=0, le=_MOST)
    checksum: str | None = None
    os_hash_algo: str | None = None
    os_hash_value: str | None = None
    direct_url: str | None = None
    locations: list[Location] = []

    @property
    def in_ceph(self) -> str | None:
        """Where in Ceph the image lies; None if it does not, or Glance does not show it."""
        urls = [self.direct_url or "", *(each.url for each in self.locations)]
        return next((url for url in urls if url.startswith("rbd://")), None)


class Page(BaseModel):
    """A part of the list of images."""

    images: list[Described]
    next: str | None = None


def is_id(reference: str) -> bool:
    """Tell whether an image could have this id."""
    return _ID.fullmatch(reference) is not None


def described(answer: object) -> Described:
    """Read what Glance answers of one image.

    :raises SourceFailed: it is something else.
    """
    try:
        return Described.model_validate(answer)
    except ValidationError:
        raise SourceFailed("Glance answers with what is no image.") from None


def page(answer: object) -> Page:
    """Read what Glance answers of many images.

    :raises SourceFailed: it is something else.
    """
    try:
        return Page.model_validate(answer)
    except ValidationError:
        raise SourceFailed("Glance answers with what is no list of images.") from None


def usable(found: Described, source: str) -> Image:
    """Return an image that a volume can be made of.

    :param source: the source's name.
    :raises ImageNotFound: it is deleted.
    :raises ImageNotReady: Glance does not have all of it yet.
    :raises ImageUnusable: it is deactivated, or otherwise not active.
    :raises UnsupportedFormat: it is no disk, or packed in what is not read.
    """
    if found.status in _GONE:
        raise ImageNotFound(found.id)
    if found.status in _COMING:
        raise ImageNotReady(f"Image {found.id} is not active yet; it is {found.status}.")
    if found.status != "active":
        raise ImageUnusable(f"Image {found.id} is not active; it is {found.status}.")
    if found.container_format != "bare":
        raise UnsupportedFormat(
            f"Image {found.id} has the container format {found.container_format}, not bare."
        )
    if found.disk_format not in _FORMATS:
        raise UnsupportedFormat(
            f"Image {found.id} has the disk format {found.disk_format}, which is not read."
        )
    digest = _digest(found)
    return Image(
        id=found.id,
        source=source,
        name=found.name or found.id,
        format=found.disk_format,
        size_bytes=found.size,
        min_disk_gib=found.min_disk,
        disk_bytes=found.virtual_size,
        digest=digest,
        # An image's data never changes, and no other image gets its id; yet an administrator may
        # replace what it lies in, so without a digest nothing is sure.
        validator=f"{digest.algorithm}:{digest.value}" if digest else None,
    )


def _digest(found: Described) -> Digest | None:
    """Return the best digest that is stated and can be computed."""
    for algorithm, value in (
        (found.os_hash_algo, found.os_hash_value),
        ("md5", found.checksum),
    ):
        if algorithm and value and _fits(algorithm, value.lower()):
            return Digest(algorithm, value.lower())
    return None


def _fits(algorithm: str, value: str) -> bool:
    try:
        size = hashlib.new(algorithm).digest_size
    except ValueError:
        return False
    return len(value) == 2 * size and _HEX.fullmatch(value) is not None
