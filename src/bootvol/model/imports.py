"""Imports, from the first byte to the finished volume, and cached images."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from enum import StrEnum
from typing import Final

import attrs

from bootvol.errors import ErrorReport
from bootvol.model.images import Digest, Image
from bootvol.model.volumes import GIB


@attrs.frozen
class Checkpoint:
    """A prefix of an image that is on the volume and survives a loss of power.

    :ivar offset: length of the prefix in bytes.
    :ivar digest: digest of the prefix by the import's algorithm, in hex.
    :ivar validator: the image's validator, in the source's own format.
    :ivar blank: whether the volume behind the prefix reads as zeros, except for bytes of the image.
        Otherwise the volume has to be written to its end.
    """

    offset: int
    digest: str
    validator: str
    blank: bool = True


class Phase(StrEnum):
    """The current step of an import, as its progress shows."""

    QUEUED = "queued"
    WAITING = "waiting"
    ALLOCATING = "allocating"
    CLONING = "cloning"
    DOWNLOADING = "downloading"
    CONVERTING = "converting"
    RETRYING = "retrying"
    FINISHING = "finishing"
    VERIFYING = "verifying"
    DONE = "done"
    FAILED = "failed"


@attrs.frozen
class Caution:
    """A warning about an import that did not fail.

    :ivar code: stable code of this kind of warning.
    """

    code: str
    message: str


#: The image does not begin as a disk does.
UNIDENTIFIED: Final = Caution(
    "unidentified-image",
    "The image does not look like a disk: it has no partition table, no boot sector and no file"
    " system.",
)


#: A disk with such content is of use to a guest with the key.
ENCRYPTED: Final = Caution(
    "encrypted-image",
    "The image is encrypted as a whole (LUKS). No server boots from the volume.",
)


#: OpenWrt's images are an example.  gunzip warns of "trailing garbage" and ignores these bytes.
FOREIGN_BYTES: Final = Caution(
    "foreign-bytes",
    "Uncompressed bytes follow the compressed image. The volume does not contain these bytes.",
)


#: For example, a vhd of fixed size without its end, the footer, looks like a raw disk.
UNEXPECTED_FORMAT: Final = Caution(
    "unexpected-format",
    "The image does not have the format that its name ends in. A part of a file looks like that.",
)


SHORT_IMAGE: Final = Caution(
    "short-image",
    "The image is shorter than its partition table or file system states. Perhaps the image is only"
    " a part.",
)


STARTED_OVER: Final = Caution(
    "started-over",
    "The import could not continue at the point of its interruption. It started over.",
)


@attrs.frozen
class Import:
    """The import of one image into one volume.

    :ivar attempt: number of attempts so far; 0 before the first one.
    :ivar bytes_done: bytes of the image that are on the volume.
    :ivar bytes_per_second: mean rate of this attempt.
    :ivar content: key of the image's bytes, if they have one.  An import with the same key needs no
        download of its own.
    :ivar cached: whether the volume is made from a cached image; None until the worker has decided.
    :ivar checkpoint: the point where another attempt may resume.
    :ivar durable_name: name of the checkpoint's prefix on the backend, if this name differs from
        the volume's name.  The names differ if another daemon, which may be suspended, began the
        import.
    :ivar stated_size: size of the image in bytes, as its source stated the size last while the
        image came; None if the source stated no size.
    :ivar stated_validator: validator of the image with this size.
    :ivar error: why the import failed, or why it waits.
    :ivar position: place in the queue, from 1; None if the import does not wait for a worker.
    :ivar warnings: warnings for people.
    """

    volume_id: int
    image: Image
    phase: Phase = Phase.QUEUED
    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_per_second: int = 0
    attempt: int = 0
    content: str | None = None
    cached: bool | None = None
    checkpoint: Checkpoint | None = None
    durable_name: str | None = None
    stated_size: int | None = None
    stated_validator: str | None = None
    error: ErrorReport | None = None
    position: int | None = None
    warnings: tuple[Caution, ...] = ()


@attrs.frozen
class CachedImage:
    """A cached image: a hidden volume with one image, the origin of other volumes.

    :ivar content: key of the image's bytes: see :func:`bootvol.model.content_of`.
    :ivar size: size of the disk in bytes.  The volume's size is rounded up to whole GiB.
    :ivar digest: digest of the disk, if known.
    :ivar hits: number of volumes made from the cached image.
    :ivar used_at: time of the last use, in seconds since 1970.
    :ivar warnings: warnings about the image, for people.
    :ivar host: the host whose daemons alone reach the cached image; empty if every host's do.
    """

    name: str
    backend: str
    image_id: str
    content: str
    size: int
    digest: Digest | None
    hits: int
    used_at: float
    warnings: tuple[Caution, ...] = ()
    host: str = ""

    @property
    def volume_size(self) -> int:
        """The volume's own size in bytes."""
        return -(-self.size // GIB) * GIB


def content_of(image: Image) -> str | None:
    """Return a key for the bytes of an image as its source sends them; None if no key is known.

    Two images are equal only if source and image id are equal: a tenant may have an image because
    its source gave the image to the tenant. With the digest alone as the key, anyone who knows the
    digest could get the image.
    """
    known = image.digest.value if image.digest else image.validator
    if known is None:
        return None
    said = json.dumps([image.source, image.id, image.format, bool(image.digest), known])
    return hashlib.sha256(said.encode()).hexdigest()


def family_of(image: Image) -> str:
    """Return a key for images that are likely releases of one another.

    The images of a family have the same source, and names that differ only in numbers.
    """
    said = json.dumps([image.source, re.sub(r"\d+", "#", image.name.lower())])
    return hashlib.sha256(said.encode()).hexdigest()


@attrs.frozen
class DiskIndex:
    """The index of a cached image's disk.

    :ivar family: see :func:`family_of`.
    :ivar tenant: the tenant whose import made the cached image.
    :ivar depth: number of cached images in a row that the disk was made from.
    :ivar chunks: the index, in the form of :class:`bootvol.imaging.chunk_index.ChunkIndex`.
    """

    family: str
    tenant: str
    depth: int
    chunks: bytes


@attrs.frozen
class CacheUse:
    """The use of cached images since the daemon started.

    :ivar hits: imports without a download, by backend.
    :ivar misses: imports with a download of an image that has a content key, by backend.
    """

    hits: Counter[str] = attrs.Factory(Counter)
    misses: Counter[str] = attrs.Factory(Counter)
