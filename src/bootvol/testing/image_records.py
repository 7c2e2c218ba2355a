"""Records, bytes and callers for the tests of stores of images."""

from __future__ import annotations

import hashlib
from typing import Final
from uuid import uuid4

import attrs

from bootvol.interfaces import IImageStore, IImageUpload
from bootvol.model import (
    Caller,
    Digest,
    Image,
    ImageFetch,
    ImageMember,
    ImageRecord,
    ImageStatus,
    MemberStatus,
    StoredBytes,
)
from bootvol.testing.sources import Subject
from bootvol.testing.volumes import noise

OWNER: Final = Caller("owner", "tenant-of-owner", frozenset())
STRANGER: Final = Caller("stranger", "tenant-of-stranger", frozenset())

CONTENT: Final = noise(1024 * 1024 + 777)


@attrs.frozen(kw_only=True)
class StoreSubject(Subject):
    """A store under test, with an image as in :class:`bootvol.testing.sources.Subject`.

    :ivar store: the same object as the source.
    :ivar quota_bytes: the quota of each tenant, at least 8 MiB and at most 64 MiB.
    """

    store: IImageStore
    quota_bytes: int


def new_record(owner: str = OWNER.tenant) -> ImageRecord:
    """Return a queued record of a raw image."""
    return ImageRecord(
        str(uuid4()), owner, 1000.0, 1000.0, "disk", disk_format="raw", container_format="bare"
    )


def facts(content: bytes) -> StoredBytes:
    """Return the facts about the bytes of a raw image."""
    return StoredBytes(
        len(content),
        hashlib.md5(content, usedforsecurity=False).hexdigest(),
        hashlib.sha512(content).hexdigest(),
        len(content),
    )


async def send(upload: IImageUpload, content: bytes, size: int = 100_000) -> None:
    """Write all bytes through one buffer, whose bytes change after each write."""
    buffer = memoryview(bytearray(size))
    for start in range(0, len(content), size):
        piece = content[start : start + size]
        buffer[: len(piece)] = piece
        await upload.write(buffer[: len(piece)])
        buffer[:] = bytes(size)


async def stored(
    store: IImageStore, content: bytes = CONTENT, record: ImageRecord | None = None
) -> ImageRecord:
    """Store an image; return the active record.

    :param record: the queued record; by default a new one.
    """
    record = record or new_record()
    await store.add(record)
    upload = await store.upload(record.id, len(content))
    await send(upload, content)
    return await upload.finish(facts(content))


def member(status: MemberStatus, tenant: str = STRANGER.tenant) -> ImageMember:
    """Return a member of an image."""
    return ImageMember(tenant, status, 1001.0, 1002.0)


def fetch(*, ended: bool = False) -> ImageFetch:
    """Return a request for a download."""
    image = Image("https://a.test/b", "web", "b", size_bytes=5, digest=Digest("sha256", "0" * 64))
    return ImageFetch("1", "user", "req-1", 1003.0, 1004.0, image, "https://a.test/b?c", ended)


async def status(store: IImageStore, image_id: str) -> ImageStatus:
    """Return the status of an image."""
    return (await store.record(image_id)).status
