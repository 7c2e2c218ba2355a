"""Images of sources, and what is known of their bytes."""

from __future__ import annotations

import attrs


@attrs.frozen
class Digest:
    """A digest: what a source states is of an algorithm of :mod:`hashlib`; in lower-case hex."""

    algorithm: str
    value: str


@attrs.frozen
class Extent:
    """Consecutive bytes of a volume or an image.

    :ivar length: bytes, at least 1.
    :ivar zero: all of them read as zeros; where it is False they may hold anything.
    """

    length: int
    zero: bool


@attrs.frozen
class Image:
    """One image of one source, as the source described it when it was asked.

    :ivar format: ``raw``, ``qcow2`` and so on; None where the source does not state it, and the
        image's own bytes tell.
    :ivar size_bytes: length of what the source sends; None where it does not know.
    :ivar min_disk_gib: the smallest volume that the image's maker allows.
    :ivar digest: of what the source sends, if it states one.
    :ivar validator: as of a stream of the image, where the source knows it without opening one.
    :ivar disk_bytes: length of the disk in it, where it is in a container and the source knows.
    :ivar changed_at: seconds since 1970 when its bytes became what they are; None if unknown.
    """

    id: str
    source: str
    name: str
    format: str | None = None
    size_bytes: int | None = None
    min_disk_gib: int = 0
    digest: Digest | None = None
    validator: str | None = None
    disk_bytes: int | None = None
    changed_at: float | None = None
