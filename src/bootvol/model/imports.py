"""Imports, from the first byte to the volume, and golden volumes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import attrs

from bootvol.errors import ErrorReport
from bootvol.model.images import Digest, Image
from bootvol.model.volumes import (
    GIB,
)


@attrs.frozen
class Checkpoint:
    """A prefix of an image that is on the volume, and survives loss of power.

    :ivar offset: its length in bytes.
    :ivar digest: of its bytes, by the import's algorithm, in hex.
    :ivar validator: of the image that it is a prefix of, in the source's own words.
    """

    offset: int
    digest: str
    validator: str


class Phase(StrEnum):
    """Where an import stands, as its progress shows it."""

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
    """Something about an import that people should know, though it did not fail.

    :ivar code: stands for this kind of warning, and never changes.
    """

    code: str
    message: str


#: Nothing in the image's first bytes is what disks begin with.
UNIDENTIFIED: Final = Caution(
    "unidentified-image",
    "Nothing tells that the image is a disk: no partition table, boot sector or file system is in"
    " it.",
)


#: As OpenWrt's images have it: gunzip warns of "trailing garbage" and ignores that.
FOREIGN_BYTES: Final = Caution(
    "foreign-bytes",
    "Bytes that are not compressed follow the compressed image. They are no part of the volume.",
)


STARTED_OVER: Final = Caution(
    "started-over",
    "The import could not go on where it was interrupted. It began again with the first byte.",
)


@attrs.frozen
class Import:
    """The filling of one volume from one image.

    :ivar attempt: how often it was started; 0 while it has not been.
    :ivar bytes_done: bytes of the image that are on the volume.
    :ivar bytes_per_second: mean rate of this attempt.
    :ivar content: stands for the image's bytes, if anything does: another import of the same needs
        no download of its own.
    :ivar cached: whether it is made from a golden volume; None until that is known.
    :ivar checkpoint: where another attempt may go on.
    :ivar durable_name: under which name on its backend the checkpoint's prefix lies, where that is
        not the volume's: another daemon, which may be stopped, had begun it.
    :ivar position: its place in line while it waits for a worker, from 1; None when it does not.
    :ivar warnings: what people should know of it.
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
    error: ErrorReport | None = None
    position: int | None = None
    warnings: tuple[Caution, ...] = ()


@attrs.frozen
class Golden:
    """A hidden volume that holds one image, to make others from.

    :ivar content: stands for the image's bytes: see :func:`bootvol.service.goldens.content_of`.
    :ivar size: of the disk in bytes; the volume is as many whole GiB as that needs.
    :ivar digest: of the disk, where one is known.
    :ivar hits: how many volumes were made from it.
    :ivar used_at: seconds since 1970 when it was last used.
    :ivar warnings: what people should know of the image.
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

    @property
    def volume_size(self) -> int:
        """The volume's own size in bytes."""
        return -(-self.size // GIB) * GIB
