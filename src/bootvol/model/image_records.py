"""Records of images that callers bring: owner, visibility and description."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import attrs


class ImageStatus(StrEnum):
    """The status of a record."""

    #: The image has no bytes yet.
    QUEUED = "queued"
    #: The bytes are on their way.
    SAVING = "saving"
    #: The image has all of its bytes, and these never change.
    ACTIVE = "active"


class Visibility(StrEnum):
    """The tenants, beside the owner, that may use an image."""

    #: No other tenant.
    PRIVATE = "private"
    #: The members of the image.
    SHARED = "shared"
    #: All tenants.  Lists of other tenants leave the image out.
    COMMUNITY = "community"
    #: All tenants.
    PUBLIC = "public"


@attrs.frozen
class StoredBytes:
    """The bytes of an active image.

    :ivar size_bytes: number of bytes.
    :ivar md5: MD5 of the bytes, in lower-case hex.
    :ivar sha512: SHA-512 of the bytes, in lower-case hex.
    :ivar disk_bytes: length of the disk inside; None if unknown.
    """

    size_bytes: int
    md5: str
    sha512: str
    disk_bytes: int | None


@attrs.frozen
class ImageRecord:
    """The record of an image that a caller brings.

    :ivar owner: the tenant of the image.
    :ivar disk_format: ``raw``, ``qcow2`` and so on; None until stated.
    :ivar container_format: ``bare``; None until stated.
    :ivar is_protected: whether the image cannot be deleted.
    :ivar is_hidden: whether lists leave the image out.
    :ivar properties: further properties, by name.
    :ivar created_at: time of the record's creation, in seconds since 1970.
    :ivar updated_at: time of the record's last change, in seconds since 1970.
    :ivar data: the bytes of an active image; None for other images.
    """

    id: str
    owner: str
    created_at: float
    updated_at: float
    name: str | None = None
    status: ImageStatus = ImageStatus.QUEUED
    visibility: Visibility = Visibility.PRIVATE
    disk_format: str | None = None
    container_format: str | None = None
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    is_protected: bool = False
    is_hidden: bool = False
    tags: tuple[str, ...] = ()
    properties: Mapping[str, str] = attrs.field(factory=dict)
    data: StoredBytes | None = None

    def is_usable_by(self, tenant: str) -> bool:
        """Return whether a tenant may see and use the image."""
        everybody = (Visibility.PUBLIC, Visibility.COMMUNITY)
        return tenant == self.owner or self.visibility in everybody

    def is_listed_for(self, tenant: str) -> bool:
        """Return whether a tenant's lists show the image by default."""
        return tenant == self.owner or self.visibility is Visibility.PUBLIC
