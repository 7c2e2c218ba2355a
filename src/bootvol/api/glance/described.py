"""Images of all kinds in one form: images of sources, and records of images in stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from bootvol.model import Image, ImageStatus
from bootvol.service.stored_images import StoredImage


@attrs.frozen
class Described:
    """An image as Glance's API describes it, as far as bootvol knows.

    :ivar listed: whether a list shows the image to the caller without being asked.
    :ivar answer: the status of the caller's membership; empty if the caller is no member.
    :ivar stated: further properties that bootvol states.
    """

    id: str
    name: str | None
    status: str = "active"
    # Everybody who sees an image of a source may use it.
    visibility: str = "public"
    protected: bool = False
    os_hidden: bool = False
    owner: str | None = None
    size: int | None = None
    virtual_size: int | None = None
    disk_format: str | None = None
    container_format: str | None = "bare"
    checksum: str | None = None
    os_hash_algo: str | None = None
    os_hash_value: str | None = None
    min_disk: int = 0
    min_ram: int = 0
    created_at: float | None = None
    updated_at: float | None = None
    tags: Sequence[str] = ()
    properties: Mapping[str, str] = attrs.field(factory=dict)
    listed: bool = True
    answer: str = ""
    stated: Mapping[str, str] = attrs.field(factory=dict)


def of_image(image: Image) -> Described:
    """Return the description of a source's image."""
    digest = image.digest
    return Described(
        image.id,
        image.name,
        size=image.size_bytes,
        virtual_size=image.disk_bytes,
        disk_format=image.format,
        checksum=digest.value if digest and digest.algorithm == "md5" else None,
        os_hash_algo=digest.algorithm if digest else None,
        os_hash_value=digest.value if digest else None,
        min_disk=image.min_disk_gib,
        created_at=image.changed_at,
        updated_at=image.changed_at,
    )


def of_record(stored: StoredImage, tenant: str) -> Described:
    """Return the description of a store's record, for a caller's tenant."""
    record = stored.record
    # Bytes that wait for the owner's word may still be dropped.
    data = None if record.status is ImageStatus.UPLOADING else record.data
    member = record.member(tenant)
    return Described(
        record.id,
        record.name,
        record.status.value,
        record.visibility.value,
        record.is_protected,
        record.is_hidden,
        record.owner,
        data.size_bytes if data else None,
        data.disk_bytes if data else None,
        record.disk_format,
        record.container_format,
        data.md5 if data else None,
        "sha512" if data else None,
        data.sha512 if data else None,
        record.min_disk_gib,
        record.min_ram_mib,
        record.created_at,
        record.updated_at,
        record.tags,
        record.properties,
        record.is_listed_for(tenant),
        member.status.value if member else "",
        _stated(stored),
    )


def _stated(stored: StoredImage) -> Mapping[str, str]:
    """Return what Glance states about the stores of an image, and about its import."""
    stated, fetch = {}, stored.record.fetch
    if stored.record.data is not None and stored.record.status is not ImageStatus.UPLOADING:
        stated["stores"] = stored.store
    if fetch is not None:
        stated["os_glance_importing_to_stores"] = "" if fetch.ended else stored.store
        stated["os_glance_failed_import"] = "" if fetch.failure is None else stored.store
    return stated


def merged(
    images: Sequence[Image], records: Sequence[StoredImage], tenant: str
) -> Sequence[Described]:
    """Return the descriptions of all images; the record of an image tells more than the image.

    :param records: the records of the images that the caller may see.
    """
    ids = {each.record.id for each in records}
    return [
        *(of_image(each) for each in images if each.id not in ids),
        *(of_record(each, tenant) for each in records),
    ]
