"""Records of images that callers bring: owner, visibility, members and description."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import attrs

from bootvol.model.images import Image


class ImageStatus(StrEnum):
    """The status of a record."""

    #: The image has no bytes yet.
    QUEUED = "queued"
    #: The bytes are on their way.
    SAVING = "saving"
    #: The image has all of its bytes, but nobody uses them before the owner says so.
    UPLOADING = "uploading"
    #: The daemon fetches the bytes.
    IMPORTING = "importing"
    #: The image has all of its bytes, and these never change.
    ACTIVE = "active"
    #: The image has all of its bytes, but nobody may use them for now.
    DEACTIVATED = "deactivated"


#: The statuses of images with all of their bytes.
WHOLE: Final = frozenset({ImageStatus.UPLOADING, ImageStatus.ACTIVE, ImageStatus.DEACTIVATED})


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


class MemberStatus(StrEnum):
    """The answer of a member to a shared image.  All members may use the image."""

    #: The member has not answered.  Lists of the member leave the image out.
    PENDING = "pending"
    #: Lists of the member show the image.
    ACCEPTED = "accepted"
    #: Lists of the member leave the image out.
    REJECTED = "rejected"


@attrs.frozen
class ImageMember:
    """A tenant that may use a shared image.

    :ivar created_at: time of the sharing, in seconds since 1970.
    :ivar updated_at: time of the member's last answer, in seconds since 1970.
    """

    tenant: str
    status: MemberStatus
    created_at: float
    updated_at: float


@attrs.frozen
class ImageFetch:
    """A request to give an image its bytes: by the daemon's own download, or by staged bytes.

    The record of an image keeps the last request.

    :ivar id: uuid of the request.
    :ivar image: the image to download from a source; None for staged bytes.
    :ivar reference: the URL as the caller wrote the URL; None for staged bytes.
    :ivar created_at: time of the request, in seconds since 1970.
    :ivar updated_at: time of the last change, in seconds since 1970.
    :ivar ended: whether the work has ended.
    :ivar failure: why the image got no bytes; None after success and before the end.
    """

    id: str
    user: str
    request_id: str
    created_at: float
    updated_at: float
    image: Image | None = None
    reference: str | None = None
    ended: bool = False
    failure: str | None = None


@attrs.frozen
class StoredBytes:
    """The bytes of an image.

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
    :ivar data: the bytes of an image with a status in :data:`WHOLE`; None for other images.
    :ivar members: the tenants that may use the image while the image is shared.
    :ivar fetch: the last request to fetch the bytes; None without one.
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
    members: tuple[ImageMember, ...] = ()
    fetch: ImageFetch | None = None

    def member(self, tenant: str) -> ImageMember | None:
        """Return a member; None if the image is not shared with the tenant."""
        if self.visibility is not Visibility.SHARED:
            return None
        return next((each for each in self.members if each.tenant == tenant), None)

    def is_usable_by(self, tenant: str) -> bool:
        """Return whether a tenant may see and use the image."""
        everybody = (Visibility.PUBLIC, Visibility.COMMUNITY)
        return (
            tenant == self.owner or self.visibility in everybody or self.member(tenant) is not None
        )

    def is_listed_for(self, tenant: str) -> bool:
        """Return whether a tenant's lists show the image by default."""
        if tenant == self.owner or self.visibility is Visibility.PUBLIC:
            return True
        member = self.member(tenant)
        return member is not None and member.status is MemberStatus.ACCEPTED

    def status_without_bytes(self, *, is_saving: bool) -> ImageStatus:
        """Return the status of a record without bytes.

        :param is_saving: whether bytes are on their way.
        """
        if self.fetch is not None and not self.fetch.ended:
            return ImageStatus.IMPORTING
        return ImageStatus.SAVING if is_saving else ImageStatus.QUEUED
