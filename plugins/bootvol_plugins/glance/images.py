"""Glance's descriptions of images, and the check for usable images."""

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
from bootvol.model import LONGEST_PROPERTIES, Digest, Image

#: The form of Glance's ids (its schema of images).
_ID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX: Final = re.compile(r"[0-9a-f]{32,128}")

#: Largest accepted number, the limit of a database.
_MOST: Final = 2**63 - 1

#: Statuses of an image on the way to ``active`` (Glance's user guide, "Image Statuses").
_COMING: Final = frozenset({"queued", "saving", "uploading", "importing"})
#: Statuses of an image that only administrators still see.
_GONE: Final = frozenset({"deleted", "pending_delete"})

#: Supported values of ``disk_format``. ami, ari and aki are not disks that boot by themselves, and
#: ploop has no reader.
_FORMATS: Final = frozenset({"raw", "iso", "qcow2", "vmdk", "vhd", "vhdx", "vdi"})


#: Texts that Glance itself states about every image, and that say nothing about a disk.
_OF_GLANCE: Final = frozenset(
    (
        *("created_at", "updated_at", "deleted_at", "file", "self", "schema", "owner"),
        *("visibility", "stores"),
    )
)


class Location(BaseModel):
    """A location of an image's data."""

    url: str


class Described(BaseModel):
    """An image as shown by Glance's API v2.  Sizes are in bytes; ``min_disk`` is in GiB."""

    model_config = ConfigDict(frozen=True, extra="allow")

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
    def properties(self) -> dict[str, str]:
        """The properties that the image's owner gave, and further facts that volumes show."""
        stated = {
            "checksum": self.checksum,
            "container_format": self.container_format,
            "min_ram": (self.model_extra or {}).get("min_ram"),
            **{
                name: value
                for name, value in (self.model_extra or {}).items()
                if isinstance(value, str) and name not in _OF_GLANCE
            },
        }
        kept, left = {}, LONGEST_PROPERTIES
        for name, value in stated.items():
            length = len(name) + len(str(value))
            if value is not None and length <= left and not name.startswith("os_glance"):
                kept[name] = str(value)
                left -= length
        return kept

    @property
    def in_ceph(self) -> str | None:
        """The image's location in Ceph; None if Glance shows no such location."""
        urls = [self.direct_url or "", *(each.url for each in self.locations)]
        return next((url for url in urls if url.startswith("rbd://")), None)


class Page(BaseModel):
    """A page of the list of images.  Each image is validated later: see :func:`described`."""

    images: list[dict[str, object]]
    next: str | None = None


def is_id(reference: str) -> bool:
    """Tell whether a text has the form of an image's id."""
    return _ID.fullmatch(reference) is not None


def described(answer: object) -> Described:
    """Validate Glance's description of an image.

    :raises SourceFailed: if the answer is not an image.
    """
    try:
        return Described.model_validate(answer)
    except ValidationError:
        raise SourceFailed("Glance's answer is not an image.") from None


def page(answer: object) -> Page:
    """Validate a page of Glance's list of images.

    :raises SourceFailed: if the answer is not a list of images.
    """
    try:
        return Page.model_validate(answer)
    except ValidationError:
        raise SourceFailed("Glance's answer is not a list of images.") from None


def usable(found: Described, source: str) -> Image:
    """Return a usable image as the core's value.

    :param source: the source's name.
    :raises ImageNotFound: if the image is deleted.
    :raises ImageNotReady: if Glance does not have the complete image yet.
    :raises ImageUnusable: if the image is deactivated, or not active for another reason.
    :raises UnsupportedFormat: if the image is not a disk, or has an unsupported container format.
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
            f"Image {found.id} has the disk format {found.disk_format}, which bootvol does not"
            " read."
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
        # An image's data never changes, and no other image gets its id. But an administrator may
        # replace the file with the data, so without a digest nothing is certain.
        validator=f"{digest.algorithm}:{digest.value}" if digest else None,
        properties=found.properties,
    )


def _digest(found: Described) -> Digest | None:
    """Return the best stated digest of a supported algorithm; None without one."""
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
